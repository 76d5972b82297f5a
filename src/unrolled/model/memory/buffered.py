"""What memories share that look at a whole segment when it ends: a buffer of its outputs."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.model.memory.base import Memory

__all__ = ["BufferedMemory", "BufferedState"]


class BufferedState(NamedTuple):
    """fill, count: see Memory. vectors: (batch, slots, width). seen: (batch, segment, out_width), outputs of the open
    segment, zeros behind them."""

    fill: Tensor
    count: Tensor
    vectors: Tensor
    seen: Tensor


class BufferedMemory(Memory):
    """A memory that keeps what the stack puts out in the open segment."""

    State: Any = BufferedState
    attends = True

    def empty(self, batch: int, device: Any, dtype: torch.dtype | None) -> Tensor:
        """The buffer without anything in it."""
        return torch.zeros(batch, self.config.segment, self.out_width, device=device, dtype=dtype)

    def observe(self, memory: Any, x: Tensor, y: Tensor) -> Any:
        """Puts the outputs behind those of the segment before."""
        places = memory.fill.unsqueeze(1) + torch.arange(y.shape[1], device=y.device)
        return memory._replace(seen=memory.seen.scatter(1, places.unsqueeze(-1).expand_as(y), y))

    def present(self, memory: Any) -> Tensor:
        """Boolean (batch, segment): which places of the buffer hold an output."""
        return torch.arange(self.config.segment, device=memory.fill.device) < memory.fill.unsqueeze(1)
