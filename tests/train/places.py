"""Cells that use their place in a stack: a rule for the optimiser, a table shared by layers, a value handed upwards."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from unrolled.cells import CellConfig, Given, MixerCell, ParameterRule, Place, StepCell
from unrolled.cells.base import HiddenState
from unrolled.kernels.diag_scan import diag_scan

__all__ = ["PLACED", "Hander", "Leaky", "Sharer"]


class LeakyConfig(CellConfig):
    name: Literal["leaky"] = "leaky"


class Leaky(StepCell):
    """h = s(rate) h + W x, whose rates are trained in a way of their own."""

    Config, State, EXAMPLES = LeakyConfig, HiddenState, (LeakyConfig(),)
    EQUATION = "h = s(r)*h + W x"
    parameter_rules = {"rate": ParameterRule(decay=False, rate=0.5, drawn=False)}

    def __init__(self, in_width: int, width: int, config: LeakyConfig):
        super().__init__(in_width, width, config)
        self.weight = nn.Parameter(torch.randn(width, in_width) * 0.3)
        self.rate = nn.Parameter(torch.ones(width))

    def project(self, x: Tensor, w: Any) -> Tensor:
        return w.linear("weight", x)

    def step(self, pre: Tensor, state: Any, w: Any, tap: Any) -> tuple[Tensor, Any]:
        h = torch.sigmoid(w["rate"]) * state.h + pre
        return h, HiddenState(h)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        return 2 * width * in_width


class SharerConfig(CellConfig):
    name: Literal["sharer"] = "sharer"


class _Table(nn.Module):
    def __init__(self, count: int, width: int):
        super().__init__()
        self.rows = nn.Parameter(torch.zeros(count, width))


class Sharer(StepCell):
    """h = b h + W x with bounds b that grow from layer to layer: row by row of one table (as HGRN's do)."""

    Config, State, EXAMPLES = SharerConfig, HiddenState, (SharerConfig(),)
    EQUATION = "h = b*h + W x"

    def __init__(self, in_width: int, width: int, config: SharerConfig):
        super().__init__(in_width, width, config)
        self.weight = nn.Parameter(torch.randn(width, in_width) * 0.3)
        self.table = _Table(1, width)

    @classmethod
    def make_shared(cls, config: Any, in_width: int, width: int, count: int) -> nn.Module:
        return _Table(count, width)

    def take_place(self, place: Place) -> None:
        super().take_place(place)
        assert isinstance(place.shared, _Table)
        self.table = place.shared

    def effective_weights(self) -> dict[str, Tensor]:
        shares = torch.softmax(self.table.rows, 0).cumsum(0)
        return {"weight": self.weight, "bound": shares[self.place.index] * 0.9}

    def project(self, x: Tensor, w: Any) -> Tensor:
        return w.linear("weight", x)

    def step(self, pre: Tensor, state: Any, w: Any, tap: Any) -> tuple[Tensor, Any]:
        h = w["bound"] * state.h + pre
        return h, HiddenState(h)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        return 2 * width * in_width


class HanderConfig(CellConfig):
    name: Literal["hander"] = "hander"


class Hander(MixerCell):
    """A leaky scan whose first layer hands its values to those above, who mix them in (as RWKV-7's do)."""

    Config, State, EXAMPLES = HanderConfig, HiddenState, (HanderConfig(),)
    EQUATION = "h = 0.5 h + v; v = (v + first v)/2 above the first layer"
    operation = "diag_scan"
    hands = ("first",)

    def __init__(self, in_width: int, width: int, config: HanderConfig):
        super().__init__(in_width, width, config)
        self.weight = nn.Parameter(torch.randn(width, in_width) * 0.3)

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        v = self.linear("weight", x)
        if "first" in given.handed:
            v = (v + given.handed["first"]) / 2
        else:
            given.handed["first"] = v
        h, last = diag_scan(v.new_full((self.width,), 0.5), v, state.h, given.reset, backend=self.wish)
        return h, HiddenState(last)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        return 2 * width * in_width


PLACED = {"leaky": Leaky, "sharer": Sharer, "hander": Hander}
