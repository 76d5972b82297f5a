"""Long convolutions whose inputs come one at a time, as in decoding.

y(t) = sum over l < T of K(l) u(t - l), where u(t + 1) is known only after y(t) (FutureFill, Agarwal et al. 2024,
arXiv:2410.03766). Past inputs are added to the outputs to come in blocks, each by one transform. ``Direct`` adds
nothing ahead: O(T) a step. ``Epoched`` adds all of the past to the next outputs once in sqrt(T log T) steps:
O(sqrt(T log T)). ``Quasilinear`` doubles its blocks: after i inputs, with k the largest power of two that divides i,
the last k are added to the next k outputs: O(log² T). All go on without an end, since the filter has T taps, and hold a
fixed number of inputs and sums.
"""

import math
from collections import Counter
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import pad

from unrolled.kernels.fft_conv.spectral import good_length

__all__ = ["ONLINE", "Direct", "Epoched", "Filter", "Online", "Quasilinear", "epoch_of", "period_of"]

_SHORT = 16
"""Blocks up to so many inputs are summed directly."""


def epoch_of(taps: int) -> int:
    """sqrt(T log2 T), steps between two additions of the whole past."""
    return max(1, math.ceil(math.sqrt(taps * math.log2(taps)))) if taps > 1 else 1


def period_of(taps: int) -> int:
    """The least power of two from T: the largest block."""
    return 1 << (taps - 1).bit_length()


class Filter:
    """A filter of T taps for each channel, with what is made of it once.

    Args:
        taps: (width, T). plain: sum directly, whatever the length.
    """

    def __init__(self, taps: Tensor, plain: bool = False):
        self.taps, self.plain = taps, plain
        self._spectra: dict[int, Tensor] = {}
        self._back: Tensor | None = None

    def ahead(self, u: Tensor, count: int) -> Tensor:
        """What inputs add to the outputs after them: z(s) = sum over i < n of K(s + 1 + i) u(n - 1 - i), s < count.

        Args:
            u: (batch, n, width), the newest last.
        Returns:
            (batch, count, width).
        """
        n, wanted = u.shape[1], count
        count = max(1, min(count, self.taps.shape[1] - 1))  # no tap reaches further
        if count < wanted:
            return pad(self.ahead(u, count), (0, 0, 0, wanted - count))
        reach = n + count - 1  # lags 1 ... reach act
        if self.plain or n <= _SHORT:
            lags = torch.arange(count, device=u.device).unsqueeze(1) + torch.arange(n, 0, -1, device=u.device)
            return (self._lags(reach)[:, lags - 1].permute(1, 2, 0) * u.unsqueeze(1)).sum(2)
        # of a product of that size the wanted outputs n - 1 ... n + count - 2 are those into which nothing wraps round
        size = good_length(reach)
        if reach not in self._spectra:
            self._spectra[reach] = torch.fft.rfft(self._lags(reach), size)
        product = torch.fft.rfft(u.transpose(1, 2), size) * self._spectra[reach]
        return torch.fft.irfft(product, size)[..., n - 1 : n - 1 + count].transpose(1, 2)

    def near(self, u: Tensor) -> Tensor:
        """The sum at the newest input over the inputs that are given. u: (batch, n, width), the newest last. Returns
        (batch, width)."""
        taps = self.taps.shape[1]
        n = min(u.shape[1], taps)
        if self._back is None:
            self._back = self.taps.flip(1).t().contiguous()
        return (u[:, -n:] * self._back[taps - n :]).sum(1)

    def _lags(self, reach: int) -> Tensor:
        """Taps 1 ... reach, zeros beyond the last."""
        taps = self.taps[:, 1 : 1 + reach]
        return pad(taps, (0, reach - taps.shape[1]))


