"""Adaptive computation time around any StepCell."""

from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, Noise, Place, StepCell, Tap, Weights
from unrolled.cells.gated.gru import GRUConfig
from unrolled.cells.gated.lstm import LSTMConfig
from unrolled.cells.gated.rnn import RNNConfig
from unrolled.cells.mixer import Given, MixerCell
from unrolled.core.errors import UsageError
from unrolled.core.tree import leaves, map_tree
from unrolled.kernels.cell_loop import cell_loop, silent

__all__ = ["ACT", "ACTConfig"]


class ACTConfig(CellConfig):
    """Options of adaptive computation time."""

    name: Literal["act"] = "act"
    cell: SerializeAsAny[CellConfig] = Field(default=LSTMConfig(), description="the StepCell that is repeated")
    cap: int = Field(default=8, ge=1, le=1000, description="most steps for one token")
    epsilon: float = Field(default=0.01, gt=0, lt=1, description="a token is done once its halting weights reach 1 - ε")
    halt_bias: float = Field(default=1.0, ge=-1e4, le=1e4, description="initial bias of the halting unit")

    @field_validator("cell", mode="before")
    @classmethod
    def _cell(cls, value: Any, info: ValidationInfo) -> Any:
        from unrolled.cells import CELLS

        config = CELLS.parse(value)
        name = str(getattr(config, "name", None))
        if name in CELLS and not issubclass(CELLS[name], StepCell):
            raise UsageError(
                f"adaptive computation time repeats a StepCell (a cell with a step), which {name!r} is not."
            )
        return config


class _Loop(StepCell):
    """The recurrence; its output has one column more, the steps of each token with what was left over."""

    State = tuple  # that of the repeated cell

    def __init__(self, in_width: int, width: int, config: ACTConfig):
        from unrolled.cells import CELLS

        super().__init__(in_width, width, config)
        # the cell sees beside x whether this is the token's first step
        self.cell: StepCell = CELLS[config.cell.name](in_width + 1, width, config.cell)
        size = self.cell.initial_state(1, "meta").h.shape[-1]
        self.halt = nn.Parameter(torch.empty(1, size))
        self.halt_bias = nn.Parameter(torch.empty(1))
        bound = size**-0.5
        nn.init.uniform_(self.halt, -bound, bound)
        nn.init.constant_(self.halt_bias, config.halt_bias)

    def effective_weights(self) -> Mapping[str, Tensor]:
        """Own parameters, and the repeated cell's effective weights under ``cell.``."""
        own = {name: p for name, p in self.named_parameters() if not name.startswith("cell.")}
        return own | {f"cell.{name}": w for name, w in self.cell.effective_weights().items()}

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """That of the repeated cell."""
        return self.cell.initial_state(batch, device, dtype)

    def project(self, x: Tensor, w: Weights) -> Any:
        """The repeated cell's projections of [x; 1], for a first step, and of [x; 0], for later ones."""
        inner = w.scope("cell")
        flag = torch.ones_like(x[..., :1])
        first = self.cell.project(torch.cat([x, flag], -1), inner)
        if self.config.cap == 1:
            return (first,)
        return first, self.cell.project(torch.cat([x, torch.zeros_like(flag)], -1), inner)

    def step(self, pre: Any, state: Any, w: Weights, tap: Tap) -> tuple[Tensor, Any]:
        """Steps of the repeated cell until every row is done."""
        inner, enough = w.scope("cell"), 1 - self.config.epsilon
        reached = leaves(state)[0].new_zeros(leaves(state)[0].shape[0], 1)
        cost, running, means = torch.zeros_like(reached), torch.ones_like(reached, dtype=torch.bool), None
        for n in range(1, self.config.cap + 1):
            y, state = self.cell.step(pre[min(n, 2) - 1], state, inner, silent)
            h = torch.sigmoid(w.linear("halt", state.h) + w["halt_bias"])
            done = running & (reached + h >= enough) if n < self.config.cap else running
            left = 1 - reached
            # a row that is done has no part in what is computed further
            share = torch.where(done, left, h * running)
            cost = cost + (n + left) * done
            found = map_tree(lambda part, share=share: _times(share, part), (y, state))
            means = found if means is None else map_tree(torch.add, means, found)
            running = running & ~done
            reached = reached + h * running
            if not bool(running.any()):
                break
        assert means is not None
        return torch.cat([means[0], cost], -1), means[1]


