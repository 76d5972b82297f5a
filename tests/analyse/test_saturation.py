"""Saturation of gates against plain loops over the trace, for every registered cell."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from families import cells_by_family
from unrolled.analyse import measure_saturation, passage_of, saturation_record, sites
from unrolled.cells import CELLS
from unrolled.cells.taps import tap_name, tapped
from unrolled.core.errors import UsageError
from unrolled.data import TokenSplit
from unrolled.predict import NeuralPredictor

Make = Callable[..., NeuralPredictor]
Text = Callable[..., TokenSplit]

GATES = {
    "lstm": ["i", "f", "o"],
    "gru": ["r", "z"],
    "mlstm": ["i", "f", "o"],
    "mgru": ["r", "z"],
    "qrnn": ["f", "o"],
    "mogrifier": ["round1", "round2", "round3", "round4", "round5", "i", "f", "o"],
}


@pytest.mark.parametrize("cell", cells_by_family())
def test_equals_the_plain_loop(predictor: Make, text: Text, cell: str) -> None:
    model, passage = predictor(cell), passage_of(text(150))  # more than a window
    named = tapped(CELLS[cell], CELLS[cell].Config())
    gates = GATES.get(cell, [name for name in named if tap_name(name).role in ("gate", "decay")])
    if not gates:
        with pytest.raises(UsageError, match=f"the cell {cell} has no gates"):
            measure_saturation(model, passage)
        return
    found = measure_saturation(model, passage, 0.2, 0.7)
    assert set(found.gates) == {f"{layer}.{name}" for layer in (0, 1) for name in gates}
    inputs = torch.tensor([[model.start_id, *passage.ids.tolist()]])
    steps = list(model.model.trace(inputs))[1:]
    for key, use in found.gates.items():
        high = 2.0 if "round" in key else 1.0
        for unit in range(len(use.left)):
            values = [float(step[key][0, unit]) / high for step in steps]
            assert use.left[unit] == sum(v < 0.2 for v in values) / 150
            assert use.right[unit] == sum(v > 0.7 for v in values) / 150
            assert use.mean[unit] == pytest.approx(sum(values) / 150, abs=1e-12)
    sides = [max(getattr(use, side).max() for use in found.gates.values()) for side in ("left", "right")]
    assert max(sides) > 0.05
    assert cell not in GATES or min(sides) > 0.05


def test_the_record(predictor: Make, text: Text) -> None:
    model, passage = predictor("gru"), passage_of(text(150), corpus="mine")
    one = measure_saturation(model, passage)
    (run,) = saturation_record([one._replace(name="x")])["runs"]
    use, gate = one.gates["1.z"], run["gates"]["1.z"]
    assert (run["name"], run["corpus"], run["tokens"], gate["units"]) == ("x", "mine", 150, 6)
    assert gate["left"] == np.mean(use.left)
    assert gate["units_mostly_right"] == sum(share > 0.5 for share in use.right)


def test_the_state_restarts_where_a_text_begins(predictor: Make, text: Text) -> None:
    model, split = predictor("lstm"), text(90, starts=[0, 50])
    whole = measure_saturation(model, passage_of(split))
    halves = [TokenSplit(ids, split.tables) for ids in (split.ids(0, 50), split.ids(50, 90))]
    parts = [measure_saturation(model, passage_of(half)) for half in halves]
    for key in sites(model):
        if key in whole.gates:
            mean = (50 * parts[0].gates[key].mean + 40 * parts[1].gates[key].mean) / 90
            assert whole.gates[key].mean == pytest.approx(mean, abs=1e-12)


@pytest.mark.parametrize(("low", "high"), [(0.5, 0.4), (0.0, 0.9), (0.1, 1.0)])
def test_thresholds(predictor: Make, text: Text, low: float, high: float) -> None:
    with pytest.raises(UsageError, match="the thresholds need 0 < low < high < 1"):
        measure_saturation(predictor("lstm"), passage_of(text(30)), low, high)
