"""Numbers as tokens: identity on all cells, errors, what is drawn parses, and a density that no Gaussian has."""

import math

import numpy as np
import pytest
import torch

from generate.ended import random_predictor
from unrolled.core.errors import UsageError
from unrolled.generate import SamplerConfig, generate
from unrolled.generate.numbers import Cells, number_cells, point
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor
from unrolled.tokenizer.number import NumberConfig, NumberTokenizer

FORMS = ((2, 8), (10, 3), (4, 5))


def made(base: int, digits: int, exponent: int = 0) -> NumberTokenizer:
    return NumberTokenizer(NumberConfig(base=base, digits=digits, exponent=exponent))


@pytest.mark.parametrize(("base", "digits"), FORMS)
def test_identity_on_all_cells(base: int, digits: int) -> None:
    tokenizer = made(base, digits)
    seen = set()
    for cell in range(base**digits):
        ids = tokenizer.encode_number((cell + 0.5) / base**digits)
        assert tokenizer.encode_number(tokenizer.decode_number(ids)) == ids
        assert tokenizer.decode_number(ids) == pytest.approx((cell + 0.5) / base**digits, abs=1e-12)
        seen.add(tuple(ids))
        assert tokenizer.encode(tokenizer.decode(ids)) == ids
    assert len(seen) == base**digits
    assert tokenizer.encode_number(1.0) == tokenizer.encode_number(1 - 1e-12)


@pytest.mark.parametrize(("base", "digits"), FORMS)
def test_error(base: int, digits: int) -> None:
    tokenizer, drawn = made(base, digits), np.random.default_rng(0).random(2000)
    errors = [abs(tokenizer.decode_number(tokenizer.encode_number(y)) - y) for y in drawn]
    assert max(errors) <= base**-digits / 2 + 1e-15
    assert max(errors) > base**-digits / 2.5


def test_relative_error_with_an_exponent() -> None:
    tokenizer = made(10, 4, 2)
    drawn = np.random.default_rng(1)
    for y in np.exp(6 * drawn.standard_normal(1500)) * drawn.choice([-1, 1], 1500):
        ids = tokenizer.encode_number(float(y))
        assert len(ids) == tokenizer.length == 8
        assert abs(tokenizer.decode_number(ids) / y - 1) <= 10.0**-3 / 2 + 1e-12
        assert tokenizer.encode_number(tokenizer.decode_number(ids)) == ids
    # a mantissa that is rounded up to ten carries
    assert tokenizer.decode_number(tokenizer.encode_number(9.99996)) == pytest.approx(10.0)
    assert tokenizer.decode_number(tokenizer.encode_number(0.0)) == 0
    assert tokenizer.decode_number(tokenizer.encode_number(1e-200)) == 0
    assert tokenizer.decode_number(tokenizer.encode_number(tokenizer.largest)) == pytest.approx(tokenizer.largest)
    with pytest.raises(UsageError, match="raise exponent"):
        tokenizer.encode_number(tokenizer.largest * 1.01)


@pytest.mark.parametrize("form", [(2, 8, 0), (10, 3, 2)])
def test_what_is_drawn_parses(form: tuple[int, int, int]) -> None:
    tokenizer = made(*form)
    model = random_predictor(tokenizer.vocab_size, 1)
    sampler = SamplerConfig.parse({"constrain": "number"})
    for one in generate(model, tokenizer, ("",), 50, sampler, samples=200):
        assert one.finish_reason == "end"
        assert math.isfinite(tokenizer.decode_number(one.tokens))
        assert one.text == tokenizer.decode(one.tokens)


@pytest.mark.parametrize(("base", "digits"), FORMS)
def test_cells_sum_to_one(base: int, digits: int) -> None:
    tokenizer = made(base, digits)
    model = random_predictor(tokenizer.vocab_size, 2)
    cells = number_cells(model, tokenizer, model.begin(1))
    assert len(cells.value) == base**digits
    assert np.all(np.diff(cells.value) > 0)
    assert np.exp(cells.log_prob).sum() == pytest.approx(1, abs=1e-6)
    middle = base**digits // 2
    ids = tokenizer.encode_number(float(cells.value[middle]))
    nats, state = 0.0, model.begin(1)
    for token in ids:
        nats += float(torch.log_softmax(model.predict(state).log_prob[0, :base], 0)[token])
        state = model.observe(state, torch.tensor([token]))
    assert cells.log_prob[middle] == pytest.approx(nats, abs=1e-9)


def test_points() -> None:
    cells = Cells(np.array([0.0, 1.0, 5.0]), np.log([0.3, 0.3, 0.4]))
    assert [point(cells, kind) for kind in ("mean", "median", "mode")] == pytest.approx([2.3, 1.0, 5.0])


def test_two_humps() -> None:
    """Half at .25 and half at .75: better than the best Gaussian by more than half a nat."""
    tokenizer, drawn = made(2, 6), np.random.default_rng(0)
    y = np.where(drawn.random(2000) < 0.5, 0.25, 0.75) + 0.03 * drawn.standard_normal(2000)
    ids = torch.tensor([tokenizer.encode_number(float(one)) for one in y])
    torch.manual_seed(0)
    model = LanguageModel(ModelConfig.parse({"width": 16, "cell": "lstm"}), tokenizer.vocab_size).double()
    optimizer = torch.optim.Adam(model.parameters(), 0.03)
    before = torch.full((2000, 1), tokenizer.start_id)
    for _ in range(150):
        loss, *_ = model.loss(torch.cat([before, ids[:, :-1]], 1), ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    predictor = NeuralPredictor(model.eval(), tokenizer.start_id)
    cells = number_cells(predictor, tokenizer, predictor.begin(1))
    density = cells.log_prob + 6 * math.log(2)
    own = -np.mean([density[np.searchsorted(cells.value, tokenizer.decode_number(row))] for row in ids.tolist()])
    gaussian = 0.5 * math.log(2 * math.pi * math.e * y.var())
    assert own < gaussian - 0.5
    assert point(cells, "mean") == pytest.approx(0.5, abs=0.03)


def test_refused() -> None:
    with pytest.raises(UsageError, match="between 0 and 1"):
        made(10, 3).encode_number(1.5)
    with pytest.raises(UsageError, match="has 3 tokens"):
        made(10, 3).decode_number([1, 2])
    with pytest.raises(UsageError, match="no digit of base 2"):
        made(2, 3).encode("012")
    with pytest.raises(UsageError, match="lower exponent"):
        made(10, 3, 3)
    big = made(10, 6)
    model = random_predictor(big.vocab_size, 1)
    with pytest.raises(UsageError, match="draw numbers"):
        number_cells(model, big, model.begin(1))
