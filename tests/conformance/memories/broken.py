"""A new memory that is sound, and memories that are broken on purpose; each must fail the check that it is for."""

from typing import Any, Literal

import torch
from torch import Tensor

from unrolled.model.memory import Memory
from unrolled.model.memory.base import Ended
from unrolled.model.memory.slots import SlotMemory, SlotsConfig
from unrolled.model.memory.tokens import TokenMemory, TokensConfig

__all__ = ["BROKEN", "Sound"]


class _Config(TokensConfig):
    name: Literal["sound"] = "sound"  # type: ignore[assignment]


class _Slots(SlotsConfig):
    name: Literal["slotted"] = "slotted"  # type: ignore[assignment]


class Sound(TokenMemory):
    """Memory tokens under a name of their own."""

    Config = _Config
    EXAMPLES = (_Config(segment=4, slots=2),)


class Slotted(SlotMemory):
    """Slots under a name of their own."""

    Config = _Slots
    EXAMPLES = (_Slots(segment=4, slots=2, heads=2),)


class MixesRows(Sound):
    def update(self, memory: Any, ended: Ended) -> Any:
        made = super().update(memory, ended)
        return made._replace(slots=made.slots + 1e-6 * made.slots.mean(0, keepdim=True))


class ByPieces(Slotted):
    """Forgets what of the segment came in an earlier piece."""

    def observe(self, memory: Any, x: Tensor, y: Tensor) -> Any:
        return super().observe(memory._replace(seen=torch.zeros_like(memory.seen)), x, y)


class Grows(Sound):
    def observe(self, memory: Any, x: Tensor, y: Tensor) -> Any:
        return memory._replace(fill=memory.fill.double())


class LooksAhead(Slotted):
    """The layers read a mean over all tokens of the piece."""

    def before(self, layer: int, x: Tensor, memory: Any) -> Tensor:
        return super().before(layer, x, memory) + 1e-3 * x.mean(1, keepdim=True)


class Forgets(Sound):
    def update(self, memory: Any, ended: Ended) -> Any:
        return memory._replace(slots=torch.zeros_like(memory.slots))


class Detached(Sound):
    def update(self, memory: Any, ended: Ended) -> Any:
        made = super().update(memory, ended)
        return made._replace(slots=made.slots.detach())


class Counts(Sound):
    """Computes something else the second time."""

    calls = 0

    def suffix(self, memory: Any) -> Tensor | None:
        self.calls += 1
        made = super().suffix(memory)
        return None if made is None else made * (1 + 1e-3 * self.calls)


class Masked(Sound):
    """Draws by itself."""

    def observe(self, memory: Any, x: Tensor, y: Tensor) -> Any:
        made = super().observe(memory, x, y)
        return made._replace(slots=made.slots + 1e-3 * torch.randn_like(made.slots))


class Leaks(Sound):
    """Hands its memory on by itself."""

    last: Tensor | None = None

    def begin(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        self.last = None
        return super().begin(batch, device, dtype)

    def update(self, memory: Any, ended: Ended) -> Any:
        made = super().update(memory, ended)
        self.last = made.slots
        return made

    def prefix(self, memory: Any) -> Tensor | None:
        return super().prefix(memory) if self.last is None else self.last


BROKEN: dict[str, list[type[Memory]]] = {
    "plain": [MixesRows, ByPieces],
    "splits": [ByPieces],
    "state": [Grows],
    "no_future": [LooksAhead],
    "carries": [Forgets],
    "depth": [Leaks, Detached],
    "checkpoint": [Counts],
    "masks": [Masked],
    "keep": [Leaks],
}
