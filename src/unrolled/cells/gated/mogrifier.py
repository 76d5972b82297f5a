"""Mogrifier rounds around any StepCell."""

import math
from collections.abc import Mapping
from typing import Any, Literal

import torch
from pydantic import Field, SerializeAsAny, ValidationInfo, field_validator, model_validator
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, Place, StepCell, Tap, Weights
from unrolled.cells.gated.gru import GRUConfig
from unrolled.cells.gated.lstm import LSTMConfig
from unrolled.cells.init import fill_matrix, truncated_normal
from unrolled.cells.multiplicative.mgru import MGRUConfig
from unrolled.cells.multiplicative.mlstm import MLSTMConfig
from unrolled.core.errors import UsageError

__all__ = ["Mogrifier", "MogrifierConfig"]


class MogrifierConfig(CellConfig):
    """Options of the Mogrifier wrapper."""

    name: Literal["mogrifier"] = "mogrifier"
    cell: SerializeAsAny[CellConfig] = Field(
        default=LSTMConfig(cap_input_gate=True, init="truncated_normal"), description="the StepCell that is wrapped"
    )
    rounds: int = Field(default=5, ge=0, le=1024, description="rounds r; odd ones gate x by h, even ones h by x")
    rank: int | None = Field(
        default=None, ge=1, le=1 << 20, description="rank k of the rounds' matrices (absent: dense)"
    )
    init: Literal["truncated_normal", "variance_scaling"] = Field(
        default="truncated_normal",
        description="initialisation of dense rounds; the published code's is variance_scaling, for the LSTM too",
    )

    @model_validator(mode="after")
    def _dense_init(self) -> "MogrifierConfig":
        if self.rank is not None and self.init != "truncated_normal":
            raise UsageError("rounds of low rank have one initialisation only; leave out init, or rank.")
        return self

    @field_validator("cell", mode="before")
    @classmethod
    def _cell(cls, value: Any, info: ValidationInfo) -> Any:
        from unrolled.cells import CELLS

        config = CELLS.parse(value)
        name = str(getattr(config, "name", None))
        if name in CELLS and not issubclass(CELLS[name], StepCell):
            raise UsageError(f"Mogrifier rounds need a StepCell (a cell with a step), which {name!r} is not.")
        return config


