"""A soft window over a text that is given, around any StepCell."""

import math
from collections import namedtuple
from collections.abc import Mapping
from functools import cache
from typing import Any, Literal

import torch
from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, Place, StepCell, Tap, Weights
from unrolled.cells.gated.gru import GRUConfig
from unrolled.cells.gated.lstm import LSTMConfig
from unrolled.core.errors import UsageError

__all__ = ["GaussianWindow", "GaussianWindowConfig"]

_OWN = ("kappa", "window", "text")


class GaussianWindowConfig(CellConfig):
    """Options of the window over a text."""

    name: Literal["gaussian_window"] = "gaussian_window"
    cell: SerializeAsAny[CellConfig] = Field(default=LSTMConfig(), description="the StepCell that is wrapped")
    gaussians: int = Field(default=10, ge=1, le=1 << 10, description="Gaussians K that the window is made of")
    symbols: int = Field(default=5, ge=1, le=1 << 12, description="letters A of the alphabet")
    length: int = Field(default=16, ge=1, le=1 << 12, description="letters U of the longest text")
    start: float = Field(
        default=-2.0, ge=-50, le=10, description="initial bias of the step of kappa, whose exponential it is"
    )

    @field_validator("cell", mode="before")
    @classmethod
    def _cell(cls, value: Any, info: ValidationInfo) -> Any:
        from unrolled.cells import CELLS

        config = CELLS.parse(value)
        name = str(getattr(config, "name", None))
        if name in CELLS and not issubclass(CELLS[name], StepCell):
            raise UsageError(f"a window over a text needs a StepCell (a cell with a step), which {name!r} is not.")
        return config


@cache
def _state(fields: tuple[str, ...]) -> Any:
    """The state of the wrapped cell with those of the window behind it."""
    if odd := set(fields) & set(_OWN):
        raise UsageError(f"a window over a text cannot wrap a cell whose state has {min(odd)}; take another cell.")
    return namedtuple("WindowState", (*fields, *_OWN))  # its fields are those of any cell


