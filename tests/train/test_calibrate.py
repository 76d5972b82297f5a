"""Calibration: values by hand, what a step minimises, and what it teaches."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.objectives.teachers import make_teachers, write_candidates
from train.runs import events, experiment
from unrolled.core.errors import UsageError
from unrolled.runs import Run
from unrolled.train import train
from unrolled.train.objectives import OBJECTIVES, ObjectiveConfig
from unrolled.train.objectives.calibrate import Calibrate, calibration
from unrolled.train.objectives.candidates import Context, read_contexts, rows_of, token_f1, vector_f
from unrolled.train.objectives.combined import Objectives
from unrolled.train.setup import set_up

LIKELY, SIMILAR = torch.tensor([-1.0, -2, -4]).double(), torch.tensor([0.9, 0.5, 0.1]).double()
KINDS: tuple[Any, ...] = ("rank", "margin", "list", "reward")


def test_by_hand() -> None:
    assert float(calibration("rank", LIKELY[[0, 2]], SIMILAR[[0, 2]], 1.0)) == 0
    assert float(calibration("margin", LIKELY[:2], SIMILAR[:2], 1.0)) == 0
    assert float(calibration("list", LIKELY, SIMILAR, 1.0)) == 0
    assert float(calibration("reward", LIKELY, SIMILAR, 1.0)) == pytest.approx(-0.768, abs=5e-4)
    assert float(calibration("rank", LIKELY, SIMILAR, 2.5)) == pytest.approx((1.5 + 0 + 0.5) / 3)
    assert float(calibration("margin", LIKELY, SIMILAR, 4.0)) == pytest.approx((0.6 + 0.2 + 0) / 3)
    assert float(calibration("list", LIKELY, SIMILAR, 2.0)) == pytest.approx(1 + 1 + 0)
    assert float(calibration("list", LIKELY[[2, 0, 1]], SIMILAR[[2, 0, 1]], 2.0)) == pytest.approx(2), "in any order"
    assert float(calibration("rank", LIKELY, torch.ones(3).double(), 5.0)) == 0, "none is better than another"


@pytest.mark.parametrize("kind", KINDS[:3])
def test_what_is_apart_is_left_alone(kind: Any) -> None:
    likely = torch.tensor([-1.0, -5, -9]).double().requires_grad_()
    loss = calibration(kind, likely, SIMILAR, 1.0)
    assert float(loss.detach()) == 0
    assert float(torch.autograd.grad(loss, likely)[0].abs().max()) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_gradients(kind: Any) -> None:
    likely = torch.randn(5, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    similar = torch.rand(5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    assert torch.autograd.gradcheck(lambda one: calibration(kind, one, similar, 0.7), [likely])


def test_similarity_of_tokens() -> None:
    assert token_f1([1, 2, 2], [2, 2, 3, 4]) == pytest.approx(2 * (2 / 3) * (2 / 4) / (2 / 3 + 2 / 4))
    assert token_f1([1], [2]) == 0
    assert token_f1([5, 6], [6, 5]) == 1


def opened(text: Path, head: str = "softmax", **values: Any) -> tuple[Any, Any, Objectives, Calibrate]:
    """Parts of a run, its model in float64, and the objective."""
    write_candidates(Path("candidates.jsonl"))
    parts = set_up(experiment(text, model={"head": {"name": head}}), "cpu")
    lm: Any = parts.model.double()
    config = OBJECTIVES.parse({"name": "calibrate", "candidates": "candidates.jsonl", **values})
    objectives = Objectives(ObjectiveConfig(), (config,), parts.task, lm)
    return parts, lm, objectives, objectives._extras[0][0]  # type: ignore[return-value]


def value_of(parts: Any, lm: Any, objectives: Objectives, position: int = 0) -> Tensor:
    batch = objectives.prepare(parts.source.at(position), position)
    return parts.task.loss(lm, batch, None, None, objectives).value


def nats_of(lm: Any, ids: list[int], prompt: list[int], start: int) -> Tensor:
    """Read from the beginning, one token after another."""
    state, total, last = lm.initial_state(1), torch.zeros(()).double(), start
    for place, token in enumerate([*prompt, *ids]):
        out = lm(torch.tensor([[last]]), state)
        log_prob, _ = lm.head.log_prob(out.dropped[:, 0], out.state.head)
        total = total - log_prob[0, token] * (place >= len(prompt))
        state, last = lm.score(out, torch.tensor([[token]]))[2], token
    return total


@pytest.mark.parametrize("head", ["softmax", "pointer"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("normalised", [False, True])
def test_a_step_is_the_formula_token_by_token(text: Path, kind: str, head: str, normalised: bool) -> None:
    parts, lm, objectives, own = opened(
        text, head, kind=kind, normalised=normalised, contexts=2, strength=0.3, margin=2.0
    )
    found = value_of(parts, lm, objectives, 3)
    start, losses, nats, tokens = parts.task.tokenizer.start_id, [], torch.zeros(()).double(), 0
    for number in own.chosen(3):
        one = own._contexts[number]
        likely = [-nats_of(lm, ids, one.prompt, start) / (len(ids) if normalised else 1) for ids in one.candidates]
        losses.append(calibration(kind, torch.stack(likely), own._similar[number], 2.0))  # type: ignore[arg-type]
        nats, tokens = nats + nats_of(lm, one.reference, one.prompt, start), tokens + len(one.reference)
    wanted = torch.stack(losses).mean() + 0.3 * nats / tokens
    torch.testing.assert_close(found, wanted, rtol=1e-10, atol=1e-12)
    parameters = list(lm.parameters())
    both = (torch.autograd.grad(one, parameters, allow_unused=True, materialize_grads=True) for one in (found, wanted))
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-11)


def test_the_divergence_from_its_own_start_is_nothing(text: Path) -> None:
    """And elsewhere it is the mean over the candidates' positions."""
    make_teachers(text, "start", "other")
    values = {"kind": "list", "margin": 0.0, "regulariser": "divergence", "strength": 1.0}
    kept = []
    for run in ("start", "other"):
        parts, lm, _, own = opened(text, **values, start=run)
        lm.load_state_dict(Run("start", "cpu").model.double().state_dict())
        context = own._contexts[0]
        rows = rows_of([(context.prompt, ids) for ids in context.candidates], parts.task.tokenizer.start_id)
        out = lm(rows.inputs)
        kept.append(own._divergence(rows, out, None))
        found = torch.autograd.grad(kept[-1], list(lm.parameters()), allow_unused=True, materialize_grads=True)
        if run == "start":
            assert abs(float(kept[0].detach())) < 1e-12
            assert max(float(one.abs().max()) for one in found) < 1e-12
        else:
            one, two = (m.head.log_prob(m(rows.inputs).raw)[0] for m in (lm, Run("other", "cpu").model.double()))
            each = (one.exp() * (one - two)).sum(-1)
            torch.testing.assert_close(kept[1], (each * rows.weight).sum() / rows.weight.sum())


