"""The second-order term of the multiplicative cells: its factors, its readout, and how gates share them."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, StepCell, Tap, Weights
from unrolled.cells.init import Init, fill_matrix, fill_vectors
from unrolled.cells.taps import tap_blocks
from unrolled.core.errors import UsageError

__all__ = ["MultiplicativeCell", "MultiplicativeConfig", "Sharing"]

Sharing = Literal["shared", "per_gate", "shared_recurrent", "shared_input", "block_readout", "direct", "integration"]
"""Which parts of the term all gates have in common; see :class:`MultiplicativeCell`."""

_NO_READOUT = ("direct", "integration")
_GAINS = ("gain_xh", "gain_x", "gain_h")
_Gain = Annotated[float, Field(ge=-1e4, le=1e4)]


class MultiplicativeConfig(CellConfig):
    """Options of the second-order term, the same for every multiplicative cell."""

    sharing: Sharing = Field(
        default="shared",
        description="shared: one m for all gates. per_gate: W_mx, W_mh and m for each. shared_recurrent: W_mh common, "
        "W_mx for each. shared_input: W_mx common, W_mh for each. block_readout: each gate reads a slice of m of its "
        "own. direct: per gate, m is the term itself, without readout. integration: multiplicative integration, the "
        "factors are the first-order products (Wu et al. 2016)",
    )
    product: Literal["multiply", "add"] = Field(
        default="multiply", description="how the factors make m; add is the control without a product: W_mx x + W_mh h"
    )
    factor: int | None = Field(
        default=None,
        ge=1,
        le=1 << 20,
        description="size F of an intermediate state m (absent: the cell's width; block_readout: of all slices)",
    )
    factor_bias: float | None = Field(
        default=None,
        ge=-1e4,
        le=1e4,
        description="initial value of a bias on W_mx x (absent: no bias); 1 makes m start near W_mh h",
    )
    weight_norm: bool = Field(default=False, description="W = g V / |V| per output row on all matrices")
    gains: tuple[_Gain, _Gain, _Gain] | None = Field(
        default=None,
        description="initial alpha, beta1, beta2 of multiplicative integration: gains of (W_x x)*(W_h h), W_x x and "
        "W_h h (absent: ones)",
    )
    init: Init = Field(default="uniform", description="initialisation of the matrices")

    @model_validator(mode="after")
    def _makes_sense(self) -> "MultiplicativeConfig":
        if self.sharing in _NO_READOUT and self.factor is not None:
            raise UsageError(f"sharing = {self.sharing} has no factor, its term is as wide as the cell; leave it out.")
        if self.sharing in _NO_READOUT and self.product == "add":
            raise UsageError(f"a sum with sharing = {self.sharing} is a cell without second-order term; use that cell.")
        if self.sharing == "integration" and self.factor_bias is not None:
            raise UsageError("multiplicative integration has no factor_bias, its third gain does that; set gains.")
        if self.product == "add" and self.factor_bias is not None:
            raise UsageError("a bias on a factor that is only added does what the gates' bias does; drop factor_bias.")
        if self.sharing != "integration" and self.gains is not None:
            raise UsageError("gains belong to sharing = integration; leave them out.")
        return self


class Layout(NamedTuple):
    """Numbers of a term. gates: G. inputs, recurrents: how many W_mx and W_mh, 1 or G. size: of one m."""

    gates: int
    inputs: int
    recurrents: int
    size: int


class MultiplicativeCell(StepCell):
    r"""A cell whose gates' pre-activations hold a second-order term, a product of the input and the last output.

    Gate g of G has the pre-activation W_x^g x + (its term) + b^g, in the order of :attr:`GATES`. The terms, with F the
    factor's size and m^g = (W_mx^g x) ⊙ (W_mh^g h), or their sum where ``product`` is ``add``:

    ==================== ================================================== ======================
    sharing              term                                               parameters of the term
    ==================== ================================================== ======================
    ``shared``           W_m^g m, one m (Krause et al. 2016)                F(I + N) + GNF
    ``per_gate``         W_m^g m^g                                          G[F(I + N) + NF]
    ``shared_recurrent`` W_m^g m^g, one W_mh                                GFI + FN + GNF
    ``shared_input``     W_m^g m^g, one W_mx                                FI + GFN + GNF
    ``block_readout``    W_m^g m[slice g], slices of F/G of one m           F(I + N) + NF
    ``direct``           m^g, F = N                                         GN(I + N)
    ``integration``      (α ⊙ W_x x + β₂) ⊙ W_h h, and β₁ ⊙ W_x x for W_x x GN² + 3GN
    ==================== ================================================== ======================

    ``block_readout`` is ``per_gate`` with factors of F/G, and computed so; it is a strict subset of ``shared``, which
    is one of ``per_gate``: ``shared`` with all but each gate's block of W_m masked, ``per_gate`` with its factors tied.
    ``integration`` is Wu et al. 2016: pre-activation α ⊙ (W_x x) ⊙ (W_h h) + β₁ ⊙ W_x x + β₂ ⊙ W_h h + b, vectors per
    gate. The gains are learned and start as constants, those of ``gains``. Ones are what public implementations start
    from; which constants the paper used for each task is not settled here.

    At the start each gate's part of every matrix is drawn on its own, so that W_mx x and W_mh h have the same variance
    in all forms, and var(m) = var(W_mx x) var(W_mh h) (for ``add`` their sum); one m's factors are drawn slice by slice
    in ``block_readout``. The exception: an ``orthogonal`` W_mh with F > N has orthonormal columns, and var(m) is
    smaller by N/F.

    Weight normalisation: each matrix is g V/norm(V) with the norm per output row (of each block), g starting at the
    norms so that the start is unchanged.
    """

    GATES: tuple[str, ...]

    def __init__(self, in_width: int, width: int, config: Any):
        super().__init__(in_width, width, config)
        self.layout = self._layout(config, width)
        shapes = self._shapes(in_width)
        self.matrices = tuple(shapes)
        for name, shape in shapes.items():
            self.register_parameter(name, nn.Parameter(torch.empty(shape)))
            if config.weight_norm:
                self.register_parameter(f"{name}_gain", nn.Parameter(torch.empty(shape[:-1])))
        rows = self.layout.gates * width
        self.bias = nn.Parameter(torch.empty(rows))
        if config.factor_bias is not None:
            self.bias_mx = nn.Parameter(torch.empty(self.layout.inputs * self.layout.size))
        if config.sharing == "integration":
            for name in _GAINS:
                self.register_parameter(name, nn.Parameter(torch.empty(rows)))
        # a mask on V would change the norm that V is divided by
        recurrent = [name for name in shapes if name not in ("weight_x", "weight_mx")]
        self.recurrent_weights = () if config.weight_norm else tuple(recurrent)
        self.reset_parameters()

    @classmethod
    def gate_count(cls, config: Any) -> int:
        """Number of gates G, the candidate among them."""
        return len(cls.GATES)

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The number of gates, where each of them reads a slice of an m as wide as the cell."""
        return cls.gate_count(config) if config.sharing == "block_readout" and config.factor is None else 1

    @classmethod
    def _layout(cls, config: Any, width: int) -> Layout:
        gates, sharing = cls.gate_count(config), config.sharing
        size = config.factor or width
        if sharing == "block_readout":
            if size % gates:
                raise UsageError(f"sharing = block_readout needs a factor that its {gates} gates divide, not {size}.")
            size //= gates
        inputs = 1 if sharing in ("shared", "shared_input") else gates
        return Layout(gates, inputs, 1 if sharing in ("shared", "shared_recurrent") else gates, size)

    @classmethod
    def apart(cls, config: Any) -> tuple[str, ...]:
        """The matrices of which the last gate's part is one of its own, named ..._n: it multiplies another vector."""
        return ()

    def _parts(self, name: str) -> dict[str, int]:
        """Names of the matrices that make up ``name`` -> gates that each serves."""
        gates = self.layout.gates
        return {name: gates - 1, f"{name}_n": 1} if name in self.apart(self.config) else {name: gates}

    def _shapes(self, in_width: int) -> dict[str, tuple[int, ...]]:
        width, (gates, inputs, recurrents, size) = self.width, self.layout
        shapes: dict[str, tuple[int, ...]] = {"weight_x": (gates * width, in_width)}
        if self.config.sharing != "integration":
            shapes["weight_mx"] = (inputs * size, in_width)
        if recurrents == 1:
            shapes["weight_mh"] = (size, width)
        else:
            for name, count in self._parts("weight_mh").items():
                shapes[name] = (count * size, width)
        if self.config.sharing not in _NO_READOUT:
            for name, count in self._parts("weight_m").items():
                dense = inputs == recurrents == 1 or count == 1
                shapes[name] = (count * width, size) if dense else (count, width, size)
        return shapes

    def reset_parameters(self) -> None:
        """Draw the weights anew; biases zero; gains of normalised matrices at the row norms."""
        config, (_, _, _, size) = self.config, self.layout
        for name in self.matrices:
            weight = self.get_parameter(name)
            rows = size if name.startswith(("weight_mx", "weight_mh")) else self.width
            blocks = weight[..., 0].numel() // rows
            fill_matrix(
                weight.detach().flatten(0, -2), config.init, self.width, blocks, recurrent=not name.endswith("x")
            )
            if config.weight_norm:
                with torch.no_grad():
                    self.get_parameter(f"{name}_gain").copy_(weight.norm(dim=-1))
        fill_vectors([self.bias])
        if config.factor_bias is not None:
            fill_vectors([self.bias_mx], config.factor_bias)
        if config.sharing == "integration":
            for name, value in zip(_GAINS, config.gains or (1.0, 1.0, 1.0), strict=True):
                fill_vectors([self.get_parameter(name)], value)

    def effective_weights(self) -> Mapping[str, Tensor]:
        """The parameters, with the normalised matrices in place of V and g."""
        named: dict[str, Tensor] = dict(self.named_parameters())
        if self.config.weight_norm:
            for name in self.matrices:
                gain = named.pop(f"{name}_gain")
                named[name] = named[name] * (gain / named[name].norm(dim=-1)).unsqueeze(-1)
        return named

    def gate_bias(self, w: Weights) -> Tensor:
        """What is added to the gates' pre-activations, (GN)."""
        return w["bias"]

    def project(self, x: Tensor, w: Weights) -> tuple[Tensor, Tensor]:
        """The first-order part with bias (..., GN) and the input's factor (..., F times the number of W_mx)."""
        if self.config.sharing == "integration":
            first = w.linear("weight_x", x)
            return w["gain_x"] * first + self.gate_bias(w), w["gain_xh"] * first + w["gain_h"]
        factor_bias = None if self.config.factor_bias is None else w["bias_mx"]
        return w.linear("weight_x", x, self.gate_bias(w)), w.linear("weight_mx", x, factor_bias)

    def intermediate(self, factor: Tensor, recurrent: Tensor) -> Tensor:
        """m: (batch, F) where one is shared, else those of the gates one after another, (batch, gates * F)."""
        size = self.layout.size
        if factor.shape != recurrent.shape:  # one of the two is common to all gates
            factor, recurrent = factor.unflatten(-1, (-1, size)), recurrent.unflatten(-1, (-1, size))
            return self._combine(factor, recurrent).flatten(-2)
        return self._combine(factor, recurrent)

    def _combine(self, factor: Tensor, recurrent: Tensor) -> Tensor:
        return factor * recurrent if self.config.product == "multiply" else factor + recurrent

    def readout(self, m: Tensor, w: Weights, add: Tensor | None = None, name: str = "weight_m") -> Tensor:
        """The term of the gates that the matrix ``name`` serves, (batch, gates * N), + add."""
        if self.config.sharing in _NO_READOUT:
            return m if add is None else m + add
        return w.linear(name, m, add)

    def gates(self, pre: tuple[Tensor, Tensor], h: Tensor, w: Weights, tap: Tap) -> Tensor:
        """All gates' pre-activations (batch, GN), where no gate acts inside another's term."""
        m = self.intermediate(pre[1], w.linear("weight_mh", h))
        self.tap_intermediate(tap, m)
        return self.readout(m, w, pre[0])

    def tap_intermediate(self, tap: Tap, m: Tensor) -> None:
        """Tap ``m`` where one is shared, else those of the gates one after another as ``m_i``, ``m_f``, ..."""
        count = m.shape[-1] // self.layout.size
        names = self.GATES[-self.layout.gates :][:count]  # coupled gates lack the first
        tap_blocks(tap, ["m"] if count == 1 else [f"m_{name}" for name in names], m)

    @classmethod
    def _sizes(cls, config: Any, in_width: int, width: int) -> tuple[int, int, int, int, int]:
        """Sizes of W_x, W_mx, W_mh and W_m, and the number of their rows."""
        gates, inputs, recurrents, size = cls._layout(config, width)
        rows_x = 0 if config.sharing == "integration" else inputs * size
        readout = 0 if config.sharing in _NO_READOUT else gates * width
        rows = gates * width + rows_x + recurrents * size + readout
        return gates * width * in_width, rows_x * in_width, recurrents * size * width, readout * size, rows

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """GN(I + 1) + the table's count, + one gain for each row of each matrix with weight normalisation, + F for
        each W_mx with a bias on it."""
        *matrices, rows = cls._sizes(config, in_width, width)
        gates, inputs, _, size = cls._layout(config, width)
        count = sum(matrices) + gates * width
        count += 3 * gates * width if config.sharing == "integration" else 0
        count += 0 if config.factor_bias is None else inputs * size
        return count + (rows if config.weight_norm else 0)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Twice the sizes of the matrices."""
        *matrices, _ = cls._sizes(config, in_width, width)
        return 2 * sum(matrices)
