"""Smoothing over similar tokens and over sequences: the formulas on whole distributions, and what is drawn."""

import itertools
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import chisquare
from torch import Tensor

from conformance.objectives.teachers import make_teachers
from train.objective_material import B, T, V, make_model, make_task, make_window, objectives_of, term_of
from train.runs import experiment
from unrolled.core.errors import UsageError
from unrolled.data import Window
from unrolled.runs import Run
from unrolled.train import train
from unrolled.train.objectives import ObjectiveConfig
from unrolled.train.objectives.combined import Objectives
from unrolled.train.objectives.smooth_sequence import SmoothSequence, SmoothSequenceConfig, chance, substitute
from unrolled.train.objectives.smooth_similar import similar


def spread(vectors: Tensor, y: int, tau: float, nearest: int) -> Tensor:
    """r by its definition, one token after another; the target itself has distance 0."""
    length = vectors.norm(dim=1).clamp(min=1e-12)
    cosine = vectors @ vectors[y] / (length * length[y])
    cosine[y] = 1.0
    weight = torch.exp((cosine - 1) / tau)
    kept = sorted(range(len(vectors)), key=lambda w: -float(cosine[w]))[:nearest]
    keep = torch.zeros_like(weight)
    keep[kept] = 1
    return keep * weight / (keep * weight).sum()


def dense(lm: Any, batch: Window, vectors: Tensor, a: float, tau: float, nearest: int) -> Tensor:
    log_prob = lm.head.log_prob(lm(batch.inputs, None, batch.reset).dropped)[0]
    total = log_prob.new_zeros(())
    for b, t in itertools.product(range(B), range(T)):
        y = int(batch.targets[b, t])
        wanted = a * spread(vectors, y, tau, nearest)
        wanted[y] += 1 - a
        total = total - (1.0 if batch.weight is None else batch.weight[b, t]) * (wanted * log_prob[b, t]).sum()
    return total / (B * T if batch.weight is None else batch.weight.sum())


@pytest.mark.parametrize(
    "values", [{}, {"head": {"name": "softmax", "bias": False, "project": 4}}, {"embedding": {"tied": True}}]
)
@pytest.mark.parametrize("nearest", [1, 4, 800])
def test_similar_tokens_are_the_formula_on_whole_distributions(values: dict[str, Any], nearest: int) -> None:
    lm, batch, a, tau = make_model(**values), make_window(weighted=True, resets=True), 0.4, 0.3
    objectives = objectives_of(lm, "smooth_similar", weight=a, tau=tau, nearest=nearest)
    parameters = list(lm.parameters())
    whole = make_task().loss(lm, batch, None, None, objectives).value
    wanted = dense(lm, batch, lm.embedding.table().detach(), a, tau, nearest)
    torch.testing.assert_close(whole, wanted, rtol=1e-11, atol=1e-12)
    both = [torch.autograd.grad(one, parameters, allow_unused=True, materialize_grads=True) for one in (whole, wanted)]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_without_tau_it_is_the_cross_entropy() -> None:
    lm, batch = make_model(), make_window()
    assert float(term_of(lm, objectives_of(lm, "smooth_similar", tau=0.0), batch).detach()) == 0
    assert abs(float(term_of(lm, objectives_of(lm, "smooth_similar", tau=1e-3), batch).detach())) < 1e-6
    assert abs(float(term_of(lm, objectives_of(lm, "smooth_similar", tau=0.5), batch).detach())) > 1e-3
    assert float(term_of(lm, objectives_of(lm, "smooth_sequence", tau=0.0), batch).detach()) == 0


def test_a_vector_of_zeros_is_similar_to_itself() -> None:
    vectors = torch.nn.functional.normalize(
        torch.eye(5).double()[[0, 1, 2, 3, 3]] * torch.tensor([[1], [0], [1], [1], [1]])
    )
    ids, shares = similar(vectors, torch.arange(5), 1e-3, 3)
    assert ids[1, 0] == 1
    torch.testing.assert_close(shares[:3, 0], torch.ones(3).double())
    torch.testing.assert_close(shares[3, :2], torch.full((2,), 0.5).double())


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = torch.nn.functional.normalize(torch.randn(V, 4, generator=torch.Generator().manual_seed(0)))
    whole = similar(vectors, torch.arange(V), 0.5, 6)
    monkeypatch.setattr(sys.modules[similar.__module__], "_BLOCK", 2 * V)
    for one, other in zip(whole, similar(vectors, torch.arange(V), 0.5, 6), strict=True):
        # products of other shapes may differ in the last bit
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-7)