def test_similarity_of_outputs(text: Path) -> None:
    make_teachers(text, "start")
    model = Run("start", "cpu").model
    same, far = vector_f(model, Context([1], [2, 3, 4], [[2, 3, 4], [9, 8]]), 0)
    assert same == pytest.approx(1.0)
    assert far < 1
    _, _, _, own = opened(text, similarity="hidden", start="start")
    assert own._similar[0].tolist() != opened(text)[3]._similar[0].tolist()


def test_each_context_once_a_pass(text: Path) -> None:
    own = opened(text, contexts=2)[3]
    numbers = [number for position in range(6) for number in own.chosen(position)]
    assert [sorted(numbers[i : i + 3]) for i in range(0, 12, 3)] == [[0, 1, 2]] * 4
    assert len({tuple(numbers[i : i + 3]) for i in range(0, 12, 3)}) > 1
    assert own.chosen(4) == own.chosen(4)


def accuracy(run: Path, contexts: Path) -> float:
    """The share of pairs of different similarity that a model ranks by it."""
    opened_run = Run(run, "cpu")
    tokenizer, lm = opened_run.tokenizer, opened_run.model.double()
    right, total = 0, 0
    for one in read_contexts(str(contexts), tokenizer):
        rows = rows_of([(one.prompt, ids) for ids in one.candidates], tokenizer.start_id)
        with torch.no_grad():
            nats = lm.loss(rows.inputs, rows.targets)[1]
        likely = -(nats * rows.weight).sum(1) / rows.weight.sum(1)
        similar = torch.tensor([token_f1(ids, one.reference) for ids in one.candidates])
        better = similar.unsqueeze(1) > similar.unsqueeze(0)
        right += int((better & (likely.unsqueeze(1) > likely.unsqueeze(0))).sum())
        total += int(better.sum())
    return right / total


