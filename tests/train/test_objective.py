"""What a step minimises: hand sums, gradients, and that each option is read."""

from pathlib import Path
from typing import Any

import pytest
import torch

from train.runs import events, experiment
from unrolled.core.random import RandomStreams
from unrolled.data import Stream
from unrolled.data.stream import StreamConfig, Window
from unrolled.model import LanguageModel, ModelConfig
from unrolled.task import Saved, Seen
from unrolled.tasks.lm import LM
from unrolled.train import train
from unrolled.train.config import PhaseConfig
from unrolled.train.objectives import ObjectiveConfig, add_l2, objective
from unrolled.train.step import train_step
from unrolled.train.tools import make_tools

V = 7
# of a run that is nowhere: a step asks for no text
TASK = LM(None, RandomStreams(1), Saved(Path(), {}))  # type: ignore[arg-type]


class Text:
    """Tokens 0..V-1 in a fixed disorder."""

    starts = None

    def __len__(self) -> int:
        return 240

    def ids(self, start: int, stop: int) -> Any:
        import numpy as np

        return (np.arange(start, stop, dtype=np.int64) ** 2 + 3) % V


def model() -> LanguageModel:
    torch.manual_seed(2)
    config = ModelConfig.parse({"width": 5, "dropout": {"output": 0.5}})
    return LanguageModel(config, V).double()


def seen(lm: LanguageModel, total: Any, nll: Any, targets: Any, out: Any, reset: Any = None) -> Seen:
    return Seen(lm, None, None, None, total, nll, targets, None, reset, out)


def test_hand_sums() -> None:
    lm = model()
    tokens = torch.randint(V, (3, 4), generator=torch.Generator().manual_seed(1))
    masks = lm.draw_masks(3, 4, RandomStreams(1), 0)
    out = lm(tokens, masks=masks)
    total, nll, _ = lm.score(out, tokens, masks=masks)
    raw, dropped = out.raw.detach(), out.dropped.detach()
    assert not torch.equal(raw, dropped)

    def value(**options: Any) -> torch.Tensor:
        return objective(ObjectiveConfig(**options), seen(lm, total, nll, tokens, out, reset))

    reset = None
    torch.testing.assert_close(value(), nll.mean())
    torch.testing.assert_close(value(reduction="sum"), nll.sum(1).mean())
    ar = sum(float(x) ** 2 for x in dropped.flatten()) / dropped.numel()
    torch.testing.assert_close(value(ar=2.0), nll.mean() + 2 * ar)
    changes = [float(raw[b, t + 1, n] - raw[b, t, n]) ** 2 for b in range(3) for t in range(3) for n in range(5)]
    torch.testing.assert_close(value(tar=0.5), nll.mean() + 0.5 * sum(changes) / len(changes))
    reset = torch.zeros(3, 4, dtype=torch.bool)
    reset[1, 2] = reset[0, 0] = True
    within = [c for i, c in enumerate(changes) if not 20 <= i < 25]
    assert len(within) == 40
    torch.testing.assert_close(value(tar=0.5), nll.mean() + 0.5 * sum(within) / 40)


def test_tar_of_a_window_of_one_token_is_nothing() -> None:
    lm, tokens = model(), torch.ones(2, 1, dtype=torch.int64)
    out = lm(tokens)
    total, nll, _ = lm.score(out, tokens)
    torch.testing.assert_close(objective(ObjectiveConfig(tar=1.0), seen(lm, total, nll, tokens, out)), nll.mean())


def test_l2_is_the_gradient_of_half_the_squared_norm() -> None:
    lm, config = model(), ObjectiveConfig(l2=0.3)
    tokens = torch.ones(2, 3, dtype=torch.int64)
    lm.loss(tokens, tokens)[0].backward()
    plain = [p.grad.clone() for p in lm.parameters() if p.grad is not None]
    add_l2(config, lm.parameters())
    for p, grad in zip(lm.parameters(), plain, strict=True):
        torch.testing.assert_close(p.grad, grad + 0.3 * p.detach())


