"""Recycled steps: calls of the cells, exactness where the recycler is right, and what a run exports."""

import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import Tensor, nn

from train.runs import experiment, write_text
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.core.tree import load_tensors
from unrolled.evaluate import EvalConfig, evaluate_run, open_predictor
from unrolled.model.recycler import Recycler
from unrolled.predict import ADAPTERS, NeuralPredictor, PredictorConfig
from unrolled.predict.recycle import RecycleAdapterConfig, RecyclePredictor
from unrolled.runs import Run
from unrolled.train import train
from unrolled.train.objectives import Given
from unrolled.train.objectives.recycle import Recycle, RecycleConfig

Make = Callable[..., NeuralPredictor]


class Counted(NeuralPredictor):
    """Counts the calls of its cells, and the tokens that they read."""

    def __init__(self, inner: NeuralPredictor):
        super().__init__(inner.model, inner.start_id)
        self.calls = self.fed = 0
        forward = inner.model.run_stack

        def counting(x, *more, **others):
            self.calls, self.fed = self.calls + 1, self.fed + x.shape[1]
            return forward(x, *more, **others)

        inner.model.run_stack = counting  # type: ignore[method-assign]


class Right(nn.Module):
    """What the cells would have given: looked up by the output before and the token's vector."""

    def __init__(self, after: dict[tuple[float, ...], Tensor]):
        super().__init__()
        self.after = after

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        keys = torch.cat([h, e], -1).flatten(0, -2).tolist()
        found = [self.after.get(tuple(key), torch.zeros(h.shape[-1], dtype=h.dtype)) for key in keys]
        return torch.stack(found).reshape(h.shape)


def recycler() -> Recycler:
    torch.manual_seed(3)
    made = Recycler(8, 8, 7).double()
    nn.init.normal_(made.weight_out)
    return made


ALTERNATE = RecycleAdapterConfig()


@pytest.mark.parametrize("count", [1, 2, 7, 8])
def test_half_the_calls(predictor: Make, count: int) -> None:
    """Of n tokens, the start symbol one of them."""
    inner = Counted(predictor())
    recycled = RecyclePredictor(inner, ALTERNATE, recycler())
    state = recycled.begin(1)
    for number in range(1, count):
        recycled.predict(state)
        state = recycled.observe(state, torch.tensor([number]))
    recycled.predict(state)
    assert inner.calls == math.ceil(count / 2)
    assert inner.fed + int(state.has_pending) == count


def test_always_is_the_model(predictor: Make) -> None:
    inner, ids = predictor(), torch.randint(0, 18, (3, 9), generator=torch.Generator().manual_seed(1))
    reset = torch.zeros(3, 9, dtype=torch.bool)
    reset[1, 4] = True
    always = ADAPTERS["recycle"].apply(inner, RecycleAdapterConfig(mode="always"), None)
    wanted, found = inner.window(inner.begin(3), ids, reset), always.window(always.begin(3), ids, reset)
    assert torch.equal(found.nll, wanted.nll)
    assert torch.equal(always.predict(found.state).log_prob, inner.predict(wanted.state).log_prob)
    after = always.observe(found.state, ids[:, 0])
    assert torch.equal(always.predict(after).log_prob, inner.predict(inner.observe(wanted.state, ids[:, 0])).log_prob)
    assert always.told["recycle"]["recycled"]["tokens"] == 0


def test_the_true_output_gives_the_nats_of_the_model(predictor: Make) -> None:
    inner, ids = predictor(), torch.randint(0, 18, (2, 11), generator=torch.Generator().manual_seed(2))
    wanted = inner.window(inner.begin(2), ids)
    assert wanted.hidden is not None
    outputs = torch.cat([wanted.hidden, wanted.state.hidden.unsqueeze(1)], 1)
    keys = torch.cat([wanted.hidden, inner.model.embedding(ids)], -1).tolist()
    after = {tuple(keys[r][t]): outputs[r, t + 1] for r in range(2) for t in range(11)}
    right = RecyclePredictor(inner, ALTERNATE, Right(after))  # type: ignore[arg-type]
    assert (right.window(right.begin(2), ids).nll - wanted.nll).abs().max() < 1e-6
    wrong = RecyclePredictor(inner, ALTERNATE, recycler())
    found = wrong.window(wrong.begin(2), ids).nll
    assert (found[:, ::2] - wanted.nll[:, ::2]).abs().max() < 1e-9
    assert (found[:, 1::2] - wanted.nll[:, 1::2]).abs().min() > 1e-6
    told = wrong.told["recycle"]
    assert (told["full"]["tokens"], told["recycled"]["tokens"]) == (12, 10)
    assert told["full"]["nats"] == pytest.approx(float(found[:, ::2].sum()))
    assert told["recycled"]["nats"] == pytest.approx(float(found[:, 1::2].sum()))


def test_the_value_is_that_of_the_guesses(predictor: Make) -> None:
    """The objective's nats are those that the predictor would have at every position, one ahead."""
    model, made = predictor().model, recycler()
    ids = torch.randint(0, 18, (2, 6), generator=torch.Generator().manual_seed(4))
    out = model(ids[:, :-1])
    guess = made(out.raw[:, :-1], model.embedding(ids[:, 1:-1]))
    wanted = -model.head.log_prob(guess)[0].gather(2, ids[:, 2:].unsqueeze(2)).sum()
    seen = SimpleNamespace(
        model=model, batch=SimpleNamespace(inputs=ids[:, :-1]), targets=ids[:, 1:], out=out, weight=None, reset=None,
        total=wanted,
    )  # fmt: skip
    objective = Recycle(RecycleConfig(), RandomStreams(1), model)
    given = Given(seen, made, 10, 0)  # type: ignore[arg-type]
    assert float(objective.value(given).detach()) == pytest.approx(float(wanted.detach()) / 10)


def test_a_run_exports_its_recycler(tmp_path: Path) -> None:
    text, extra = write_text(tmp_path / "text"), [{"name": "recycle", "hidden": 6}]
    run = train(experiment(text, train={"steps": 12, "validations": 2, "extra": extra}), tmp_path / "run", "cpu")
    assert set(load_tensors(run / "recycler.safetensors")) == {"weight_in", "bias_in", "weight_out", "bias_out"}
    assert not any("recycler" in name or "weight_in" in name for name in load_tensors(run / "model.safetensors"))
    asked = PredictorConfig.parse({"recycle": "alternate"})
    result = evaluate_run(Run(run, "cpu"), None, EvalConfig(split="valid", limit=400), asked)
    told = result.provenance["told"]["recycle"]
    assert told["full"]["tokens"] == told["recycled"]["tokens"] == 200
    plain = evaluate_run(Run(run, "cpu"), None, EvalConfig(split="valid", limit=400))
    assert told["full"]["nats"] + told["recycled"]["nats"] == pytest.approx(result.nats, rel=1e-5)
    assert result.nats != pytest.approx(plain.nats, rel=1e-5)
    raw = Run(run, "cpu", weights="raw")
    with open_predictor(raw, asked) as found:
        assert isinstance(found, RecyclePredictor)
    other = train(experiment(text, train={"steps": 2, "validations": 1}), tmp_path / "other", "cpu")
    with pytest.raises(UsageError, match="no recycler"):
        open_predictor(Run(other, "cpu"), asked)


def test_a_head_that_carries_a_state_is_refused(predictor: Make) -> None:
    with pytest.raises(UsageError, match="carries a state"):
        Recycle(RecycleConfig(), RandomStreams(1), predictor(counting=True).model)
