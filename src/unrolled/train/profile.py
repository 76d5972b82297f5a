"""Where the time of a training step goes."""

import copy
import time
from typing import NamedTuple

import torch

from unrolled.core.errors import UsageError
from unrolled.train.setup import Parts
from unrolled.train.step import train_step
from unrolled.train.tools import make_tools

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
    tools, device = make_tools(phase, parts.task, model), next(model.parameters()).device
    state, position, tokens = None, 0, 0
    watch = _Watch(device)
    for step in range(_WARM + steps):
        if step == _WARM:
            watch, tokens = _Watch(device), 0
        result = train_step(parts.task, model, tools, parts.source, position, state, phase, 0.0, watch)
        state, position, tokens = result.state, result.position, tokens + result.tokens
    tokens //= steps
    operations = parts.task.operations(model, tokens)
    return Profile(
        tuple(Part(name, seconds / steps, operations.get(name, 0)) for name, seconds in watch.sums.items()),
        steps, tokens,
    )  # fmt: skip
