"""The probe against a plain loop: one place at a time, hand-made inputs, the whole past read from the start."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled.analyse import Corruption, RecoveryConfig, draw_corruption, measure_recovery
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data import TokenSplit
from unrolled.predict import NeuralPredictor

Make = Callable[..., NeuralPredictor]
Text = Callable[..., TokenSplit]


def config(**changes: object) -> RecoveryConfig:
    return RecoveryConfig.parse({"places": 12, "lags": 9, "batch": 5, **changes})


def plain_reading(model: NeuralPredictor, past: list[int], targets: list[int]) -> tuple[list[float], dict]:
    """Nats of each target after ``past``, and the outputs that predict it: site -> (time, width)."""
    inputs = torch.tensor([[model.start_id, *past, *targets[:-1]]])
    with torch.no_grad():
        raw = model.model(inputs).raw[0, -len(targets) :]
        nats = [
            -float(model.model.head.log_prob(h[None])[0][0, t])
            for h, t in zip(raw, targets, strict=True)  # one at a time
        ]
        traced = list(model.model.trace(inputs))[-len(targets) :]
    sites = {"output": raw}
    for layer in (0, 1):
        if f"{layer}.h" in traced[0]:
            sites[f"layer {layer + 1}"] = torch.stack([step[f"{layer}.h"].reshape(-1) for step in traced])
    return nats, sites


def plain_cosine(a: Tensor, b: Tensor) -> float:
    return float(torch.dot(a, b) / math.sqrt(float(torch.dot(a, a)) * float(torch.dot(b, b))))


@pytest.mark.parametrize("length", [pytest.param(1, marks=pytest.mark.slow), 3])
@pytest.mark.parametrize("corruption", ["flip", "delete", "random"])
@pytest.mark.parametrize("cell", ["lstm", pytest.param("mlstm", marks=pytest.mark.slow), "qrnn"])
def test_equals_the_plain_loop(
    predictor: Make, text: Text, cell: str, corruption: str, length: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unrolled.analyse.recovery.measure._WINDOW", 7)  # so that places lie in several windows
    model, split, how = predictor(cell), text(45), config(corruption=corruption, length=length, places=10)
    chosen = draw_corruption(split, how)
    found = measure_recovery(model, split, how)
    ids = split.ids(0, len(split)).tolist()
    assert {"output", "layer 1", "layer 2"} == set(found.correlation) == set(found.cosine)
    for row, place in enumerate(chosen.places.tolist()):
        instead = [] if chosen.symbols is None else chosen.symbols[row].tolist()
        targets = ids[place + length : place + length + 10]
        right, right_sites = plain_reading(model, ids[: place + length], targets)
        wrong, wrong_sites = plain_reading(model, ids[:place] + instead, targets)
        excess = [(w - r) / math.log(2) for w, r in zip(wrong, right, strict=True)]
        assert found.excess[row] == pytest.approx(excess, rel=1e-9, abs=1e-9)
        assert {"output", "layer 1", "layer 2"} == set(right_sites)
        for site, states in right_sites.items():
            for lag in range(10):
                a, b = states[lag], wrong_sites[site][lag]
                assert found.cosine[site][row, lag] == pytest.approx(plain_cosine(a, b), abs=1e-9)
                pearson = float(np.corrcoef(a.numpy(), b.numpy())[0, 1])
                assert found.correlation[site][row, lag] == pytest.approx(pearson, abs=1e-9)
    assert np.abs(found.excess).max() > 0.1


def test_the_same_symbols_cost_nothing(predictor: Make, text: Text) -> None:
    """Exactly, in float32 too."""
    split, how = text(120), config(length=2, corruption="random")
    places = draw_corruption(split, how).places
    true = np.stack([split.ids(place, place + 2) for place in places.tolist()])
    for cell in ("lstm", "qrnn"):
        found = measure_recovery(predictor(cell, torch.float32), split, how, Corruption(places, true))
        assert not found.excess.any()
        for site in found.correlation:
            assert (found.correlation[site] == 1).all()
            assert (found.cosine[site] == 1).all()


@pytest.mark.parametrize("batch", [1, 4, 12, 100])
def test_the_batch_changes_nothing(predictor: Make, text: Text, batch: int) -> None:
    split = text(700)
    first = measure_recovery(predictor("mlstm"), split, config())
    other = measure_recovery(predictor("mlstm"), split, config(batch=batch))
    assert other.excess == pytest.approx(first.excess, abs=1e-10)
    assert other.correlation["layer 1"] == pytest.approx(first.correlation["layer 1"], abs=1e-10)


def test_columns_begin_without_a_past(predictor: Make, text: Text) -> None:
    """Places of the second column equal those of its text alone."""
    whole = text(200)
    half = TokenSplit(whole.ids(100, 200), whole.tables)
    places = np.array([0, 5, 60, 100, 103, 103, 180])
    symbols = np.random.default_rng(0).integers(0, 12, (7, 1))
    found = measure_recovery(predictor("lstm"), whole, config(columns=2), Corruption(places, symbols))
    alone = measure_recovery(predictor("lstm"), half, config(), Corruption(places[3:] - 100, symbols[3:]))
    assert found.excess[3:] == pytest.approx(alone.excess, abs=1e-12)
    single = measure_recovery(predictor("lstm"), whole, config(), Corruption(places, symbols))
    assert found.excess[:3] == pytest.approx(single.excess[:3], abs=1e-12)
    assert np.abs(found.excess[3:] - single.excess[3:]).max() > 1e-6


def test_the_state_restarts_where_a_text_begins(predictor: Make, text: Text) -> None:
    """What lies before the start of a document is no past of a place in it; no stretch crosses a start."""
    split = text(200, starts=[0, 40, 130])
    how = config(places=30)
    chosen = draw_corruption(split, how)
    for place in chosen.places.tolist():
        assert not any(place <= start < place + 11 for start in (0, 40, 130))
    found = measure_recovery(predictor("lstm"), split, how)
    second = (chosen.places > 40) & (chosen.places < 130)
    assert second.sum() > 3
    alone = TokenSplit(split.ids(40, 130), split.tables)
    symbols = chosen.symbols
    assert symbols is not None
    own = Corruption(chosen.places[second] - 40, symbols[second])
    assert found.excess[second] == pytest.approx(measure_recovery(predictor("lstm"), alone, how, own).excess, abs=1e-12)


def test_what_is_drawn(text: Text) -> None:
    split = text(30_000)
    ids = split.ids(0, len(split))
    how = config(places=5000, length=2, corruption="flip")
    flipped = draw_corruption(split, how)
    assert flipped.symbols is not None
    true = np.stack([ids[flipped.places], ids[flipped.places + 1]], 1)
    assert len(set(flipped.places.tolist())) == 5000
    assert (np.diff(flipped.places) > 0).all()
    assert (flipped.symbols != true).all()
    assert set(flipped.symbols.ravel().tolist()) == set(ids.tolist()), "the symbols seen, and no others"
    share = np.bincount(flipped.symbols[true == 3]) / (true == 3).sum()
    others = np.delete(share, 3)
    assert others == pytest.approx(1 / len(others), abs=0.03)
    again = draw_corruption(split, how)
    assert np.array_equal(again.places, flipped.places)
    assert not np.array_equal(draw_corruption(split, config(places=5000, seed=2)).places, flipped.places)
    deleted = draw_corruption(split, config(places=5000, length=2, corruption="delete"))
    assert deleted.symbols is None
    assert np.array_equal(deleted.places, flipped.places), "the ways of corruption share their places"


def test_random_symbols_follow_the_text(text: Text) -> None:
    split = text(1000)
    skewed = TokenSplit(np.where(split.ids(0, 1000) < 9, 1, 2), split.tables)
    symbols = draw_corruption(skewed, config(places=900, length=3, corruption="random")).symbols
    assert symbols is not None
    assert set(symbols.ravel().tolist()) == {1, 2}
    assert (symbols == 1).mean() == pytest.approx((skewed.ids(0, 1000) == 1).mean(), abs=0.03)


def test_the_last_place_that_fits(predictor: Make, text: Text) -> None:
    """With K = 1 and 9 lags a place is followed by 10 tokens: a text of 21 has exactly 11 places."""
    assert draw_corruption(text(21), config(places=11)).places.tolist() == list(range(11))
    assert measure_recovery(predictor("lstm"), text(21), config(places=11)).excess.shape == (11, 10)
    assert draw_corruption(text(90), config(places=11, limit=21)).places.tolist() == list(range(11))
    with pytest.raises(UsageError, match=r"only 11 places of the text are followed by 11 tokens of it and 12 are"):
        draw_corruption(text(21), config())


def test_refusals(predictor: Make, text: Text, tokenizer) -> None:
    one = TokenSplit(np.full(100, 3), tokenizer.tables)
    with pytest.raises(UsageError, match="consists of one symbol"):
        draw_corruption(one, config())
    with pytest.raises(UsageError, match="fewer than 11 tokens"):
        measure_recovery(predictor("lstm"), one, config(), Corruption(np.array([90]), None))
    model = predictor("lstm")
    with torch.no_grad():
        model.model.head.weight[0, 0] = float("nan")  # type: ignore[index]
    with pytest.raises(UnrolledError, match="not a finite number"):
        measure_recovery(model, text(100), config())


def test_the_model_is_left_as_it_was(predictor: Make, text: Text) -> None:
    model = predictor("lstm")
    measure_recovery(model, text(100), config())
    assert all(not cell._forward_hooks for cell in model.model.stack.cells())