@pytest.mark.parametrize(("count", "steps"), [pytest.param(50, 200, marks=pytest.mark.slow), (4, 30)])
def test_it_learns_the_order(text: Path, tmp_path: Path, count: int, steps: int) -> None:
    generator = torch.Generator().manual_seed(0)

    def word(size: int) -> str:
        return "".join("acdeghi"[int(k)] for k in torch.randint(7, (size,), generator=generator))

    rows = []
    for _ in range(count):
        candidates = [{"text": word(6)} for _ in range(4)]
        rows.append(json.dumps({"prompt": word(4), "reference": word(6), "candidates": candidates}))
    path = tmp_path / "toy.jsonl"
    path.write_text("\n".join(rows))
    extra = {"name": "calibrate", "candidates": str(path), "contexts": min(count, 25), "weight": 0.5}
    values = {"validations": 0, "keep": "last", "optimizer": {"name": "adam", "lr": 0.02}}
    model = {"width": 16 if count < 50 else 48}
    before = train(experiment(text, train={**values, "steps": 1}, model=model), tmp_path / "before", "cpu")
    after = train(
        experiment(text, train={**values, "steps": steps, "extra": [extra]}, model=model), tmp_path / "after", "cpu"
    )
    assert accuracy(before, path) < 0.6
    assert accuracy(after, path) > 0.95
    assert events(after)


def test_refusals(text: Path, tmp_path: Path) -> None:
    def said(**values: Any) -> str:
        parts = {"model": values.pop("model", {})}
        extra = {"name": "calibrate", **values}
        with pytest.raises(UsageError) as caught:
            train(experiment(text, train={"steps": 1, "extra": [extra]}, **parts), tmp_path / "run", "cpu")
        return str(caught.value)

    assert "has no candidates; name a file of JSON lines" in said()
    assert "cannot be read; name a file of JSON lines" in said(candidates="nowhere.jsonl")
    for number, line in enumerate(("{", "[]", '{"prompt": "a", "reference": 3, "candidates": []}', '"a"')):
        Path("bad.jsonl").write_text("\n" * number + line + "\n")
        assert f"line {number + 1} of bad.jsonl is no context with candidates" in said(candidates="bad.jsonl")
    Path("bad.jsonl").write_text('{"prompt": "a", "reference": "a", "candidates": [{"text": ""}, {"text": "a"}]}')
    assert "line 1 of bad.jsonl has an empty reference, or fewer than two candidates" in said(candidates="bad.jsonl")
    Path("bad.jsonl").write_text("\n")
    assert "are empty" in said(candidates="bad.jsonl")
    Path("bad.jsonl").write_text('{"prompt": "a", "reference": "a", "candidates": [{"text": "c"}, {"text": "d"}]}')
    assert "all as like their reference" in said(candidates="bad.jsonl")
    write_candidates(Path("good.jsonl"))
    assert "name its folder in its option start" in said(candidates="good.jsonl", regulariser="divergence")
    assert "name its folder in its option start" in said(candidates="good.jsonl", similarity="hidden")
    pointer = {
        "candidates": "good.jsonl",
        "regulariser": "divergence",
        "start": "x",
        "model": {"head": {"name": "pointer"}},
    }
    assert "this model has the head pointer, which carries a state; the objective calibrate" in said(**pointer)
