"""Linear systems of a diagonal matrix, one for each channel: s(t) = a s(t-1) + b u(t), y(t) = Re sum of c s(t).

A window is a convolution with the filter K(l) = Re sum c b a^l. Neither the filter nor the first and last state need
the states between: a power l = i m + j is a product of two of about sqrt(T) powers each, so that all sums over modes
or over time are products of small matrices, and nothing of the size time times modes is ever stored.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad

from unrolled.kernels.diag_scan import BACKENDS, diag_scan
from unrolled.kernels.fft_conv import fft_conv

__all__ = ["Diagonal", "complex_of", "expm1", "numbers_of", "powers"]


def powers(a: Tensor, count: int) -> Tensor:
    """a^0 ... a^(count-1), (..., count), by doubling: errors grow with the logarithm of the power."""
    found, factor = torch.ones_like(a).unsqueeze(-1), a.unsqueeze(-1)
    while found.shape[-1] < count:
        found = torch.cat([found, found * factor], -1)
        factor = factor * factor
    return found[..., :count]


def expm1(z: Tensor) -> Tensor:
    """e^z - 1 of complex numbers, exact near 0 too."""
    x, y = z.real, z.imag
    half = torch.sin(0.5 * y)
    return torch.complex(torch.expm1(x) * torch.cos(y) - 2 * half * half, torch.exp(x) * torch.sin(y))


def complex_of(numbers: Tensor) -> Tensor:
    """(..., 2) real as (...) complex: states and parameters are kept as real numbers."""
    return torch.view_as_complex(numbers.contiguous())


def numbers_of(z: Tensor) -> Tensor:
    """(...) complex as (..., 2) real; what is real stays as it is."""
    return torch.view_as_real(z) if z.is_complex() else z


def _real_product(left: Tensor, right: Tensor) -> Tensor:
    """Re(left @ right), in real products."""
    if not left.is_complex():
        return left @ right
    parts = torch.cat([left.real, -left.imag], -1), torch.cat([right.real, right.imag], -2)
    return parts[0] @ parts[1]


class Diagonal(NamedTuple):
    """a, b, c: (channels, modes), all real or all complex. States are numbers, (rows, channels, modes[, 2])."""

    a: Tensor
    b: Tensor
    c: Tensor

    def outputs(self, u: Tensor, start: Tensor, wish: str, subject: str) -> Tensor:
        """Outputs of a window.

        Args:
            u: (rows, time, channels). start: the state before it. wish: backend of ``fft_conv``.
        Returns:
            (rows, time, channels).
        """
        rows, time, _ = u.shape
        fine, coarse, _ = self._powers(time)
        # of each row the entering state seen through c, and the filter as one row more
        weights = torch.cat([self._of(start) * (self.c * self.a), (self.c * self.b).unsqueeze(0)])
        left = (weights.unsqueeze(-1) * coarse).permute(1, 0, 3, 2).flatten(1, 2)
        sums = _real_product(left, fine).unflatten(1, (rows + 1, -1)).flatten(2)[..., :time]
        return fft_conv(u, sums[:, -1], wish, subject) + sums[:, :-1].permute(1, 2, 0)

    def final(self, u: Tensor, start: Tensor) -> Tensor:
        """The state after a window; arguments as those of :meth:`outputs`."""
        rows, time, _ = u.shape
        fine, coarse, whole = self._powers(time)
        outer, inner = coarse.shape[-1], fine.shape[-1]
        # newest input first; zeros before the first change nothing
        back = pad(u.flip(1), (0, 0, 0, outer * inner - time)).permute(2, 0, 1).reshape(len(self.a), -1, inner)
        split = torch.cat([fine.real, fine.imag], 1) if fine.is_complex() else fine
        sums = (back @ split.transpose(1, 2)).unflatten(1, (rows, outer))
        if fine.is_complex():
            sums = torch.complex(*sums.chunk(2, -1))
        driven = (sums * coarse.transpose(1, 2).unsqueeze(1)).sum(2).transpose(0, 1)
        return numbers_of(self.b * driven + whole * self._of(start))

    def window(self, u: Tensor, start: Tensor, wish: str, subject: str) -> tuple[Tensor, Tensor]:
        """Outputs of a window, and the state after it."""
        return self.outputs(u, start, wish, subject), self.final(u, start)

    def steps(
        self, u: Tensor, start: Tensor, reset: Tensor | None, wish: str, subject: str
    ) -> tuple[Tensor, Tensor, Tensor]:
        """A window by its recurrence.

        Args:
            reset: boolean (rows, time) or None. wish: backend of ``diag_scan``; one that it lacks is ``auto``.
        Returns:
            outputs, the state after the window, and that after each step (rows, time, channels, modes[, 2]).
        """
        sizes, backend = self.a.shape, wish if wish in BACKENDS else "auto"
        driven = (self.b * u.unsqueeze(-1)).flatten(2)
        s, last = diag_scan(
            self.a.flatten(), driven, self._of(start).flatten(1), reset, backend=backend, subject=subject
        )
        states = s.unflatten(2, sizes)
        y = (states * self.c).sum(-1)
        last = last.unflatten(1, sizes)
        return (y.real if y.is_complex() else y), numbers_of(last), numbers_of(states)

    def _powers(self, time: int) -> tuple[Tensor, Tensor, Tensor]:
        """a^j for j < m, a^(i m) for i m < time, and a^time; m is about the root of the time."""
        inner = math.isqrt(time - 1) + 1
        outer = -(-time // inner)
        fine = powers(self.a, inner + 1)
        coarse = powers(fine[..., inner], outer)
        return fine[..., :inner], coarse, coarse[..., -1] * fine[..., time - (outer - 1) * inner]

    def _of(self, numbers: Tensor) -> Tensor:
        return complex_of(numbers) if self.a.is_complex() else numbers
