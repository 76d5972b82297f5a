"""The only training step."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from torch import nn

from unrolled.core.group import current
from unrolled.core.spread import whole
from unrolled.optim import set_rate
from unrolled.task import Source, StepsTask, Watch, unwatched
from unrolled.train.config import PhaseConfig
from unrolled.train.objectives import add_l2
from unrolled.train.parallel.window import averaged
from unrolled.train.tools import Tools

__all__ = ["StepResult", "train_step"]


class StepResult(NamedTuple):
    """state: carried on, cut from the graph. position: the next batch. nats, tokens: sums over the step.
    grad_norm: global norm before clipping. parts: terms of the loss by name, means over the batches. told: sums over
    the group of what the caller had to tell."""

    state: Any
    position: int
    nats: float
    tokens: int
    grad_norm: float
    parts: dict[str, float]
    told: list[float] = []


def train_step(
    task: StepsTask,
    model: nn.Module,
    tools: Tools,
    source: Source,
    position: int,
    state: Any,
    phase: PhaseConfig,
    lr: float,
    watch: Watch = unwatched,
    tell: Callable[[], Sequence[float]] = tuple,
) -> StepResult:
    """Truncated backpropagation through ``phase.accumulate`` batches, then one update.

    The loss is that of :mod:`unrolled.train.objectives`; with accumulation, its mean over the batches. An update whose
    gradient is not finite is left out; the caller sees it by ``grad_norm``.

    Args:
        position: number of the first batch. state: carried state, None at the very start.
        lr: learning rate of this step, for a batch of full size.
        watch: hears the name of each part of the step at its end. tell: gives numbers that the group adds up, once the
            gradient is made.
    """
    nats, tokens, (optimizer, averager, objectives, window) = 0.0, 0, tools
    parts: dict[str, float] = {}
    for i in range(phase.accumulate):
        batch = objectives.prepare(source.at(position), position)
        watch("data")
        drawn = task.draw(model, batch, position)
        watch("masks")
        loss = window(batch, state, drawn, objectives, phase.accumulate, i + 1 == phase.accumulate, watch)
        state = loss.state
        nats += float(loss.nats)
        tokens += loss.count
        for name, value in {**loss.parts, **objectives.values}.items():
            parts[name] = parts.get(name, 0.0) + float(value) / phase.accumulate
        position += 1
        watch("backward")
    averaged(objectives.parameters())
    # one message for everything that all must agree on
    names = sorted(parts)
    nats, tokens, *rest = current().sums([nats, tokens, *(parts[name] for name in names), *tell()])
    world = current().world
    parts = {name: value / world for name, value in zip(names, rest, strict=False)}
    tokens = int(tokens)
    add_l2(phase.objective, model.parameters())
    if phase.lr_by_length:
        lr *= tokens / (phase.accumulate * source.full_batch)
    lr = averager.rate(lr)
    norm = _clip([p for p in model.parameters() if p.grad is not None], phase.clip)
    if side := [p for p in objectives.parameters() if p.grad is not None]:
        # apart: a norm over both would change the steps of the model
        apart = _clip(side, phase.clip)
        norm = norm if math.isfinite(apart) else apart
    watch("clipping")
    if math.isfinite(norm):
        set_rate(optimizer, lr)
        optimizer.step()
        watch("optimizer")
        averager.sample()
    optimizer.zero_grad(set_to_none=True)
    watch("averaging")
    return StepResult(state, position, nats, tokens, norm, parts, rest[len(names) :])


def _clip(parameters: list[Any], limit: float | None) -> float:
    """Scale gradients to a global norm of at most ``limit``; returns the norm before."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    value = float(whole(norm))
    if limit and limit < value < float("inf"):
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return value
