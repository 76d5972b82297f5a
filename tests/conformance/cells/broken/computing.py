"""Cells broken in how they are computed."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from unrolled.cells.base import HiddenState
from unrolled.cells.scan.qrnn import QRNN, QRNNConfig
from unrolled.kernels.cell_loop.weights import CollectingWeights

from .base import RightLSTM, RightRNN

__all__ = [
    "CachesWeights",
    "CopiesItsOutput",
    "DropsNothingInside",
    "IgnoresNoise",
    "IgnoresPrecision",
    "IgnoresZoneout",
    "LosesDigits",
    "NamesNoParameter",
    "OtherGradientWhenCollecting",
    "OtherNumbersWhenCollecting",
    "ProjectsTogether",
    "RatesForMasks",
    "SwallowsNoise",
    "TakesAnySite",
    "WrongGradient",
]


class OtherNumbersWhenCollecting(RightRNN):
    def step(self, pre, state, w, tap):
        h = super().step(pre, state, w, tap)[0]
        h = h * 1.0001 if isinstance(w, CollectingWeights) else h
        return h, HiddenState(h)


class OtherGradientWhenCollecting(RightRNN):
    def step(self, pre, state, w, tap):
        if isinstance(w, CollectingWeights):
            state = HiddenState(state.h.detach())
        return super().step(pre, state, w, tap)


class WrongGradient(RightRNN):
    def step(self, pre, state, w, tap):
        h = super().step(pre, state, w, tap)[0] + 0.1 * state.h.detach()
        return h, HiddenState(h)


class IgnoresNoise(RightLSTM):
    def call(self, x, state, reset, noise, tap):
        return super().call(x, state, reset, None, tap)


class CopiesItsOutput(RightRNN):
    """The masks on h cannot reach an output that is another tensor."""

    def step(self, pre, state, w, tap):
        h = super().step(pre, state, w, tap)[0]
        return h.clone(), HiddenState(h)


class IgnoresZoneout(RightLSTM):
    def call(self, x, state, reset, noise, tap):
        return super().call(x, state, reset, None if noise is None else noise._replace(zoneout=None), tap)


class RatesForMasks(RightLSTM):
    def call(self, x, state, reset, noise, tap):
        if noise is not None and noise.state_in is not None:
            noise = noise._replace(state_in=1 - noise.state_in)
        return super().call(x, state, reset, noise, tap)


class CachesWeights(RightRNN):
    def effective_weights(self) -> Mapping[str, Tensor]:
        if not hasattr(self, "cache"):
            self.cache = dict(super().effective_weights())
        return self.cache


class NamesNoParameter(RightRNN):
    recurrent_weights = ("weight_recurrent",)


class LosesDigits(RightRNN):
    def step(self, pre, state, w, tap):
        h = super().step(pre, state, w, tap)[0]
        if self.compute.precision == "bf16":
            h = (h + 64).bfloat16().to(h.dtype) - 64
        return h, HiddenState(h)


class IgnoresPrecision(RightRNN):
    def project(self, x, w):
        return nn.functional.linear(x, w["weight_ih"], w["bias"])

    def step(self, pre, state, w, tap):
        h = torch.tanh(pre + state.h @ w["weight_hh"].t())
        return h, HiddenState(h)


class SwallowsNoise(QRNN):
    """Neither takes nor refuses masks on the state that it does not have."""

    def __init__(self, in_width: int, width: int):
        super().__init__(in_width, width, QRNNConfig())

    def _zoneout(self, noise):
        return {} if noise is None else {"c": (noise.zoneout or {}).get("c", torch.zeros(()))}


class DropsNothingInside(QRNN):
    """Names a site inside and masks nothing there."""

    inner_sites = {"hidden": 4}

    def __init__(self, in_width: int, width: int):
        super().__init__(in_width, width, QRNNConfig())


class TakesAnySite(DropsNothingInside):
    inner_sites = {}

    def _zoneout(self, noise):
        return super()._zoneout(None if noise is None else noise._replace(inner=None))


class ProjectsTogether(RightRNN):
    def project(self, x, w):
        return super().project(x - x.flatten(0, -2).mean(0), w)
