"""Long filters over windows and single steps of a text without an end, with a state of fixed shape.

Positions are counted from the beginning of a document. A block of B steps is open at any time; what came before it is
*closed*, and has been added to outputs to come as :mod:`unrolled.kernels.fft_conv.online` says. The state of a text is
the same however its windows were cut. A step changes the open block alone; the long parts of the state are new
tensors once a block, so that a step does not copy them.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from unrolled.kernels.fft_conv import fft_conv
from unrolled.kernels.fft_conv.online import Filter, epoch_of, period_of

__all__ = ["WAYS", "Direct", "Epoched", "Parts", "Quasilinear", "Way", "cut"]


class Parts(NamedTuple):
    """inputs: (batch, held, width), those before the open block, the newest last. recent: (batch, B, width), those of
    the open block, the newest last. future: (batch, ahead, width), what has been added to the outputs from the open
    block's first on. count: int64 (batch, 1), inputs of the document, modulo the period."""

    inputs: Tensor
    recent: Any = None
    future: Any = None
    count: Any = None


def cut(x: Tensor, starts: Sequence[int], length: int) -> Tensor:
    """x (batch, n, width) from place starts[row] on, (batch, length, width); zeros beyond its ends."""
    n = x.shape[1]
    if len(set(starts)) == 1:
        start = starts[0]
        low, high = min(max(start, 0), n), min(max(start + length, 0), n)
        if high - low == length:
            return x[:, low:high]
        before = min(max(-start, 0), length)
        return pad(x[:, low:high], (0, 0, before, length - before - (high - low)))
    at = torch.tensor(starts, device=x.device).unsqueeze(1) + torch.arange(length, device=x.device)
    inside = ((at >= 0) & (at < n)).unsqueeze(2)
    rows = torch.arange(x.shape[0], device=x.device).unsqueeze(1)
    return x[rows, at.clamp(0, n - 1)] * inside


def _rows(values: Sequence[bool], like: Tensor) -> Tensor:
    return torch.tensor(values, device=like.device).view(-1, 1, 1)


class Way:
    """How long filters of T taps are summed as inputs come. A subclass adds closed inputs to the outputs to come.

    Attributes:
        held, block, ahead, period: sizes of the state, see :class:`Parts`.
    """

    held: int
    block: int
    ahead: int
    period: int

    def initial(self, batch: int, width: int, device: Any, dtype: torch.dtype | None) -> Parts:
        """The state before a document: zeros."""
        sizes = self.held, self.block, self.ahead
        inputs, recent, future = (torch.zeros(batch, size, width, device=device, dtype=dtype) for size in sizes)
        return Parts(inputs, recent, future, torch.zeros(batch, 1, device=device, dtype=torch.int64))

    def pending(self, own: Filter, past: Tensor, counts: list[int], time: int) -> Tensor:
        """What closed and open inputs still have to add to the outputs of the next ``time`` steps, beyond the open
        block. past: (batch, n, width), all of them, the newest last. (batch, time, width)."""
        raise NotImplementedError

    def added(self, own: Filter, past: Tensor, future: Tensor, counts: list[int], ends: list[int]) -> Tensor:
        """``future`` with what the inputs add that are closed between counts and ends, of rows where a block is.

        Args:
            past: (batch, n, width), all inputs up to ends, the newest last. future: as it was, but from the first
                output of the block that is open at the end.
        """
        raise NotImplementedError

    def step(self, own: Filter, u: Tensor, state: Parts) -> tuple[Tensor, Parts]:
        """One step: u (batch, 1, width)."""
        counts = state.count.flatten().tolist()
        recent = torch.cat([state.recent[:, 1:], u], 1)
        y = cut(state.future, [count % self.block for count in counts], 1) + own.near(recent).unsqueeze(1)
        if all((count + 1) % self.block for count in counts):
            return y, state._replace(recent=recent, count=state.count + 1)
        return y, self.after(own, u, state, [1] * len(counts))

    def outputs(self, own: Filter, u: Tensor, state: Parts, wish: str, subject: str) -> Tensor:
        """Outputs of a window u (batch, time, width)."""
        time, counts = u.shape[1], state.count.flatten().tolist()
        opened = [count % self.block for count in counts]
        y = fft_conv(u, own.taps, wish, subject) + cut(state.future, opened, time)
        if (left := min(self.block - min(opened), time)) > 0:
            near = Filter(own.taps[:, : self.block], own.plain).ahead(state.recent, left)
            steps = torch.arange(left, device=u.device).view(1, -1, 1)
            inside = steps < self.block - torch.tensor(opened, device=u.device).view(-1, 1, 1)
            y = y + pad(near * inside, (0, 0, 0, time - left))
        if time > self.block - max(opened):
            y = y + self.pending(own, self._past(state, opened), counts, time)
        return y

    def after(self, own: Filter, u: Tensor, state: Parts, lengths: list[int]) -> Parts:
        """The state after a window u (batch, time, width) of which the last ``lengths`` inputs of each row count; rows
        of fewer than all begin in an empty state."""
        counts = state.count.flatten().tolist()
        ends = [count + length for count, length in zip(counts, lengths, strict=True)]
        opened = [end % self.block for end in ends]
        closed = [end - end % self.block - count + count % self.block for count, end in zip(counts, ends, strict=True)]
        past = torch.cat([self._past(state, [count % self.block for count in counts]), u], 1)
        total = past.shape[1]
        recent = torch.cat([state.recent, u], 1)[:, -self.block :]
        if any(closed):
            places = torch.arange(self.block, 0, -1, device=u.device).view(1, -1, 1)
            inside = places <= torch.tensor(opened, device=u.device).view(-1, 1, 1)
            recent = recent * (inside | ~_rows([n > 0 for n in closed], u))
            inputs = cut(past, [total - self.held - n for n in opened], self.held)
            future = self.added(own, past, cut(state.future, closed, self.ahead), counts, ends)
        else:
            inputs, future = state.inputs, state.future
        count = torch.tensor([[end % self.period] for end in ends], device=u.device)
        return Parts(inputs, recent, future, count)

    def _past(self, state: Parts, opened: list[int]) -> Tensor:
        """The last inputs of the state, at least ``held``, the newest last."""
        if len(set(opened)) == 1:
            return torch.cat([state.inputs, state.recent[:, self.block - opened[0] :]], 1)
        back = torch.arange(self.held + self.block, 0, -1, device=state.inputs.device)
        own = torch.tensor(opened, device=back.device).unsqueeze(1)
        at = torch.where(back <= own, self.held + self.block - back, self.held + own - back)
        rows = torch.arange(len(opened), device=back.device).unsqueeze(1)
        joined = torch.cat([state.inputs, state.recent], 1)
        return joined[rows, at.clamp_min(0)] * (at >= 0).unsqueeze(2)