class Mogrifier(StepCell):
    r"""Mogrifier (Melis, Kočiský and Blunsom 2020): x and h gate each other before the wrapped cell's step.

    With x⁻¹ = x_t and h⁰ = h_{t-1}, for i = 1 … r:

    .. math::
        x^i &= 2\sigma(Q^i h^{i-1} + b^i) \odot x^{i-2} \quad (i \text{ odd}) \\
        h^i &= 2\sigma(R^i x^{i-1} + b^i) \odot h^{i-2} \quad (i \text{ even})

    and the last x and h enter the wrapped cell; its other state fields are untouched. ``rank`` k factors each matrix
    as A B through k dimensions. As in the authors' code each round has a bias, which the paper's equation leaves out.
    Biases start at zero, low-rank factors truncated normal with deviation sqrt(sqrt(1/(fan_in k))), as in that code.
    Its dense rounds and its LSTM are drawn with ``init = "variance_scaling"``: truncated normal with the variance
    1/fan_in after truncation; the default leaves out the correction by 1.3. The paper's cell is the LSTM with
    capped input gate, the default here. A mask on h (``state_in``) acts before the rounds, as there. Parameters per
    round: source x target + target, or k(I + N) + target.
    """

    Config = MogrifierConfig
    State = tuple  # that of the wrapped cell
    EXAMPLES = (
        MogrifierConfig(),
        MogrifierConfig(rounds=4, rank=2),
        MogrifierConfig(rounds=1, cell=LSTMConfig(projection=3)),
        MogrifierConfig(rounds=3, rank=3, cell=GRUConfig()),
        MogrifierConfig(
            rounds=2, init="variance_scaling", cell=LSTMConfig(cap_input_gate=True, init="variance_scaling")
        ),
        MogrifierConfig(rounds=2, rank=3, cell=MLSTMConfig(factor=3)),
        MogrifierConfig(rounds=3, cell=MGRUConfig(factor=3)),
    )
    EQUATION = "x = 2s(Q h)*x; h = 2s(R x)*h; r rounds, then the wrapped cell"

    def __init__(self, in_width: int, width: int, config: MogrifierConfig):
        from unrolled.cells import CELLS

        super().__init__(in_width, width, config)
        self.cell: StepCell = CELLS[config.cell.name](in_width, width, config.cell)
        self.recurrent_weights = tuple(f"cell.{name}" for name in self.cell.recurrent_weights)
        self.parameter_rules = {f"cell.{name}": rule for name, rule in self.cell.parameter_rules.items()}
        for i in range(1, config.rounds + 1):
            source, target = self._sizes(i, in_width, self.out_width)
            if config.rank is None:
                self.register_parameter(f"round{i}", nn.Parameter(torch.empty(target, source)))
            else:
                self.register_parameter(f"round{i}_in", nn.Parameter(torch.empty(config.rank, source)))
                self.register_parameter(f"round{i}_out", nn.Parameter(torch.empty(target, config.rank)))
            self.register_parameter(f"round{i}_bias", nn.Parameter(torch.zeros(target)))
        self.reset_parameters()

    @staticmethod
    def _sizes(i: int, in_width: int, out_width: int) -> tuple[int, int]:
        """(source, target) of round i: odd rounds go from h to x."""
        return (out_width, in_width) if i % 2 else (in_width, out_width)

    def reset_parameters(self) -> None:
        """Draw the rounds' weights anew (the wrapped cell draws its own)."""
        if next(self.parameters()).is_meta:
            return
        rank = self.config.rank
        for i in range(1, self.config.rounds + 1):
            source, _ = self._sizes(i, self.in_width, self.out_width)
            with torch.no_grad():
                if rank is None:
                    fill_matrix(self.get_parameter(f"round{i}"), self.config.init, self.width)
                else:
                    std = math.sqrt(math.sqrt(1 / source / rank))
                    truncated_normal(self.get_parameter(f"round{i}_in"), std)
                    truncated_normal(self.get_parameter(f"round{i}_out"), std)
                self.get_parameter(f"round{i}_bias").zero_()

    def effective_weights(self) -> Mapping[str, Tensor]:
        """Own parameters, and the wrapped cell's effective weights under ``cell.``."""
        own = {name: p for name, p in self.named_parameters() if not name.startswith("cell.")}
        return own | {f"cell.{name}": w for name, w in self.cell.effective_weights().items()}

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """That of the wrapped cell."""
        return self.cell.initial_state(batch, device, dtype)

    def project(self, x: Tensor, w: Weights) -> Tensor:
        """x itself: the rounds change it at every step, so no input product can be hoisted."""
        return x

    def step(self, pre: Tensor, state: Any, w: Weights, tap: Tap) -> tuple[Tensor, Any]:
        """The rounds, then the wrapped cell's project and step."""
        x, h = pre, state.h
        for i in range(1, self.config.rounds + 1):
            source = h if i % 2 else x
            bias = w[f"round{i}_bias"]
            if self.config.rank is None:
                gate = w.linear(f"round{i}", source, bias)
            else:
                gate = w.linear(f"round{i}_out", w.linear(f"round{i}_in", source), bias)
            tap(f"round{i}_pre", gate)
            gate = 2 * torch.sigmoid(gate)
            tap(f"round{i}", gate)
            if i % 2:
                x = gate * x
                tap(f"x{i}", x)
            else:
                h = gate * h
                tap(f"h{i}", h)
        inner = w.scope("cell")
        return self.cell.step(self.cell.project(x, inner), state._replace(h=h), inner, tap)

    def take_place(self, place: Place) -> None:
        """The wrapped cell stands there too."""
        super().take_place(place)
        self.cell.take_place(place)

    @classmethod
    def make_shared(cls, config: Any, in_width: int, width: int, count: int) -> nn.Module | None:
        """What the wrapped cells share."""
        from unrolled.cells import CELLS

        return CELLS[config.cell.name].make_shared(config.cell, in_width, width, count)

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """That of the wrapped cell."""
        from unrolled.cells import CELLS

        return CELLS[config.cell.name].width_multiple(config.cell)

    @classmethod
    def output_width(cls, config: Any, width: int) -> int:
        """That of the wrapped cell."""
        from unrolled.cells import CELLS

        return CELLS[config.cell.name].output_width(config.cell, width)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """The wrapped cell's, + per round source x target + target (or k(source + target) + target)."""
        count, matrices = cls._inner(config, in_width, width, "num_params")
        return count + sum(size + target for size, target in matrices)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """The wrapped cell's, + twice the size of the rounds' matrices."""
        count, matrices = cls._inner(config, in_width, width, "flops_per_token")
        return count + sum(2 * size for size, _ in matrices)

    @classmethod
    def _inner(cls, config: Any, in_width: int, width: int, what: str) -> tuple[int, list[tuple[int, int]]]:
        """The wrapped cell's count, and (matrix size, target) of each round."""
        from unrolled.cells import CELLS

        inner = CELLS[config.cell.name]
        out = inner.output_width(config.cell, width)
        sizes = [cls._sizes(i, in_width, out) for i in range(1, config.rounds + 1)]
        rank = config.rank
        matrices = [(s * t if rank is None else rank * (s + t), t) for s, t in sizes]
        return getattr(inner, what)(config.cell, in_width, width), matrices