def test_vectors_of_another_run(text: Path, tmp_path: Path) -> None:
    make_teachers(text, "words")
    extra = [{"name": "smooth_similar", "tau": 0.5}]
    runs = []
    for name, vectors in (("own", {}), ("other", {"vectors": "words"})):
        values = {"steps": 3, "validations": 0, "extra": [{**extra[0], **vectors}]}
        runs.append(train(experiment(text, train=values), tmp_path / name, "cpu"))
    assert (runs[0] / "model.safetensors").read_bytes() != (runs[1] / "model.safetensors").read_bytes()
    for path in text.iterdir():
        path.write_text(path.read_text().replace("e", "E"))
    with pytest.raises(UsageError, match=r"the run words is for another vocabulary.*name runs that were trained"):
        train(experiment(text, train={"steps": 1, "extra": [{**extra[0], "vectors": "words"}]}), tmp_path / "no", "cpu")
    assert Run("words", "cpu").tokenizer.vocab_size


@pytest.mark.parametrize("tau", [0.7, 1.5])  # smaller ones leave cells with too few draws
def test_sequences_are_drawn_as_often_as_they_should_be(tau: float) -> None:
    """All 27 strings of three symbols of three, 10,000 draws: chi-square."""
    size, length, draws = 3, 3, 10_000
    text = torch.tensor([[0, 2, 1]]).expand(draws, length)
    uniform = torch.rand(draws, length, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    drawn = substitute(text, torch.arange(size), tau, uniform)
    strings = list(itertools.product(range(size), repeat=length))
    apart = [sum(a != b for a, b in zip(string, (0, 2, 1), strict=True)) for string in strings]
    weight = [math.exp(-d / tau) for d in apart]
    found = [int((drawn == torch.tensor(string)).all(1).sum()) for string in strings]
    expected = [draws * one / sum(weight) for one in weight]
    assert chisquare(found, expected).pvalue > 0.01
    if tau != 0.7:
        return
    by_distance = torch.bincount((drawn != text).sum(1), minlength=4) / draws
    other = torch.tensor([0.505, 0.420, 0.073, 0.003])  # of the released samplers at 0.7
    assert float((by_distance - other).abs().max()) > 0.1, "the test would see them"


def test_substitutes_are_those_of_the_window() -> None:
    lm, batch = make_model(), make_window()
    few = batch._replace(targets=batch.targets % 3 + 2)
    seen: list[Tensor] = []
    objectives = objectives_of(lm, "smooth_sequence", tau=50.0)
    plain = lm.score

    def watched(out: Any, targets: Tensor, *rest: Any) -> Any:
        seen.append(targets)
        return plain(out, targets, *rest)

    lm.score = watched  # type: ignore[method-assign]
    make_task().loss(lm, few, None, None, objectives)
    assert set(seen[-1].unique().tolist()) == {2, 3, 4}
    make_task().loss(lm, few, None, None, objectives_of(lm, "smooth_sequence", tau=50.0, substitutes="vocabulary"))
    assert len(seen[-1].unique()) > 3
    assert chance(3, 0.7) == pytest.approx(2 * math.exp(-1 / 0.7) / (1 + 2 * math.exp(-1 / 0.7)))
    assert substitute(few.targets, torch.tensor([4]), 9.0, torch.rand(B, T, 2)) is few.targets


@pytest.mark.parametrize("head", ["softmax", "pointer"])
@pytest.mark.parametrize("lazy", [False, True])
def test_a_drawn_sequence_is_scored_as_if_it_were_the_text(lazy: bool, head: str) -> None:
    lm, batch, a = make_model(head), make_window(weighted=True, resets=True), 0.3
    objectives = objectives_of(lm, "smooth_sequence", tau=0.5, weight=a, lazy=lazy)
    value, task = term_of(lm, objectives, batch, 9), make_task()
    extra = SmoothSequence(SmoothSequenceConfig(tau=0.5), task.streams, lm)
    shown: list[Any] = []
    task.loss(lm, batch, None, None, lambda seen: shown.append(seen) or seen.total)
    drawn = extra._drawn(shown[0], lm, 9)
    assert bool((drawn != batch.targets).any())
    inputs = batch.inputs
    if not lazy:
        assert batch.reset is not None
        read = torch.cat([batch.inputs[:, :1], drawn[:, :-1]], 1)
        inputs = torch.where(batch.reset, batch.inputs, read)
    assert batch.weight is not None
    other = lm.loss(inputs, drawn, None, batch.reset, batch.weight)[0]
    own = lm.loss(batch.inputs, batch.targets, None, batch.reset, batch.weight)[0]
    torch.testing.assert_close(value, a * (other - own) / batch.weight.sum(), rtol=1e-10, atol=1e-12)


def test_refusals(text: Path, tmp_path: Path) -> None:
    for name in ("smooth_similar",):
        extra = {"train": {"steps": 1, "extra": [{"name": name}]}}
        for head in ({"name": "mos", "components": 2}, {"name": "softmax", "cap": 5.0}):
            with pytest.raises(UsageError, match=f"{name} needs the head softmax without negatives and cap"):
                train(experiment(text, **extra, model={"head": head}), tmp_path / "run", "cpu")
    with pytest.raises(UsageError, match="smooth_sequence needs a language model"):
        SmoothSequence(SmoothSequenceConfig(), make_task().streams, torch.nn.Linear(2, 2))
    assert Objectives(ObjectiveConfig(), (), make_task(), make_model()).parameters() == []
