"""Units ranked by a property: a planted unit comes first, and the measures equal plain loops."""

import math
from collections import Counter

import numpy as np
import pytest
import torch

from unrolled.analyse import (
    Passage,
    Selection,
    bin_units,
    collect_trace,
    passage_text,
    property_of,
    rank_units,
    units_record,
)
from unrolled.analyse.units import binned, mutual_information
from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor
from unrolled.tokenizer import TOKENIZERS, Tokenizer

PLANTED = 4


def nested(length: int) -> str:
    """Letters and well-formed brackets, up to five deep."""
    draw, depth, signs = np.random.default_rng(5), 0, []
    while len(signs) < length:
        kind = draw.integers(0, 4)
        if kind == 0 and depth < 5:
            depth += 1
            signs.append("(")
        elif kind == 1 and depth:
            depth -= 1
            signs.append(")")
        else:
            signs.append("abc\n"[draw.integers(0, 4)])
    return "".join(signs)


@pytest.fixture
def brackets() -> Tokenizer:
    cls = TOKENIZERS["char"]
    return cls.train(cls.Config.parse({"name": "char"}), [b"abc()\n"])


def counting_model(tokenizer: Tokenizer) -> NeuralPredictor:
    """A ReLU network whose unit 4 adds 1 at ( and subtracts 1 at ); the others have small random weights."""
    torch.manual_seed(0)
    cell = {"name": "rnn", "nonlinearity": "relu"}
    config = {"width": 9, "cell": cell, "embedding": {"size": 3}}
    model = LanguageModel(ModelConfig.parse(config), tokenizer.vocab_size)
    layer = model.stack.cells()[0]
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.25 * torch.randn_like(parameter))
        change = [(piece == b"(") - (piece == b")") for piece in tokenizer.pieces]
        model.embedding.weight[:, 0] = torch.tensor(change, dtype=torch.float32)
        for name in ("weight_ih", "weight_hh", "bias"):
            layer.get_parameter(name)[PLANTED] = 0
        layer.get_parameter("weight_ih")[PLANTED, 0] = 1
        layer.get_parameter("weight_hh")[PLANTED, PLANTED] = 1
    return NeuralPredictor(model, tokenizer.start_id)


@pytest.mark.parametrize("by", ["correlation", "information"])
def test_a_planted_bracket_depth_unit_is_ranked_first(brackets: Tokenizer, by: str) -> None:
    passage = Passage(np.array(brackets.encode(nested(3000))), np.zeros(1, np.int64), {})
    depth = property_of("depth", passage_text(brackets, passage))
    trace = collect_trace(counting_model(brackets), passage, Selection(names=("h",)))
    assert np.array_equal(trace.values["0.h"][:, PLANTED], depth), "the unit counts"
    found = rank_units("depth", depth, trace.values, by=by)  # type: ignore[arg-type]
    assert (found.sites[0], found.units[0]) == ("0.h", PLANTED)
    assert found.correlation[0] == pytest.approx(1)
    assert found.information[0] == pytest.approx(found.entropy)
    assert abs(found.correlation[1]) < 0.9
    assert sorted(found.units.tolist()) == list(range(9))


def plain_information(a: list[int], b: list[int]) -> float:
    pairs, first, second, n = Counter(zip(a, b, strict=True)), Counter(a), Counter(b), len(a)
    return sum(k / n * math.log2((k / n) / (first[x] / n * second[y] / n)) for (x, y), k in pairs.items())


def test_measures_equal_the_plain_ones() -> None:
    draw = np.random.default_rng(1)
    matrix = draw.normal(size=(500, 4)).astype(np.float32)
    matrix[:, 3] = 0.25
    values = np.round(2 * matrix[:, 1] + draw.normal(size=500))
    found = rank_units("x", values, {"0.c": matrix[:, :2], "1.c": matrix[:, 2:]})
    bins = bin_units({"all": matrix})["all"]
    for site, unit, r, bits in zip(found.sites, found.units, found.correlation, found.information, strict=True):
        column = unit + 2 * int(site[0])
        x = matrix[:, column].astype(float)
        plain = 0.0 if column == 3 else np.corrcoef(x, values)[0, 1]
        assert r == pytest.approx(plain, abs=1e-9)
        assert bits == pytest.approx(plain_information(bins[:, column].tolist(), binned(values).tolist()), abs=1e-9)
    assert (found.sites[0], found.units[0]) == ("0.c", 1)
    assert found.correlation[-1] == 0
    assert found.information[-1] == 0
    assert np.abs(found.correlation).tolist() == sorted(np.abs(found.correlation).tolist(), reverse=True)


def test_information_finds_what_is_not_linear() -> None:
    draw = np.random.default_rng(2)
    values = draw.integers(-3, 4, 4000).astype(float)
    matrix = np.stack([0.3 * values + draw.normal(size=4000), values**2], 1).astype(np.float32)
    assert rank_units("x", values, {"0.h": matrix}).units[0] == 0
    assert rank_units("x", values, {"0.h": matrix}, by="information").units[0] == 1


def test_independent_sequences_tell_the_bias() -> None:
    draw = np.random.default_rng(3)
    matrix, values = draw.normal(size=(4000, 200)), draw.integers(0, 8, 4000).astype(float)
    found = rank_units("x", values, {"0.h": matrix})
    assert found.bias == pytest.approx(15 * 7 / (2 * 4000 * math.log(2)))
    assert found.information.mean() == pytest.approx(found.bias, rel=0.05)


def test_bins() -> None:
    assert binned(np.array([5.0, 1.0, 5.0, 2.0])).tolist() == [2, 0, 2, 1]
    counts = np.bincount(binned(np.random.default_rng(0).normal(size=1600)))
    assert counts.tolist() == [100] * 16
    tied = binned(np.concatenate([np.zeros(900), np.arange(1.0, 101.0)]), 4)
    assert len(set(tied[:900].tolist())) == 1, "equal values share a bin"
    assert tied[:900].max() not in tied[900:]
    assert np.bincount(tied[900:]).max() == 34, "the others share the three bins that are left"
    assert mutual_information(tied, tied) > 0.9 * math.log2(10 / 9)
    assert set(binned(np.arange(100.0), 8).tolist()) == set(range(8))


def test_a_constant_property_is_refused() -> None:
    with pytest.raises(UsageError, match="the property quote is 0 at every token of this text"):
        rank_units("quote", np.zeros(9), {"0.h": np.ones((9, 2))})


def test_the_record_tells_of_the_best() -> None:
    draw = np.random.default_rng(4)
    matrix = draw.normal(size=(100, 6))
    found = rank_units("x", matrix[:, 2], {"0.h": matrix})
    record = units_record([found], 3, {"run": "r"}, {"by": "correlation"})
    rows = record["properties"]["x"]["units"]
    assert (record["run"], len(rows), rows[0]["unit"]) == ("r", 3, 2)
    assert rows[0]["correlation"] == pytest.approx(1)


@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-4])
@pytest.mark.parametrize("levels", [4, 30])
def test_a_unit_that_counts_tells_all(noise: float, levels: int) -> None:
    """Rounding of floats does not split its values into bins of their own."""
    rng = np.random.default_rng(3)
    property_ = rng.integers(0, levels, 4000).astype(float)
    unit = (0.3 * property_ - 1) * (1 + noise * rng.standard_normal(4000))
    found = rank_units("count", property_, {"0.c": unit[:, None]})
    assert found.information[0] == pytest.approx(found.entropy, abs=1e-12)
    smooth = rng.standard_normal(20000)
    assert np.bincount(binned(smooth)).tolist() == [1250] * 16, "dense values are no heaps"