def step(accumulate: int = 1, lr: float = 0.1, length: int = 20, **phase: Any) -> dict[str, torch.Tensor]:
    """The change of the parameters by one step of plain SGD, divided by the rate."""
    lm = model()
    before = {name: p.detach().clone() for name, p in lm.named_parameters()}
    values = {"steps": 1, "clip": None, "optimizer": {"name": "sgd", "lr": lr}, "accumulate": accumulate, **phase}
    config = PhaseConfig.parse(values)
    stream = Stream(Text(), StreamConfig(columns=4, window=length), RandomStreams(1), 0)
    train_step(TASK, lm, make_tools(config, TASK, lm), stream, 0, None, config, lr)
    return {name: (before[name] - p.detach()) / lr for name, p in lm.named_parameters()}


def test_the_step_follows_the_gradient_of_the_objective() -> None:
    options = {"reduction": "sum", "ar": 0.7, "tar": 0.9, "l2": 0.05}
    change = step(objective=options)
    lm, config = model(), ObjectiveConfig.parse(options)
    window = Stream(Text(), StreamConfig(columns=4, window=20), RandomStreams(1), 0).at(0)
    masks = lm.draw_masks(4, 20, RandomStreams(1), 0)

    def value() -> torch.Tensor:
        out = lm(window.inputs, masks=masks)
        total, nll, _ = lm.score(out, window.targets, masks=masks)
        norm = sum(p.square().sum() for p in lm.parameters())
        return objective(config, seen(lm, total, nll, window.targets, out)) + config.l2 / 2 * norm

    for name, p in lm.named_parameters():
        flat, eps = p.detach().view(-1), 1e-6
        for at in (0, flat.numel() // 2, flat.numel() - 1):
            with torch.no_grad():
                flat[at] += eps
                high = value()
                flat[at] -= 2 * eps
                low = value()
                flat[at] += eps
            assert float(change[name].view(-1)[at]) == pytest.approx(float(high - low) / (2 * eps), abs=2e-7), name


def test_accumulated_windows_give_the_mean_objective() -> None:
    one = step(objective={"ar": 0.7, "l2": 0.05})
    two = step(accumulate=2, objective={"ar": 0.7, "l2": 0.05})
    assert any((one[name] - two[name]).abs().max() > 1e-4 for name in one)
    lm = model()
    norms = {name: p.detach() for name, p in lm.named_parameters()}
    plain = step(accumulate=2, objective={"ar": 0.7})
    for name, value in norms.items():
        torch.testing.assert_close(two[name] - plain[name], 0.05 * value, rtol=0, atol=1e-12)


def test_the_rate_follows_the_length_of_the_window() -> None:
    """240 tokens in 4 columns: one window of 60 is nominal; with 80 asked for it is shorter than that."""
    full, short = step(length=60), step(length=60, lr_by_length=True)
    assert all(torch.equal(full[name], short[name]) for name in full)
    lm = model()
    config = PhaseConfig.parse(
        {"steps": 1, "clip": None, "optimizer": {"name": "sgd", "lr": 0.1}, "lr_by_length": True}
    )
    stream = Stream(Text(), StreamConfig(columns=4, window=80), RandomStreams(1), 0, short=True)
    before = lm.embedding.weight.detach().clone()
    train_step(TASK, lm, make_tools(config, TASK, lm), stream, 0, None, config, 0.1)
    expected = full["embedding.weight"] * 0.1 * 60 / 80
    torch.testing.assert_close(before - lm.embedding.weight.detach(), expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    "change",
    [
        {"objective": {"reduction": "sum"}},
        {"objective": {"ar": 1.0}},
        {"objective": {"tar": 1.0}},
        {"objective": {"l2": 0.01}},
        {"lr_by_length": True},
    ],
)
def test_every_option_changes_a_run(text: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    parts: dict[str, Any] = {"stream": {"variable_windows": True}}
    base = {"steps": 5, "optimizer": {"name": "sgd", "lr": 0.5}}
    first = train(experiment(text, train=base, **parts), tmp_path / "a", "cpu")
    second = train(experiment(text, train={**base, **change}, **parts), tmp_path / "b", "cpu")
    assert events(first)[-1]["nats"] != events(second)[-1]["nats"]


class Padded:
    """One window of 4 rows and 16 steps, of which 4 positions count."""

    full_batch = 64

    def __init__(self, weight: float = 1.0):
        generator = torch.Generator().manual_seed(5)
        self.ids = torch.randint(V, (4, 17), generator=generator)
        self.weight = torch.zeros(4, 16)
        self.weight[0, 3] = self.weight[1, 8] = self.weight[1, 9] = self.weight[3, 15] = weight

    def at(self, position: int) -> Window:
        return Window(self.ids[:, :-1], self.ids[:, 1:], None, self.weight, 0, position, False)

    def windows_per_epoch(self) -> int:
        return 1

    def tokens_per_epoch(self) -> int:
        return 4


@pytest.mark.parametrize("weight", [1.0, 0.25])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_gradient_of_a_window_is_the_mean_over_the_positions_that_count(accumulate: int, weight: float) -> None:
    """Not over all 64: the step would be 16 times too small."""
    lm, source = model(), Padded(weight)
    before = {name: p.detach().clone() for name, p in lm.named_parameters()}
    values = {"steps": 1, "clip": None, "optimizer": {"name": "sgd", "lr": 0.1}, "accumulate": accumulate}
    config = PhaseConfig.parse(values)
    result = train_step(TASK, lm, make_tools(config, TASK, lm), source, 0, None, config, 0.1)
    assert result.tokens == 4 * accumulate
    plain, window, wanted, nats = model(), source.at(0), {}, 0.0
    for position in range(accumulate):
        out = plain(window.inputs, masks=plain.draw_masks(4, 16, RandomStreams(1), position))
        log_prob, _ = plain.head.log_prob(out.dropped)
        own = -log_prob.gather(2, window.targets.unsqueeze(2)).squeeze(2)
        chosen = torch.stack([own[0, 3], own[1, 8], own[1, 9], own[3, 15]])
        nats += float(chosen.detach().sum())
        for name, grad in zip(before, torch.autograd.grad(chosen.mean(), list(plain.parameters())), strict=True):
            wanted[name] = wanted.get(name, 0) + grad / accumulate
    assert result.nats == pytest.approx(nats, rel=1e-12)
    for name, p in lm.named_parameters():
        torch.testing.assert_close((before[name] - p.detach()) / 0.1, wanted[name], rtol=1e-9, atol=1e-12)


def test_a_window_in_which_nothing_counts_changes_nothing() -> None:
    lm, source = model(), Padded(0.0)
    before = [p.detach().clone() for p in lm.parameters()]
    config = PhaseConfig.parse({"steps": 1, "optimizer": {"name": "sgd", "lr": 0.1}})
    result = train_step(TASK, lm, make_tools(config, TASK, lm), source, 0, None, config, 0.1)
    assert (result.tokens, result.nats) == (0, 0.0)
    assert all(torch.equal(p, q) for p, q in zip(lm.parameters(), before, strict=True))


def test_outputs_are_regularised_whatever_their_targets_count() -> None:
    """AR and TAR are about outputs; weights are about targets."""
    lm, source = model(), Padded()
    window = source.at(0)
    out = lm(window.inputs)
    total, nll, _ = lm.score(out, window.targets, None, window.weight)
    shown = Seen(lm, window, None, None, total, nll, window.targets, window.weight, None, out)
    plain = objective(ObjectiveConfig(), shown)
    torch.testing.assert_close(plain, (nll * source.weight).sum() / 4)
    torch.testing.assert_close(objective(ObjectiveConfig(ar=2.0), shown), plain + 2 * out.dropped.square().mean())
    change = (out.raw[:, 1:] - out.raw[:, :-1]).square().mean()
    torch.testing.assert_close(objective(ObjectiveConfig(tar=2.0), shown), plain + 2 * change)