class ACT(MixerCell):
    r"""Adaptive computation time (Graves 2016): a cell takes as many steps for a token as its halting unit wants.

    For the token x_t, from the state s^0 = s_{t-1}, with n = 1, 2, …:

    .. math::
        y^n, s^n &= \mathrm{cell}([x_t; 1_{n=1}], s^{n-1}), \quad h^n = \sigma(w \cdot s^n_h + b) \\
        N &= \min\{n : h^1 + \dots + h^n \ge 1 - \epsilon\}, \quad R = 1 - (h^1 + \dots + h^{N-1}) \\
        p^n &= h^n \ (n < N), \quad p^N = R, \qquad y_t = \sum_n p^n y^n, \quad s_t = \sum_n p^n s^n

    N is at most ``cap``; a batch goes on until all of its rows are done, and what a row is computed after that has
    weight zero. All fields of the state are averaged. N + R of each token is the cost, which the cell hands up:
    ``train.objective.cost`` is τ times its mean over the window's tokens (the paper: the sum over a sequence), and N
    has no gradient. With ``cap`` 1 it is the wrapped cell on [x; 1]. The bias b starts at 1, as published, w as a
    linear layer. Layers of one model add their costs up.

    Parameters: those of the wrapped cell with an input of I + 1, and N + 1 of the halting unit, N being the width of
    its h.
    """

    Config = ACTConfig
    State = tuple  # that of the wrapped cell
    EXAMPLES = (
        ACTConfig(cap=3, halt_bias=-2.0),
        ACTConfig(cap=2, epsilon=0.001, cell=GRUConfig()),
        ACTConfig(cap=1, cell=RNNConfig()),
    )
    no_graph = "it takes as many steps for a token as its halting unit wants"
    EQUATION = "y = sum of p_n y_n over n steps of the wrapped cell, p from a halting unit"
    operation = "cell_loop"
    hands = ("cost",)

    def __init__(self, in_width: int, width: int, config: ACTConfig):
        super().__init__(in_width, width, config)
        self.loop = _Loop(in_width, width, config)
        inner = self.loop.cell
        self.recurrent_weights = tuple(f"loop.cell.{name}" for name in inner.recurrent_weights)
        self.parameter_rules = {f"loop.cell.{name}": rule for name, rule in inner.parameter_rules.items()}
        self.zoneout_fields = tuple(inner.zoneout_fields)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """That of the wrapped cell."""
        return self.loop.initial_state(batch, device, dtype)

    def backends(self) -> list[str]:
        """Those of ``cell_loop``."""
        return self.loop.backends()

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        """One window of the class's equations."""
        self.loop.compute = self.compute
        noise = Noise(zoneout=given.zoneout) if given.zoneout else None
        y, last = cell_loop(self.loop, x, state, given.reset, noise)
        y, cost = y.split([self.out_width, 1], -1)
        if given.show is not None:
            given.show("cost", cost)
        below = given.handed.get("cost")
        given.handed["cost"] = cost if below is None else below + cost
        return y, last

    def take_place(self, place: Place) -> None:
        """The wrapped cell stands there too."""
        super().take_place(place)
        self.loop.cell.take_place(place)

    @classmethod
    def make_shared(cls, config: Any, in_width: int, width: int, count: int) -> nn.Module | None:
        """What the wrapped cells share."""
        return _inner(config).make_shared(config.cell, in_width + 1, width, count)

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """That of the wrapped cell."""
        return _inner(config).width_multiple(config.cell)

    @classmethod
    def output_width(cls, config: Any, width: int) -> int:
        """That of the wrapped cell."""
        return _inner(config).output_width(config.cell, width)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """The wrapped cell's for an input one wider, + N + 1."""
        return _inner(config).num_params(config.cell, in_width + 1, width) + cls.output_width(config, width) + 1

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """At most: of ``cap`` steps, whose products of the input are made for a first and a later one."""
        wide, narrow = (_inner(config).flops_per_token(config.cell, n, width) for n in (in_width + 1, 0))
        once = wide - narrow
        return min(config.cap, 2) * once + config.cap * (narrow + 2 * cls.output_width(config, width))


def _times(share: Tensor, part: Tensor) -> Tensor:
    """A share (batch, 1) of a tensor (batch, ...)."""
    return share.view(-1, *[1] * (part.dim() - 1)) * part


def _inner(config: Any) -> Any:
    from unrolled.cells import CELLS

    return CELLS[config.cell.name]
