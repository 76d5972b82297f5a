"""Linear systems of a full matrix, one for each channel, over windows: s(t) = s(t-1) a + u(t) b, y(t) = s(t) c.

States are rows. What a window needs are the rows b a^l, the columns a^l c and a^T; all come by doubling, from the
squares a, a^2, a^4 ..., in N^2 T operations a channel. Long windows are taken in pieces, so that memory has a bound.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.kernels.fft_conv import fft_conv

__all__ = ["PIECE", "Dense", "Ladder"]

PIECE = 256
"""Steps of a window that are taken at once."""


class Ladder:
    """Powers of matrices a (channels, N, N), by their squares, each made when it is first asked for."""

    def __init__(self, a: Tensor):
        self._squares = [a]

    def square(self, k: int) -> Tensor:
        """a^(2^k), (channels, N, N)."""
        while len(self._squares) <= k:
            self._squares.append(self._squares[-1] @ self._squares[-1])
        return self._squares[k]

    def rows(self, first: Tensor, steps: int) -> Tensor:
        """first a^l for l < steps: (channels, rows, N) -> (channels, steps, rows, N)."""
        found, k = first.unsqueeze(1), 0
        while found.shape[1] < steps:
            found = torch.cat([found, (found.flatten(1, 2) @ self.square(k)).view_as(found)], 1)
            k += 1
        return found[:, :steps]

    def columns(self, first: Tensor, steps: int) -> Tensor:
        """a^l first for l < steps, columns kept as rows: (channels, rows, N) -> (channels, steps, rows, N)."""
        found, k = first.unsqueeze(1), 0
        while found.shape[1] < steps:
            more = found.flatten(1, 2) @ self.square(k).transpose(1, 2)
            found, k = torch.cat([found, more.view_as(found)], 1), k + 1
        return found[:, :steps]

    def after(self, rows: Tensor, steps: int) -> Tensor:
        """rows a^steps: (channels, rows, N)."""
        for k in range(steps.bit_length()):
            if steps >> k & 1:
                rows = rows @ self.square(k)
        return rows

    def before(self, columns: Tensor, steps: int) -> Tensor:
        """a^steps columns, kept as rows: (channels, rows, N)."""
        for k in range(steps.bit_length()):
            if steps >> k & 1:
                columns = columns @ self.square(k).transpose(1, 2)
        return columns


class Dense(NamedTuple):
    """a: (channels, N, N), b: (channels, N), c: (channels, outputs, N). States: (rows, channels, N).

    filter_of: (ladder, rows b a^l) -> filter (channels, outputs, steps), for a system that has a better way to it.
    """

    a: Tensor
    b: Tensor
    c: Tensor
    filter_of: Callable[[Ladder, Tensor], Tensor] | None = None

    def window(self, u: Tensor, start: Tensor, wish: str, subject: str) -> tuple[Tensor, Tensor]:
        """Outputs (rows, time, channels * outputs) of u (rows, time, channels), and the last state."""
        ladder, found = Ladder(self.a), []
        for piece in u.split(PIECE, 1):
            rows = ladder.rows(self.b.unsqueeze(1), piece.shape[1]).squeeze(2)
            found.append(self._outputs(ladder, rows, piece, start, wish, subject))
            start = self._final(ladder, rows, piece, start)
        return torch.cat(found, 1), start

    def outputs(self, u: Tensor, start: Tensor, wish: str, subject: str) -> Tensor:
        """Those of :meth:`window`."""
        return self.window(u, start, wish, subject)[0]

    def final(self, u: Tensor, start: Tensor) -> Tensor:
        """The state after a window."""
        ladder = Ladder(self.a)
        for piece in u.split(PIECE, 1):
            rows = ladder.rows(self.b.unsqueeze(1), piece.shape[1]).squeeze(2)
            start = self._final(ladder, rows, piece, start)
        return start

    def _outputs(self, ladder: Ladder, rows: Tensor, u: Tensor, start: Tensor, wish: str, subject: str) -> Tensor:
        time, outputs = u.shape[1], self.c.shape[1]
        repeated = u.repeat_interleave(outputs, 2)
        taps = self.c @ rows.transpose(1, 2) if self.filter_of is None else self.filter_of(ladder, rows)
        driven = fft_conv(repeated, taps.flatten(0, 1), wish, subject)
        columns = ladder.columns(self.c, time).flatten(1, 2)
        left = start.transpose(0, 1) @ self.a
        free = (columns @ left.transpose(1, 2)).unflatten(1, (time, outputs))
        return driven + free.permute(3, 1, 0, 2).flatten(2)

    def _final(self, ladder: Ladder, rows: Tensor, u: Tensor, start: Tensor) -> Tensor:
        driven = u.flip(1).permute(2, 0, 1) @ rows
        return (driven + ladder.after(start.transpose(0, 1), u.shape[1])).transpose(0, 1)

    def steps(
        self, u: Tensor, start: Tensor, reset: Tensor | None, wish: str, subject: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A window by its recurrence: outputs, the state after it, and that after each step."""
        s, states = start.transpose(0, 1), []
        resets = [None] * u.shape[1] if reset is None else reset.unbind(1)
        for u_t, reset_t in zip(u.unbind(1), resets, strict=True):
            if reset_t is not None:
                s = s.masked_fill(reset_t.view(1, -1, 1), 0)
            s = s @ self.a + u_t.t().unsqueeze(-1) * self.b.unsqueeze(1)
            states.append(s)
        found = torch.stack(states)
        y = (found.unsqueeze(3) * self.c.unsqueeze(1)).sum(-1)
        return y.permute(2, 0, 1, 3).flatten(2), s.transpose(0, 1), found.permute(2, 0, 1, 3)