class Online:
    """An online sum over one stream of inputs for each row. A subclass says when the past is added to what comes.

    Args:
        taps: (width, T). batch: rows.

    Attributes:
        count: inputs so far. blocks: (inputs, outputs) -> how often such a block was added ahead.
        multiply_adds: real multiply-adds so far, of one channel of one row. A real transform of length n counts as
            1.25 n log2 n of them, a product of two spectra as 2n; what is made of the filter alone is not counted.
    """

    name: ClassVar[str]
    adds_ahead: ClassVar[bool] = True

    def __init__(self, taps: Tensor, batch: int = 1):
        self.filter, self.length = Filter(taps), taps.shape[1]
        self.held, self.block = self._sizes(self.length)
        width = taps.shape[0]
        self._inputs = taps.new_zeros(batch, 2 * self.held, width)  # its second half becomes the first when it is full
        self._end = self.held
        self._future = taps.new_zeros(batch, self.held, width)
        self.count, self.multiply_adds = 0, 0.0
        self.blocks: Counter[tuple[int, int]] = Counter()

    def _sizes(self, taps: int) -> tuple[int, int]:
        """Inputs that are kept, and steps of a block, in which inputs are summed directly."""
        raise NotImplementedError

    def _add(self) -> None:
        """Add the past to the outputs to come, after a block."""

    @torch.no_grad()
    def step(self, u: Tensor) -> Tensor:
        """One step: u (batch, width) to y (batch, width)."""
        if self.adds_ahead and self.count and self.count % self.block == 0:
            self._add()  # only now is it sure to be wanted
        if self._end == self._inputs.shape[1]:
            self._inputs[:, : self.held] = self._inputs[:, self.held :].clone()
            self._end = self.held
        self._inputs[:, self._end] = u
        self._end, self.count = self._end + 1, self.count + 1
        inside = self._inside()
        y = self.filter.near(self._last(inside))
        self.multiply_adds += min(inside, self.length)
        if self.adds_ahead:
            y = y + self._future[:, (self.count - 1) % self.held]
        return y

    def _inside(self) -> int:
        """How many of the last inputs are in the open block."""
        return (self.count - 1) % self.block + 1

    def _last(self, n: int) -> Tensor:
        return self._inputs[:, self._end - n : self._end]

    def _ahead(self, n: int, count: int) -> Tensor:
        """What the last n inputs add to the next ``count`` outputs; counted."""
        self.blocks[n, count] += 1
        if n <= _SHORT:
            self.multiply_adds += n * count
        else:
            size = good_length(n + count - 1)
            self.multiply_adds += 2.5 * size * math.log2(size) + 2 * size
        return self.filter.ahead(self._last(n), count)


class Direct(Online):
    """Each output is its whole sum, nothing is added ahead: T multiply-adds a step."""

    name = "direct"
    adds_ahead = False

    def _sizes(self, taps: int) -> tuple[int, int]:
        return taps, taps

    def _inside(self) -> int:
        return min(self.count, self.length)


class Epoched(Online):
    """Once in sqrt(T log T) steps all of the past is added to the outputs of the steps until the next time."""

    name = "epoched"

    def _sizes(self, taps: int) -> tuple[int, int]:
        epoch = epoch_of(taps)
        return epoch * (taps // epoch + 1), epoch

    def _add(self) -> None:
        at = self.count % self.held
        self._future[:, at : at + self.block] = self._ahead(max(1, min(self.count, self.length - 1)), self.block)


class Quasilinear(Online):
    """After i inputs the last k are added to the next k outputs, k the largest power of two that divides i, at most
    the period of :func:`period_of`; inside a block of 16 sums are direct."""

    name = "quasilinear"

    def _sizes(self, taps: int) -> tuple[int, int]:
        period = period_of(taps)
        return period, min(_SHORT, period)

    def _add(self) -> None:
        k = min(self.count & -self.count, self.held)
        at = self.count % self.held
        if at == 0:
            self._future = self._ahead(k, k).contiguous()
        else:
            self._future[:, at : at + k] += self._ahead(k, k)


ONLINE: dict[str, type[Online]] = {one.name: one for one in (Direct, Epoched, Quasilinear)}
"""The online sums by name."""
