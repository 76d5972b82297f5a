"""What all state-space cells share: one path for windows, another for steps, and resets."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from unrolled.cells.mixer import Given, MixerCell
from unrolled.core.tree import map_tree

__all__ = ["SystemCell", "SystemState", "by_documents"]


class SystemState(NamedTuple):
    """s: (batch, channels, modes), the state of each channel's system; complex ones (batch, channels, modes, 2)."""

    s: Tensor


class System(Protocol):
    """A linear system for each channel, time-invariant; see :class:`unrolled.cells.ssm.diagonal.Diagonal`."""

    def window(self, u: Tensor, start: Tensor, wish: str, subject: str) -> tuple[Tensor, Tensor]: ...

    def outputs(self, u: Tensor, start: Tensor, wish: str, subject: str) -> Tensor: ...

    def final(self, u: Tensor, start: Tensor) -> Tensor: ...

    def steps(
        self, u: Tensor, start: Tensor, reset: Tensor | None, wish: str, subject: str
    ) -> tuple[Tensor, Tensor, Tensor]: ...


def by_documents(
    outputs: Callable[[Tensor, Any], Tensor],
    final: Callable[[Tensor, Any], Any],
    u: Tensor,
    start: Any,
    reset: Tensor,
) -> tuple[Tensor, Any]:
    """Run a window whose rows hold several documents, each as a row of its own from a state of zeros.

    Args:
        outputs: (u, start) -> y of a window without resets, such that y(t) depends on no later input.
        final: (u, start) -> the state after the last document of each row, whose inputs stand at the end; before those
            of one that begins in the window there are zeros.
        u: (batch, time, width). start: a tensor (batch, ...) or a tree of them. reset: boolean (batch, time), true
            where a document begins.
    Returns:
        y (batch, time, out) and the state after the window.
    """
    batch, time = reset.shape
    steps = torch.arange(time, device=u.device)
    begins = reset | (steps == 0)
    row, first = begins.nonzero(as_tuple=True)
    document = begins.flatten().cumsum(0).view(batch, time) - 1
    offset = steps - torch.where(begins, steps, 0).cummax(1).values
    last = document[:, -1]
    carried = ~reset[:, 0]
    # each document from its own first step on; what follows it is seen by none of its outputs
    longest = int(offset.max()) + 1
    at = first.unsqueeze(1) + torch.arange(longest, device=u.device)
    inside = (at < time).unsqueeze(-1)
    apart = u[row.unsqueeze(1), at.clamp(max=time - 1)] * inside
    goes_on = (first == 0) & carried[row]
    entering = map_tree(lambda part: part[row] * _wide(goes_on, part), start)
    y = outputs(apart, entering)[document, offset]
    # the last document of each row, aligned at its end
    own = offset[:, -1]
    tail = u[:, time - int(own.max()) - 1 :]
    ends = tail * (steps[-tail.shape[1] :] >= (time - 1 - own).unsqueeze(1)).unsqueeze(-1)
    return y, final(ends, map_tree(lambda part: part[last], entering))


def _wide(mask: Tensor, like: Tensor) -> Tensor:
    return mask.view(-1, *[1] * (like.dim() - 1)).to(like.dtype)


class SystemCell(MixerCell):
    """A cell around a linear system for each channel.

    A subclass gives :meth:`system` and calls :meth:`drive` in its ``mix``. Windows are convolutions (``fft_conv``),
    each document of a row by itself; single steps, traced windows and the backend ``reference`` are the recurrence.
    """

    operation = "fft_conv"
    State = SystemState

    def system(self) -> System:
        """The system of the parameters as they are."""
        raise NotImplementedError

    def settled(self) -> MixerCell:
        """The system is discretised once, when it is first asked for."""
        made = super().settled()
        made.system = functools.cache(torch.no_grad()(self.system))  # type: ignore[assignment]
        return made

    def drive(self, u: Tensor, state: Any, given: Given) -> tuple[Tensor, SystemState]:
        """What the system makes of u (batch, time, channels), and the state after it."""
        system, reset = self.system(), given.reset
        if u.shape[1] == 1 or self.wish == "reference":
            wish = self.compute.wish("diag_scan")
            y, last, _ = system.steps(u, state.s, reset, wish, self.name)
            return y, SystemState(last)
        if reset is None or not bool(reset.any()):
            y, last = system.window(u, state.s, self.wish, self.name)
            return y, SystemState(last)

        def outputs(u: Tensor, start: Tensor) -> Tensor:
            return system.outputs(u, start, self.wish, self.name)

        y, last = by_documents(outputs, system.final, u, state.s, reset)
        return y, SystemState(last)