class Direct(Way):
    """Each output is its whole sum. The state is the last T - 1 inputs alone, its other parts None."""

    def __init__(self, taps: int):
        self.held = taps - 1

    def initial(self, batch: int, width: int, device: Any, dtype: torch.dtype | None) -> Parts:
        """See :meth:`Way.initial`."""
        return Parts(torch.zeros(batch, self.held, width, device=device, dtype=dtype))

    def step(self, own: Filter, u: Tensor, state: Parts) -> tuple[Tensor, Parts]:
        """See :meth:`Way.step`."""
        seen = torch.cat([state.inputs, u], 1)
        return own.near(seen).unsqueeze(1), Parts(seen[:, 1:])

    def outputs(self, own: Filter, u: Tensor, state: Parts, wish: str, subject: str) -> Tensor:
        """See :meth:`Way.outputs`."""
        return fft_conv(u, own.taps, wish, subject) + own.ahead(state.inputs, u.shape[1])

    def after(self, own: Filter, u: Tensor, state: Parts, lengths: list[int]) -> Parts:
        """See :meth:`Way.after`."""
        return Parts(torch.cat([state.inputs, u], 1)[:, -self.held :])


class Epoched(Way):
    """All of the past is added to the outputs of the next block, once a block of sqrt(T log T) steps."""

    def __init__(self, taps: int):
        self.held, self.block = taps, epoch_of(taps)
        self.ahead = self.period = self.block

    def pending(self, own: Filter, past: Tensor, counts: list[int], time: int) -> Tensor:
        """See :meth:`Way.pending`."""
        steps = torch.arange(time, device=past.device).view(1, -1, 1)
        opened = torch.tensor(counts, device=past.device).view(-1, 1, 1) % self.block
        return own.ahead(past, time) * (steps >= self.block - opened)

    def added(self, own: Filter, past: Tensor, future: Tensor, counts: list[int], ends: list[int]) -> Tensor:
        """See :meth:`Way.added`."""
        total = past.shape[1]
        closed = cut(past, [total - end % self.block - self.held for end in ends], self.held)
        news = [end // self.block > count // self.block for count, end in zip(counts, ends, strict=True)]
        return future + own.ahead(closed, self.block) * _rows(news, past)


class Quasilinear(Way):
    """Where k is the largest power of two, from B to the period, that divides the position i, the last k inputs are
    added to the next k outputs."""

    def __init__(self, taps: int):
        self.period = self.held = self.ahead = period_of(taps)
        # a block of 2 sqrt(period) steps takes about as long to sum as the state to copy once in a block
        self.block = min(self.period, 1 << ((self.period.bit_length() + 1) // 2))

    def _levels(self) -> list[int]:
        return [self.block << level for level in range((self.period // self.block).bit_length())]

    def pending(self, own: Filter, past: Tensor, counts: list[int], time: int) -> Tensor:
        """See :meth:`Way.pending`."""
        y, total = past.new_zeros(past.shape[0], time, past.shape[2]), past.shape[1]
        for k in self._levels():
            # the block of k inputs that is not whole yet, and the outputs i ... i + k that wait for it
            whole = [count // k + 1 for count in counts]
            waits = [k == self.period or n % 2 == 1 for n in whole]
            until = [n * k - count for n, count in zip(whole, counts, strict=True)]
            if any(wait and n < time for wait, n in zip(waits, until, strict=True)):
                made = own.ahead(cut(past, [total + n - k for n in until], k), k) * _rows(waits, past)
                y = y + cut(made, [-n for n in until], time)
        return y

    def added(self, own: Filter, past: Tensor, future: Tensor, counts: list[int], ends: list[int]) -> Tensor:
        """See :meth:`Way.added`."""
        total = past.shape[1]
        for k in self._levels():
            last = [end // k * k for end in ends]  # the end of the last whole block, after which its outputs begin
            news = [
                i > count - count % self.block and (k == self.period or i // k % 2 == 1)
                for i, count in zip(last, counts, strict=True)
            ]
            if any(news):
                made = own.ahead(cut(past, [total - end + i - k for i, end in zip(last, ends, strict=True)], k), k)
                passed = [end - end % self.block - i for i, end in zip(last, ends, strict=True)]
                future = future + cut(made * _rows(news, past), passed, self.ahead)
        return future


WAYS: dict[str, type[Any]] = {"direct": Direct, "epoched": Epoched, "quasilinear": Quasilinear}
"""By name; each is made of the number of taps."""