class GaussianWindow(StepCell):
    r"""Soft window (Graves 2013, equations 46 to 51): beside x the cell reads a stretch of a text, along which it goes.

    .. math::
        y_t &= \mathrm{cell}([x_t; w_{t-1}], s_{t-1}), \quad
        (\hat\alpha_t, \hat\beta_t, \hat\kappa_t) = W y_t + b \\
        \kappa_t &= \kappa_{t-1} + \exp \hat\kappa_t, \quad
        \phi(t, u) = \sum_k \exp \hat\alpha^k_t \exp(-\exp \hat\beta^k_t \, (\kappa^k_t - u)^2) \\
        w_t &= \sum_{u=1}^U \phi(t, u) \, c_u

    The output is [y; w]; in a stack of kind ``skip`` every layer above reads w. The text c is a part of the state, one
    vector of the alphabet's size for each of U places, and stays as it is; :meth:`with_text` puts one there. Without
    one w is zero. kappa begins at 0 and never falls. The bias of its step begins at ``start``, that
    of alpha at -log K, so that one letter weighs about one.

    Parameters: those of the wrapped cell with an input of I + A, and 3K(N + 1), N being the width of its output.
    """

    Config = GaussianWindowConfig
    State = tuple  # that of the wrapped cell, with kappa (K), window (A) and text (UA)
    EXAMPLES = (
        GaussianWindowConfig(gaussians=2, symbols=3, length=4),
        GaussianWindowConfig(gaussians=1, symbols=2, length=1, cell=GRUConfig(), start=0.0),
        GaussianWindowConfig(gaussians=3, symbols=1, length=3, cell=LSTMConfig(projection=3)),
    )
    EQUATION = "y = cell([x; w]); kappa += exp(.); w = sum phi(u) c(u)"

    def __init__(self, in_width: int, width: int, config: GaussianWindowConfig):
        from unrolled.cells import CELLS

        super().__init__(in_width, width, config)
        self.cell: StepCell = CELLS[config.cell.name](in_width + config.symbols, width, config.cell)
        self.recurrent_weights = tuple(f"cell.{name}" for name in self.cell.recurrent_weights)
        self.parameter_rules = {f"cell.{name}": rule for name, rule in self.cell.parameter_rules.items()}
        self.along = nn.Parameter(torch.empty(3 * config.gaussians, self.cell.out_width))
        self.along_bias = nn.Parameter(torch.empty(3 * config.gaussians))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the window's weights anew (the wrapped cell draws its own)."""
        bound = self.cell.out_width**-0.5
        with torch.no_grad():
            self.along.uniform_(-bound, bound)
            self.along_bias.zero_()
            self.along_bias[: self.config.gaussians] = -math.log(self.config.gaussians)
            self.along_bias[2 * self.config.gaussians :] = self.config.start

    def effective_weights(self) -> Mapping[str, Tensor]:
        """Own parameters, and the wrapped cell's effective weights under ``cell.``."""
        own = {name: p for name, p in self.named_parameters() if not name.startswith("cell.")}
        return own | {f"cell.{name}": w for name, w in self.cell.effective_weights().items()}

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """That of the wrapped cell, kappa and w of zero, and no text."""
        inner, config = self.cell.initial_state(batch, device, dtype), self.config
        sizes = config.gaussians, config.symbols, config.symbols * config.length
        zeros = (torch.zeros(batch, size, device=device, dtype=dtype) for size in sizes)
        return _state(inner._fields)(*inner, *zeros)

    def with_text(self, state: Any, ids: Tensor) -> Any:
        """A state whose rows are to write texts.

        Args:
            ids: (batch, up to U) letters from 0; -1 behind the end of a shorter text.
        Raises:
            UsageError: a text longer than U.
        """
        config = self.config
        if ids.shape[1] > config.length:
            raise UsageError(
                f"a text of {ids.shape[1]} letters is longer than the model's {config.length}; write a shorter one."
            )
        text = state.text.new_zeros(len(ids), config.length, config.symbols)
        known = (ids.unsqueeze(-1) == torch.arange(config.symbols, device=ids.device)).to(text)
        text[:, : ids.shape[1]] = known
        return state._replace(text=text.flatten(1))

    def project(self, x: Tensor, w: Weights) -> Tensor:
        """x itself: the window beside it is known step by step."""
        return x

    def step(self, pre: Tensor, state: Any, w: Weights, tap: Tap) -> tuple[Tensor, Any]:
        """The wrapped cell's project and step, then the window's; phi of U + 1 places is tapped."""
        config, scope = self.config, w.scope("cell")
        inner = type(self.cell.initial_state(1, "meta"))(*state[: -len(_OWN)])
        y, after = self.cell.step(self.cell.project(torch.cat([pre, state.window], -1), scope), inner, scope, tap)
        alpha, beta, forward = w.linear("along", y, w["along_bias"]).chunk(3, -1)
        kappa = state.kappa + torch.exp(forward)
        places = torch.arange(1, config.length + 2, device=pre.device, dtype=pre.dtype)
        away = (kappa.unsqueeze(-1) - places).square()
        phi = (torch.exp(alpha).unsqueeze(-1) * torch.exp(-torch.exp(beta).unsqueeze(-1) * away)).sum(1)
        text = state.text.unflatten(-1, (config.length, config.symbols))
        window = (phi[:, :-1].unsqueeze(-1) * text).sum(1)
        for name, value in (("kappa", kappa), ("phi", phi), ("window", window), ("text", state.text)):
            tap(name, value)
        return torch.cat([y, window], -1), _state(after._fields)(*after, kappa, window, state.text)

    def take_place(self, place: Place) -> None:
        """The wrapped cell stands there too."""
        super().take_place(place)
        self.cell.take_place(place)

    @classmethod
    def make_shared(cls, config: Any, in_width: int, width: int, count: int) -> nn.Module | None:
        """What the wrapped cells share."""
        from unrolled.cells import CELLS

        return CELLS[config.cell.name].make_shared(config.cell, in_width + config.symbols, width, count)

    @classmethod
    def passes(cls, config: Any) -> int:
        """The window."""
        return config.symbols

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """That of the wrapped cell."""
        from unrolled.cells import CELLS

        return CELLS[config.cell.name].width_multiple(config.cell)

    @classmethod
    def output_width(cls, config: Any, width: int) -> int:
        """That of the wrapped cell, + A."""
        from unrolled.cells import CELLS

        return CELLS[config.cell.name].output_width(config.cell, width) + config.symbols

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """The wrapped cell's with an input of I + A, + 3K(N + 1)."""
        inner, out = cls._inner(config, width)
        return inner.num_params(config.cell, in_width + config.symbols, width) + 3 * config.gaussians * (out + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """The wrapped cell's with an input of I + A, + 6KN."""
        inner, out = cls._inner(config, width)
        return inner.flops_per_token(config.cell, in_width + config.symbols, width) + 6 * config.gaussians * out

    @classmethod
    def _inner(cls, config: Any, width: int) -> tuple[type[StepCell], int]:
        from unrolled.cells import CELLS

        inner = CELLS[config.cell.name]
        return inner, inner.output_width(config.cell, width)
