"""Linear systems of a diagonal matrix plus one of rank one, A = diag(lambda) - p p*, over conjugate pairs of modes.

Of each pair one mode is kept: a sum over all modes of numbers that come in conjugates is twice the real part of that
over the kept ones.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.cells.ssm.dense import PIECE, Dense, Ladder
from unrolled.cells.ssm.diagonal import complex_of, numbers_of

__all__ = ["Dplr"]

_FEW = 64  # steps; for fewer the filter is cheaper by the powers of the matrix, and keeps more digits


def _over_pairs(z: Tensor) -> Tensor:
    """The sum over all modes, from the kept ones."""
    return 2 * z.real.sum(-1, keepdim=True)


class Dplr(NamedTuple):
    """modes, p, b: (N/2,), shared by the channels, or (channels, N/2). c: (channels, N/2). dt: (channels,). All but dt
    complex.

    In steps by the bilinear rule. States are numbers, (rows, channels, N/2, 2).
    """

    modes: Tensor
    p: Tensor
    b: Tensor
    c: Tensor
    dt: Tensor

    def step(self, s: Tensor, u: Tensor) -> Tensor:
        """(2/dt - A)^-1 ((2/dt + A) s + 2 b u) of s (..., channels, N/2) complex and u (..., channels, 1).

        In O(N), the inverse by the formula of Woodbury.
        """
        double = (2 / self.dt).unsqueeze(-1)
        pulled = double * s + self.modes * s - self.p * _over_pairs(self.p.conj() * s) + 2 * self.b * u
        resolvent = 1 / (double - self.modes)
        pushed, bent = resolvent * pulled, resolvent * self.p
        return pushed - bent * (_over_pairs(self.p.conj() * pushed) / (1 + _over_pairs(self.p.conj() * bent)))

    def dense(self) -> Dense:
        """The same system on real numbers, both parts of a mode side by side."""
        half = self.modes.shape[-1]
        basis = torch.eye(2 * half, dtype=self.dt.dtype, device=self.dt.device).unflatten(1, (half, 2))
        zero, one = self.dt.new_zeros(1, 1), self.dt.new_ones(1, 1)
        a = numbers_of(self.step(complex_of(basis).unsqueeze(1), zero)).flatten(2).transpose(0, 1)
        b = numbers_of(self.step(torch.zeros_like(self.c), one)).flatten(1)
        # 2 Re(c s) = 2 Re c Re s - 2 Im c Im s
        c = 2 * torch.view_as_real(self.c.conj().resolve_conj()).flatten(1)
        return Dense(a, b, c.unsqueeze(1))

    def window(self, u: Tensor, start: Tensor, wish: str, subject: str) -> tuple[Tensor, Tensor]:
        """Outputs (rows, time, channels) of a window, and the state after it."""
        dense = self.dense()

        def filter_of(ladder: Ladder, rows: Tensor) -> Tensor:
            steps = rows.shape[1]
            if steps < _FEW:
                return dense.c @ rows.transpose(1, 2)
            # numbers (Re, -Im) of 2 C, as dense.c
            gone = 0.5 * ladder.before(dense.c, PIECE).squeeze(1)
            truncated = self.c - complex_of(gone.unflatten(1, (-1, 2))).conj()
            return self.kernel(truncated, PIECE)[:, :steps].unsqueeze(1)

        y, last = dense._replace(filter_of=filter_of).window(u, start.flatten(2), wish, subject)
        return y, last.unflatten(2, (-1, 2))

    def outputs(self, u: Tensor, start: Tensor, wish: str, subject: str) -> Tensor:
        """Those of :meth:`window`."""
        return self.window(u, start, wish, subject)[0]

    def final(self, u: Tensor, start: Tensor) -> Tensor:
        """The state after a window."""
        return self.dense().final(u, start.flatten(2)).unflatten(2, (-1, 2))

    def steps(
        self, u: Tensor, start: Tensor, reset: Tensor | None, wish: str, subject: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A window step by step: outputs, the state after it, and that after each step."""
        s, states = complex_of(start), []
        resets = [None] * u.shape[1] if reset is None else reset.unbind(1)
        for u_t, reset_t in zip(u.unbind(1), resets, strict=True):
            if reset_t is not None:
                s = s.masked_fill(reset_t.view(-1, 1, 1), 0)
            s = self.step(s, u_t.unsqueeze(-1))
            states.append(s)
        found = torch.stack(states, 1)
        return _over_pairs(self.c * found).squeeze(-1), numbers_of(s), numbers_of(found)

    def kernel(self, truncated: Tensor, length: int) -> Tensor:
        """C Ā^l B̄ for l < L, (channels, L), from its transform: the generating function at the L-th roots of unity.

        With r = (1 + root)/2 and k_uv = sum over all modes of 2 u v / ((2/dt)(1 - root) - lambda (1 + root)) it is
        k_cb - r k_cp k_p*b / (1 + r k_p*p). The equations are multiplied through by 1 + root, so that -1 is no pole.

        Args:
            truncated: C (I - Ā^L), (channels, N/2) complex.
        """
        angle = torch.arange(length // 2 + 1, dtype=torch.float64, device=self.dt.device) * (math.pi / length)
        # 1 - e^(-2i angle) and 1 + e^(-2i angle), without a difference of near numbers
        minus = torch.complex(2 * angle.sin().square(), (2 * angle).sin()).to(self.modes.dtype)
        plus = torch.complex(2 * angle.cos().square(), -(2 * angle).sin()).to(self.modes.dtype)
        along, modes = (2 / self.dt).unsqueeze(1) * minus, self.modes.unsqueeze(-1)
        pairs = 4 / ((along.unsqueeze(1) - modes * plus) * (along.unsqueeze(1) - modes.conj() * plus))
        # w/(g - lambda s) and its partner are 2 (Re w g - Re(w conj(lambda)) s) / ((g - lambda s)(g - conj(lambda) s))
        shared = ((self.p.conj() * v).expand_as(truncated) for v in (self.b, self.p))
        weights = torch.stack([truncated * self.b, truncated * self.p, *shared], 1)
        both = torch.cat([weights.real, (weights * self.modes.conj().unsqueeze(-2)).real], 1)
        sums = torch.view_as_complex((both @ torch.view_as_real(pairs).flatten(2)).unflatten(2, (-1, 2)))
        cb, cp, pb, pp = (along.unsqueeze(1) * sums[:, :4] - plus * sums[:, 4:]).unbind(1)
        half = 0.5 * plus
        return torch.fft.irfft(cb - half * cp * pb / (1 + half * pp), length)
