"""The probe of length against plain loops: every stretch token by token, every past within the trained length anew."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from families import cells_by_family
from unrolled.analyse import LengthConfig, LengthUse, length_record, measure_length, passage_of
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data import TokenSplit
from unrolled.predict import NeuralPredictor

Make = Callable[..., NeuralPredictor]
Text = Callable[..., TokenSplit]


def config(**changes: object) -> LengthConfig:
    return LengthConfig.parse({"length": 23, "texts": 3, "trained": 7, "batch": 2, **changes})


def plain_nats(model: NeuralPredictor, past: list[int], target: int) -> float:
    with torch.no_grad():
        log_prob, _ = model.model.head.log_prob(model.model(torch.tensor([[model.start_id, *past]])).raw[:, -1])
    return -float(log_prob[0, target])


@pytest.mark.parametrize("cell", ["lstm", "gla", "mamba", "s4d", "aaren", "jrt", "rwkv4"])
def test_equals_the_plain_loops(predictor: Make, text: Text, cell: str) -> None:
    model, how = predictor(cell), config()
    split = text(90, starts=[0, 50])
    ids = split.ids(0, 90).tolist()
    found = measure_length(model, passage_of(split), how)
    assert how.points() == [1, 2, 4, 7, 8, 16, 23]
    for row, begin in enumerate((0, 23, 50)):
        for at in range(23):
            expected = plain_nats(model, ids[begin : begin + at], ids[begin + at])
            assert found.nats[row, at] == pytest.approx(expected, abs=1e-9)
            if at < 6 or at >= 21:  # halves of 3: the last whole one ends at 21
                assert math.isnan(found.near[row, at])
                continue
            past = at % 3 + 3
            expected = plain_nats(model, ids[begin + at - past : begin + at], ids[begin + at])
            assert found.near[row, at] == pytest.approx(expected, abs=1e-9), at


@pytest.mark.parametrize("cell", cells_by_family())
def test_norms_are_those_of_the_states(predictor: Make, text: Text, cell: str) -> None:
    model, how = predictor(cell), config(texts=2)
    ids = text(60).ids(0, 60)
    found = measure_length(model, passage_of(text(60)), how)
    for row, begin in enumerate((0, 23)):
        for k, tokens in enumerate(how.points()):
            read = torch.tensor([[model.start_id, *ids[begin : begin + tokens].tolist()]])
            with torch.no_grad():
                states = model.model(read).state.cells
            for i, (layer, state) in enumerate(zip(model.model.stack.cells(), states, strict=True)):
                for name, part in state._asdict().items():
                    if not part.is_floating_point():
                        assert f"{i}.{name}" not in found.norms
                        continue
                    heads = part[0].flatten(1) if name in getattr(layer, "matrix_fields", ()) else part.flatten()[None]
                    expected = heads.detach().square().sum(1).sqrt().numpy()
                    np.testing.assert_allclose(found.norms[f"{i}.{name}"][row, k], expected, rtol=1e-7, atol=1e-9)


def test_batches_change_nothing(predictor: Make, text: Text) -> None:
    model, passage = predictor("hgrn2"), passage_of(text(90))
    heard: list[tuple[int, int]] = []
    one = measure_length(model, passage, config(batch=1), lambda done, total, _: heard.append((done, total)))
    three = measure_length(model, passage, config(batch=3))
    np.testing.assert_allclose(one.nats, three.nats, atol=1e-12)
    np.testing.assert_allclose(one.near, three.near, atol=1e-12)
    assert len(heard) == 3
    assert heard[-1][0] == heard[-1][1]


def _made(excess: float, growth: float) -> LengthUse:
    """Curves by hand: from position 16 on length costs ``excess`` bits, and one of two heads grows."""
    how = LengthConfig(length=32, texts=4, trained=8)
    nats, near = np.ones((4, 32)), np.full((4, 32), np.nan)
    near[:, 8:] = 1.0
    nats[:, 16:] += excess * math.log(2)
    points = how.points()
    norms = np.ones((4, len(points), 2))
    norms[:, points.index(32), 1] = growth
    return LengthUse("made", how, nats, near, {"0.s": norms}, {})


def test_where_loss_and_norm_leave_their_bands() -> None:
    run = length_record([_made(0.02, 2.5)])["runs"][0]
    assert (run["loss_out"], run["norm_out"]) == (17, 32)
    assert [part["from"] for part in run["bins"]] == [1, 2, 3, 5, 9, 17]
    assert [part["excess"] is None for part in run["bins"]] == [True, True, True, True, False, False]
    assert run["bins"][-1]["excess"]["mean"] == pytest.approx(0.02)
    assert run["norms"]["0.s"] == [1, 1, 1, 1, 1, 2.5], "the head with the largest at the end"
    run = length_record([_made(0.009, 1.9)])["runs"][0]
    assert (run["loss_out"], run["norm_out"]) == (None, None)


def test_a_sum_without_decay_grows_and_one_with_decay_does_not(predictor: Make, text: Text) -> None:
    how = config(length=300, trained=20, texts=2)
    grown = length_record([measure_length(predictor("linear_attention"), passage_of(text(700)), how)])["runs"][0]
    bound = length_record([measure_length(predictor("lstm"), passage_of(text(700)), how)])["runs"][0]
    assert grown["norm_out"] is not None
    assert max(grown["norms"]["0.s"][-1], grown["norms"]["1.s"][-1]) > 5 * grown["norms"]["0.s"][3]
    assert bound["norms"]["0.h"][-1] <= math.sqrt(6)


def test_refusals(predictor: Make, text: Text) -> None:
    with pytest.raises(UsageError, match="no longer than the 23 of training"):
        measure_length(predictor("lstm"), passage_of(text(90)), config(trained=23))
    with pytest.raises(UsageError, match=r"has 2 stretches of 23 tokens .* and 3 are wanted"):
        measure_length(predictor("lstm"), passage_of(text(60, starts=[0, 30])), config())
    broken = predictor("lstm")
    with torch.no_grad():
        broken.model.head.bias.fill_(float("nan"))
    with pytest.raises(UnrolledError, match="not a finite number"):
        measure_length(broken, passage_of(text(90)), config())
