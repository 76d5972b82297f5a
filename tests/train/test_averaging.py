"""Averages of the weights: trajectories, triggers, and what is validated and saved."""

import itertools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from train.runs import events, experiment, record
from unrolled.core.errors import UnrolledError
from unrolled.model import LanguageModel, ModelConfig
from unrolled.optim import AVERAGING, Averager
from unrolled.optim.averaging import worse_than_before
from unrolled.runs import Run, saved_states
from unrolled.train import train
from unrolled.train.loop import Trainer


def parameters(*sizes: int) -> list[nn.Parameter]:
    generator = torch.Generator().manual_seed(4)
    return [nn.Parameter(torch.randn(size, generator=generator, dtype=torch.float64)) for size in sizes]


def averager(parts: list[nn.Parameter], **config: Any) -> Averager:
    parsed = AVERAGING.parse(config)
    return AVERAGING[parsed.name](parsed, parts)


def walk(parts: list[nn.Parameter], average: Averager, steps: int, lr: float = 0.1) -> list[list[torch.Tensor]]:
    """Random steps; the weights after each."""
    generator, seen = torch.Generator().manual_seed(9), []
    for _ in range(steps):
        with torch.no_grad():
            for p in parts:
                p -= average.rate(lr) * torch.randn(p.shape, generator=generator, dtype=p.dtype)
        average.sample()
        seen.append([p.detach().clone() for p in parts])
    return seen


def mean(seen: list[list[torch.Tensor]]) -> list[torch.Tensor]:
    return [torch.stack(values).mean(0) for values in zip(*seen, strict=True)]


@pytest.mark.parametrize("name", ["uniform", "nonmonotone"])
def test_the_trajectory_is_that_of_torch(name: str) -> None:
    """Recorded gradients and rates through torch.optim.ASGD(t0=0, lambd=0): weights and average after every step."""
    ours, theirs = parameters(5, 3), parameters(5, 3)
    sgd = torch.optim.SGD(ours, lr=1.0, weight_decay=0.01)
    asgd = torch.optim.ASGD(theirs, lr=1.0, t0=0, lambd=0.0, weight_decay=0.01)
    average = averager(ours, name=name, **({"patience": 1} if name == "nonmonotone" else {}))
    if name == "nonmonotone":
        average.validated({"": 2.0}, [1.0, 1.5])
    assert average.active
    generator = torch.Generator().manual_seed(7)
    for rate in (0.5, 0.25, 0.875, 0.375, 0.375, 1.25):  # exact in float32, in which torch keeps them
        for p, q in zip(ours, theirs, strict=True):
            p.grad = torch.randn(p.shape, generator=generator, dtype=p.dtype)
            q.grad = p.grad.clone()
        sgd.param_groups[0]["lr"], asgd.param_groups[0]["lr"] = average.rate(rate), rate
        sgd.step()
        average.sample()
        asgd.step()
        for p, q, m in zip(ours, theirs, average.means["mean"], strict=True):
            torch.testing.assert_close(p, q, rtol=0, atol=1e-12)
            torch.testing.assert_close(m, asgd.state[q]["ax"], rtol=0, atol=1e-7)  # its share is a float32


def test_the_textbook_form_averages_every_step_at_its_own_rate() -> None:
    parts = parameters(4)
    average = averager(parts, name="uniform", form="textbook")
    assert [average.rate(lr) for lr in (0.5, 0.2)] == [0.5, 0.2]
    seen = walk(parts, average, 7)
    torch.testing.assert_close(average.means["mean"], mean(seen))
    parts = parameters(4)
    average = averager(parts, name="uniform")
    assert [average.rate(lr) for lr in (0.5, 0.2, 0.1)] == [0.5, 0.5, 0.2]
    seen = walk(parts, average, 7)
    torch.testing.assert_close(average.means["mean"], mean(seen[1:]))


def published_switch(history: list[float], nonmono: int) -> int | None:
    """The epoch after which the published loop switches: its list, its order of operations."""
    best_val_loss: list[float] = []
    for epoch, val_loss in enumerate(history):
        if len(best_val_loss) > nonmono and val_loss > min(best_val_loss[:-nonmono]):
            return epoch
        best_val_loss.append(val_loss)
    return None


