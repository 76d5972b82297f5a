"""The only training step."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import nn

from unrolled.core import tree
from unrolled.core.random import RandomStreams
from unrolled.data import Stream
from unrolled.model import LanguageModel, ModelState
from unrolled.optim import Averager, set_rate
from unrolled.train.config import PhaseConfig
from unrolled.train.objective import add_l2, objective

__all__ = ["StepResult", "train_step"]


def _unwatched(part: str) -> None:
    """The watch when nobody looks."""


class StepResult(NamedTuple):
    """state: carried on, cut from the graph. position: the next window. nats, tokens: sums over the step.
    grad_norm: global norm before clipping."""

    state: ModelState
    position: int
    nats: float
    tokens: int
    grad_norm: float


def train_step(
    model: LanguageModel,
    optimizer: torch.optim.Optimizer,
    stream: Stream,
    position: int,
    state: ModelState | None,
    phase: PhaseConfig,
    streams: RandomStreams,
    lr: float,
    averager: Averager | None = None,
    watch: Callable[[str], None] = _unwatched,
) -> StepResult:
    """Truncated backpropagation through ``phase.accumulate`` windows, then one update.

    The loss is that of :mod:`unrolled.train.objective`; with accumulation, its mean over the windows. An update whose
    gradient is not finite is left out; the caller sees it by ``grad_norm``.

    Args:
        position: number of the first window. state: carried state, None at the very start.
        lr: learning rate of this step, for a window of full length.
        averager: has a say in the rate and sees the weights after the update.
        watch: hears the name of each part of the step at its end.
    """
    nats, tokens, device = 0.0, 0, model.device
    for _ in range(phase.accumulate):
        window = stream.at(position)
        inputs, targets = window.inputs.to(device), window.targets.to(device)
        reset = None if window.reset is None else window.reset.to(device)
        weight = None if window.weight is None else window.weight.to(device)
        if state is None or not window.carried:
            state = model.initial_state(len(inputs))
        elif window.restart is not None:
            state = tree.reset_rows(state, model.initial_state(len(inputs)), window.restart.to(device))
        watch("data")
        masks = model.draw_masks(*inputs.shape, streams, position)
        watch("masks")
        out = model(inputs, state, reset, masks)
        watch("forward")
        total, _, state = model.score(out, targets, reset, weight, masks)
        watch("loss")
        (objective(phase.objective, total, targets, out, reset) / phase.accumulate).backward()
        state = tree.detach(state)
        nats += float(total.detach())
        tokens += targets.numel()
        position += 1
        watch("backward")
    add_l2(phase.objective, model.parameters())
    if phase.lr_by_length:
        lr *= tokens / (phase.accumulate * stream.config.columns * stream.config.window)
    if averager is not None:
        lr = averager.rate(lr)
    norm = _clip([p for p in model.parameters() if p.grad is not None], phase.clip)
    watch("clipping")
    if norm == norm and norm != float("inf"):
        set_rate(optimizer, lr)
        optimizer.step()
        watch("optimizer")
        if averager is not None:
            averager.sample()
    optimizer.zero_grad(set_to_none=True)
    watch("averaging")
    assert state is not None
    return StepResult(state, position, nats, tokens, norm)


def _clip(parameters: list[Any], limit: float | None) -> float:
    """Scale gradients to a global norm of at most ``limit``; returns the norm before."""
    norm = nn.utils.get_total_norm([p.grad for p in parameters])
    value = float(norm)
    if limit and limit < value < float("inf"):
        nn.utils.clip_grads_with_norm_(parameters, limit, norm)
    return value
