"""What cells of convolutions with a matrix at each tap share."""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from unrolled.cells.mixer import Given, MixerCell
from unrolled.kernels.causal_conv import cache_after, causal_conv, reach_of
from unrolled.kernels.causal_conv.reference import lagged

__all__ = ["CausalMap", "ConvCell", "ConvState"]


class ConvState(NamedTuple):
    """conv: (batch, numbers), the last inputs of the cell's convolutions side by side."""

    conv: Tensor


class CausalMap(nn.Module):
    """Parameters of y(t) = bias + sum over taps of W(tap) x(t - lag): ``weight`` (out, in, kernel), whose last tap is
    that of the newest input, ``bias`` (out,), and ``gain`` (out,) where the weight is normalised.

    Normalised (Salimans and Kingma 2016) each output's numbers are gain V / norm(V), over inputs and taps. A gain
    starts at the norm, so that the start is unchanged.
    """

    def __init__(self, in_width: int, out_width: int, kernel: int, weight_norm: bool, bias: bool = True):
        super().__init__()
        self.kernel = kernel
        self.weight = nn.Parameter(torch.empty(out_width, in_width, kernel))
        self.bias = nn.Parameter(torch.empty(out_width)) if bias else None
        self.gain = nn.Parameter(torch.empty(out_width)) if weight_norm else None

    def fill(self, deviation: float | None = None) -> None:
        """Draw the weights anew: as ``torch.nn.Conv1d``, or normal with that deviation and without a bias."""
        if self.weight.is_meta:
            return
        fan_in = self.weight[0].numel()
        if deviation is None:
            nn.init.uniform_(self.weight, -(fan_in**-0.5), fan_in**-0.5)
        else:
            nn.init.normal_(self.weight, 0, deviation)
        if self.bias is not None:
            bound = 0.0 if deviation is not None else fan_in**-0.5
            nn.init.uniform_(self.bias, -bound, bound)
        if self.gain is not None:
            with torch.no_grad():
                self.gain.copy_(self.weight.flatten(1).norm(dim=1))

    def effective(self) -> Tensor:
        """The weight, normalised where it is."""
        if self.gain is None:
            return self.weight
        norm = self.weight.flatten(1).norm(dim=1)
        return self.weight * (self.gain / norm).view(-1, 1, 1)

    @staticmethod
    def num_params(in_width: int, out_width: int, kernel: int, weight_norm: bool) -> int:
        """out (in kernel + 1), and out with gains."""
        return out_width * (in_width * kernel + 1 + weight_norm)


class ConvCell(MixerCell):
    """A cell of :class:`CausalMap` convolutions. Prepared for decoding, each is one product with a packed matrix of all
    taps, which a weight norm is put into once.
    """

    operation = "causal_conv"
    State = ConvState
    _matrices: dict[int, Tensor] | None = None

    def backends(self) -> list[str]:
        """Those that have matrices at the taps."""
        return ["torch", "reference"]

    def settled(self) -> MixerCell:
        """Each convolution's matrix of all taps is made when it is first asked for."""
        made: Any = super().settled()
        made._matrices = {}
        return made

    def convolve(
        self, conv: CausalMap, x: Tensor, cache: Tensor, given: Given, dilation: int = 1
    ) -> tuple[Tensor, Tensor]:
        """One convolution of the window.

        Args:
            x: (batch, time, in). cache: (batch, (kernel - 1) * dilation, in).
        Returns:
            (batch, time, out) and the cache after the window.
        """
        if self._matrices is not None and self.packed is not None:
            if id(conv) not in self._matrices:
                self._matrices[id(conv)] = conv.effective().detach().transpose(1, 2).flatten(1).contiguous()
            reach = None if given.reset is None else reach_of(given.reset, cache.shape[1])
            side = torch.cat(list(lagged(x, conv.kernel, cache, reach, dilation)), -1)
            y = self.packed(side, self._matrices[id(conv)], conv.bias)
            if y is not None:
                return y, cache_after(cache, x, reach)
        return causal_conv(
            x, conv.effective(), conv.bias, cache, given.reset, dilation, precision=self.compute.precision,
            backend=self.wish, subject=self.name,
        )  # fmt: skip