@pytest.mark.parametrize("patience", [1, 2, 5])
def test_the_trigger_comes_at_the_published_epoch(patience: int) -> None:
    generator = torch.Generator().manual_seed(1)
    switched = []
    for _ in range(200):
        drift = torch.linspace(1, 0.9, 30, dtype=torch.float64)
        history = (drift + 0.02 * torch.randn(30, generator=generator, dtype=torch.float64)).tolist()
        average = averager(parameters(1), name="nonmonotone", patience=patience)
        began = None
        for epoch, loss in enumerate(history):
            average.validated({"": loss}, history[:epoch])
            if average.active:
                began = epoch
                break
        assert began == published_switch(history, patience)
        switched.append(began)
    assert len(set(switched)) > 5
    assert not worse_than_before([1.0] * patience, 9.0, patience)
    assert worse_than_before([1.0] * (patience + 1), 1.1, patience)


def test_a_tail_begins_when_the_best_is_old_or_at_the_latest() -> None:
    losses = [5.0, 4.0, 4.5, 4.2, 4.1, 3.0, 2.0]
    for latest, began in ((None, 4), (3, 2), (1, 0)):
        average = averager(parameters(2), name="tail", patience=3, latest=latest)
        for i, loss in enumerate(losses):
            average.validated({"": loss}, losses[:i])
            assert average.active == (i >= began)
    parts = parameters(2)
    average = averager(parts, name="tail", patience=1)
    walk(parts, average, 4)
    assert average.candidates() == [""]
    average.validated({"": 2.0}, [1.0])
    seen = walk(parts, average, 6)
    torch.testing.assert_close(average.means["mean"], mean(seen))
    average.validated({"mean": 9.0}, [1.0, 2.0])
    seen += walk(parts, average, 3)
    torch.testing.assert_close(average.means["mean"], mean(seen))


def test_two_tails() -> None:
    parts = parameters(3)
    average = averager(parts, name="two_tailed")
    first = walk(parts, average, 4)
    assert average.candidates() == ["long", "short"]
    assert average.report({"long": 1.0, "short": 1.0}) == "short"
    average.validated({"long": 1.0, "short": 1.0}, [])
    second = walk(parts, average, 3)
    torch.testing.assert_close(average.means["long"], mean(first + second))
    torch.testing.assert_close(average.means["short"], mean(second))
    assert average.report({"long": 1.0, "short": 1.1}) == "long"
    average.validated({"long": 1.0, "short": 1.1}, [1.0])
    third = walk(parts, average, 2)
    torch.testing.assert_close(average.means["short"], mean(second + third))
    average.validated({"long": 1.0, "short": 0.9}, [1.0, 1.0])
    torch.testing.assert_close(average.means["long"], mean(second + third))
    fourth = walk(parts, average, 2)
    torch.testing.assert_close(average.means["long"], mean(second + third + fourth))
    torch.testing.assert_close(average.means["short"], mean(fourth))


def test_ema() -> None:
    parts = parameters(3)
    average = averager(parts, name="ema", decay=0.7)
    seen = walk(parts, average, 5)
    wanted = seen[0][0]
    for values in seen[1:]:
        wanted = 0.7 * wanted + 0.3 * values[0]
    torch.testing.assert_close(average.means["mean"][0], wanted)


def test_a_long_mean_in_float32_is_accurate() -> None:
    p = nn.Parameter(torch.zeros(1000))
    average = averager([p], name="uniform", form="textbook")
    generator, total = torch.Generator().manual_seed(3), torch.zeros(1000, dtype=torch.float64)
    for _ in range(20_000):
        with torch.no_grad():
            p.copy_(5 + torch.randn(1000, generator=generator))
        average.sample()
        total += p.detach().double()
    # far below the deviation of the mean itself, 0.007
    assert (average.means["mean"][0].double() - total / 20_000).abs().max() < 1e-4


def test_weights_come_back_even_after_an_error() -> None:
    parts = parameters(3)
    average = averager(parts, name="uniform")
    walk(parts, average, 3)
    own = parts[0].detach().clone()

    def interrupted() -> None:
        with average.weights("mean"):
            assert torch.equal(parts[0], average.means["mean"][0])
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert torch.equal(parts[0], own)
    assert not torch.equal(own, average.means["mean"][0])


def test_a_tied_matrix_is_averaged_once() -> None:
    model = LanguageModel(ModelConfig.parse({"width": 4, "embedding": {"tied": True}}), 6)
    average = averager(list(model.parameters()), name="uniform")
    assert len(average.means["mean"]) == len(dict(model.named_parameters()))
    assert sum(p is model.embedding.weight for p in average.parameters) == 1
    with average.weights("mean"):
        assert model.head.weight is model.embedding.weight


