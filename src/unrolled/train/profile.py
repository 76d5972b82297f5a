"""Where the time of a training step goes."""

import copy
import time
from typing import NamedTuple

import torch

from unrolled.core.errors import UsageError
from unrolled.core.parameters import rules_of
from unrolled.model import LanguageModel
from unrolled.optim import AVERAGING, build_optimizer
from unrolled.train.setup import Parts
from unrolled.train.step import train_step

__all__ = ["Part", "Profile", "profile_steps"]

# Steps before the measurement: the first ones allocate and choose backends.
_WARM = 3


class Part(NamedTuple):
    """One part of the mean step. seconds: of the wall clock. operations: of its matrix products, 0 without any."""

    name: str
    seconds: float
    operations: int

    @property
    def speed(self) -> float:
        """Operations a second."""
        return self.operations / self.seconds if self.seconds else 0.0


class Profile(NamedTuple):
    """parts: in their order. steps: measured. tokens: of a step."""

    parts: tuple[Part, ...]
    steps: int
    tokens: int

    @property
    def seconds(self) -> float:
        """Of one step."""
        return sum(part.seconds for part in self.parts)


class _Watch:
    """Adds up, by name, the time since the last call."""

    def __init__(self, device: torch.device):
        self.sums: dict[str, float] = {}
        self._device = device
        self._last = time.perf_counter()

    def __call__(self, name: str) -> None:
        if self._device.type == "cuda":
            torch.cuda.synchronize(self._device)
        now = time.perf_counter()
        self.sums[name] = self.sums.get(name, 0.0) + now - self._last
        self._last = now


def profile_steps(parts: Parts, steps: int) -> Profile:
    """Time the parts of the first phase's steps, on a copy of the model that is thrown away; the weights do not move.

    Args:
        steps: steps that are measured.
    Raises:
        UsageError: ``steps`` below 1.
    """
    if steps < 1:
        raise UsageError(f"a profile needs at least 1 step (got {steps}).")
    phase, model = parts.config.train.phases()[0], copy.deepcopy(parts.model)
    optimizer = build_optimizer(phase.optimizer, model.parameters(), rules_of(model))
    averager = AVERAGING[phase.averaging.name](phase.averaging, model.parameters())
    state, position, tokens = None, 0, 0
    watch = _Watch(model.device)
    for step in range(_WARM + steps):
        if step == _WARM:
            watch, tokens = _Watch(model.device), 0
        result = train_step(model, optimizer, parts.stream, position, state, phase, parts.streams, 0.0, averager, watch)
        state, position, tokens = result.state, result.position, tokens + result.tokens
    tokens //= steps
    operations = _operations(model, tokens)
    return Profile(
        tuple(Part(name, seconds / steps, operations.get(name, 0)) for name, seconds in watch.sums.items()),
        steps, tokens,
    )  # fmt: skip


def _operations(model: LanguageModel, tokens: int) -> dict[str, int]:
    """Of the matrix products. The head makes its gradients with its loss, the cells theirs in the backward pass. Those
    of a sampled softmax depend on the text and are not counted."""
    cells = model.stack_flops_per_token()
    sampled = getattr(model.head.config, "negatives", None) is not None
    head = 0 if sampled else model.flops_per_token() - cells
    return {"forward": tokens * cells, "loss": 3 * tokens * head, "backward": 2 * tokens * cells}
