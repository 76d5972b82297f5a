"""Cells broken on purpose, one or more for each check: what each check must notice."""

from unrolled.cells import Cell

from . import computing, contract, prefix, sequence
from .sequence import Start, TooNarrow

__all__ = ["BROKEN", "Start", "TooNarrow"]

BROKEN: dict[str, tuple[type[Cell], ...]] = {
    "shapes": (sequence.GrowingState, sequence.SinglePrecision),
    "splits": (sequence.ForgetsCarry, prefix.LosesItsPrefix, prefix.GoesOnInItsPrefix),
    "stepwise": (sequence.SecondBody, prefix.LosesItsPrefix),
    "resets_separate_documents": (
        sequence.IgnoresReset,
        sequence.ResetsAfterTheToken,
        prefix.MixesItsDocuments,
    ),
    "reset_restores_start": (sequence.ResetsToZero, sequence.IgnoresReset),
    "no_future": (
        sequence.LooksAhead,
        sequence.IgnoresInput,
        prefix.SeesPastItsPrefix,
        prefix.DeniesItsPrefix,
        prefix.ClaimsAPrefix,
    ),
    "rows_independent": (sequence.MixesRows,),
    "pure": (sequence.HiddenBuffer, sequence.WritesIntoState),
    "backends": (computing.OtherNumbersWhenCollecting, computing.OtherGradientWhenCollecting),
    "table_input": (computing.ProjectsTogether,),
    "gradients": (computing.WrongGradient,),
    "noise": (
        computing.IgnoresNoise,
        computing.IgnoresZoneout,
        computing.RatesForMasks,
        computing.CopiesItsOutput,
        computing.SwallowsNoise,
        computing.DropsNothingInside,
        computing.TakesAnySite,
    ),
    "weight_drop": (computing.CachesWeights, computing.NamesNoParameter),
    "bf16": (computing.LosesDigits, computing.IgnoresPrecision),
    "widths": (contract.RefusesThree, contract.RefusesBlindly),
    "rules": (contract.RulesForNothing,),
    "num_params": (contract.MiscountsParameters,),
    "flops": (contract.MiscountsFlops,),
    "state_size": (contract.MiscountsState,),
    "config": (contract.UnstableConfig, contract.UndescribedConfig, contract.OpenConfig),
    "save_load": (contract.UnsavedWeight,),
    "tap": (contract.TapsNaN, contract.TapsOnce, contract.TracingChanges),
    "memorises": (contract.NoMemory, contract.DeniesMemory),
}
