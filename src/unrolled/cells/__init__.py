"""The cells. A new one is one file and one line in this table."""

from typing import TYPE_CHECKING, Annotated

from pydantic import BeforeValidator, SerializeAsAny

from unrolled.cells.base import Cell, CellConfig, Noise, ParameterRule, Place, StepCell, Tap, Weights
from unrolled.cells.mixer import Given, MixerCell
from unrolled.core.registry import Registry

if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "CELLS",
    "AnyCellConfig",
    "Cell",
    "CellConfig",
    "Given",
    "MixerCell",
    "Noise",
    "ParameterRule",
    "Place",
    "StepCell",
    "Tap",
    "Weights",
]

CELLS: "Registry[Any]" = Registry(
    "cell",
    {
        "rnn": "unrolled.cells.gated.rnn:RNN",
        "lstm": "unrolled.cells.gated.lstm:LSTM",
        "gru": "unrolled.cells.gated.gru:GRU",
        "mrnn": "unrolled.cells.multiplicative.mrnn:MRNN",
        "mlstm": "unrolled.cells.multiplicative.mlstm:MLSTM",
        "mgru": "unrolled.cells.multiplicative.mgru:MGRU",
        "qrnn": "unrolled.cells.scan.qrnn:QRNN",
        "mingru": "unrolled.cells.scan.mingru:MinGRU",
        "minlstm": "unrolled.cells.scan.minlstm:MinLSTM",
        "sru": "unrolled.cells.scan.sru:SRU",
        "lru": "unrolled.cells.scan.lru:LRU",
        "hgrn": "unrolled.cells.scan.hgrn:HGRN",
        "rg_lru": "unrolled.cells.scan.rg_lru:RGLRU",
        "rwkv4": "unrolled.cells.scan.rwkv4:RWKV4",
        "rwkv4_channel": "unrolled.cells.scan.rwkv4:RWKV4Channel",
        "aaren": "unrolled.cells.scan.aaren:Aaren",
        "gateloop": "unrolled.cells.scan.gateloop:GateLoop",
        "mamba": "unrolled.cells.scan.mamba:Mamba",
        "longhorn": "unrolled.cells.scan.longhorn:Longhorn",
        "mlp": "unrolled.cells.feedforward.mlp:MLP",
        "mogrifier": "unrolled.cells.gated.mogrifier:Mogrifier",
    },
    default="lstm",
)

AnyCellConfig = Annotated[SerializeAsAny[CellConfig], BeforeValidator(CELLS.parse)]
"""A field that takes the config of any registered cell, or its name alone."""