PHASE: dict[str, Any] = {"steps": 24, "validations": 12, "optimizer": {"name": "sgd", "lr": 2.0}}
KINDS: list[dict[str, Any]] = [
    {"name": "uniform"},
    {"name": "uniform", "form": "textbook"},
    {"name": "nonmonotone", "patience": 1},
    {"name": "nonmonotone", "patience": 2, "form": "textbook"},
    {"name": "tail", "patience": 1},
    {"name": "tail", "patience": 40, "latest": 5},
    {"name": "two_tailed"},
    {"name": "ema", "decay": 0.9},
    {"name": "ema", "decay": 0.5},
]


@pytest.mark.parametrize(
    "kinds", [KINDS[:4], KINDS[4:], pytest.param(KINDS, marks=pytest.mark.slow)], ids=["first", "last", "all"]
)
def test_each_option_changes_what_is_validated(kinds: list[dict[str, Any]], text: Path, tmp_path: Path) -> None:
    seen, phase = {}, {**PHASE, "valid_tokens": 100, "save_minutes": 9.0}
    for i, kind in enumerate([{"name": "none"}, *kinds]):
        run = train(experiment(text, train={**phase, "averaging": kind}), tmp_path / str(i), "cpu")
        seen[i] = tuple(e["nats"] for e in events(run) if e["type"] == "valid")
    for a, b in itertools.combinations(seen, 2):
        assert seen[a] != seen[b], (a, b)


def test_the_average_is_saved_and_training_goes_on_with_the_weights(text: Path, tmp_path: Path) -> None:
    """The raw weights' losses are those of the run without averaging; the saved model scores what was reported."""
    plain = train(experiment(text, train=PHASE), tmp_path / "plain", "cpu")
    values = {**PHASE, "averaging": {"name": "uniform", "form": "textbook"}, "final_eval": True, "valid_columns": 1}
    run = train(experiment(text, train=values), tmp_path / "run", "cpu")
    losses = [[e["nats"] for e in events(r) if e["type"] == "train"] for r in (plain, run)]
    assert losses[0] == losses[1]
    valid = [e for e in events(run) if e["type"] == "valid"]
    assert all(e["averaged"] for e in valid)
    assert record(run)["averaging_began"] == 0
    exact = record(run)["valid_exact"]
    best = min(e["nats"] for e in valid)
    assert exact["nats"] / exact["tokens"] == pytest.approx(best, abs=1e-6)
    assert not torch.equal(Run(plain, "cpu").model.embedding.weight, Run(run, "cpu").model.embedding.weight)


def test_a_later_phase_begins_from_the_average(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    begun: list[bool] = []
    original = Trainer._next_phase

    def watched(self: Trainer) -> None:
        original(self)
        saved = {name: p.detach().clone() for name, p in Run(self.out, "cpu").model.named_parameters()}
        begun.append(all(torch.equal(p, saved[name]) for name, p in self.model.named_parameters()))
        assert self.averager.config.name == "uniform"

    monkeypatch.setattr(Trainer, "_next_phase", watched)
    then = [{"steps": 6, "optimizer": {"name": "sgd", "lr": 2.0}, "averaging": "uniform"}]
    run = train(
        experiment(text, train={**PHASE, "averaging": {"name": "nonmonotone", "patience": 1}, "then": then}),
        tmp_path / "run",
        "cpu",
    )
    assert begun == [True]
    assert record(run)["averaging_began"] == 24


def test_a_phase_stops_at_the_published_validation(text: Path, tmp_path: Path) -> None:
    values = {**PHASE, "steps": 60, "validations": 60, "optimizer": {"name": "sgd", "lr": 30.0}, "clip": None}
    whole = train(experiment(text, train={**values, "steps": 30, "validations": 30}), tmp_path / "whole", "cpu")
    history = [e["nats"] for e in events(whole) if e["type"] == "valid"]
    stop = published_switch(history, 2)
    assert stop is not None
    run = train(
        experiment(text, train={**values, "steps": 30, "validations": 30, "nonmonotone_stop": 2}),
        tmp_path / "run",
        "cpu",
    )
    assert [e["nats"] for e in events(run) if e["type"] == "valid"] == history[: stop + 1]


def test_a_state_of_another_average_is_refused(text: Path, tmp_path: Path) -> None:
    from unrolled.core import tree
    from unrolled.train import resume

    run = train(experiment(text, train={**PHASE, "averaging": "uniform"}), tmp_path / "run", "cpu")
    (run / "record.json").unlink()
    path = saved_states(run)[-1] / "tensors.safetensors"
    tensors = {name: value.clone() for name, value in tree.load_tensors(path).items()}
    del tensors["average.mean.0"]
    tree.save_tensors(path, tensors)
    with pytest.raises(UnrolledError, match="damaged or of another model"):
        resume(run, "cpu")
