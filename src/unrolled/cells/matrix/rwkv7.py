"""RWKV-7."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import normalize

from unrolled.cells.base import CellConfig, ParameterRule, Place
from unrolled.cells.matrix.base import MatrixCell, fill
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import HeadNorm, cut_heads
from unrolled.kernels.matrix_scan import matrix_scan
from unrolled.kernels.token_shift import token_shift

__all__ = ["RWKV7", "RWKV7Config"]

_USES = "rwkvag"
_MATRICES = ("weight_r", "weight_k", "weight_v", "out")
_LOW = ("w", "a", "v", "g")
_SLOWEST = 0.6065306597126334  # e^-1/2: no decay is below e^-that


class RWKV7Config(CellConfig):
    """Options of RWKV-7's time mixing."""

    name: Literal["rwkv7"] = "rwkv7"
    head: int = Field(default=64, ge=2, le=1 << 12, description="keys and values of a head")
    ranks: tuple[int, int, int, int] | None = Field(
        default=None,
        description="ranks of the matrices behind w, a, v, g (absent: as published, 1.8, 1.8, 1.3 times the root of "
        "the width and 0.6 times its power 0.8, to a multiple of 32)",
    )


class RWKV7State(NamedTuple):
    """s: (batch, heads, keys, values). x: (batch, in_width), the last input."""

    s: Tensor
    x: Tensor


class RWKV7(MatrixCell):
    r"""Time mixing of RWKV-7 (Peng et al. 2025, arXiv:2503.14456): a decay of each key and a delta rule whose removal
    and writing have strengths of their own.

    .. math::
        \hat{x}^\square &= x_t + \mu_\square \odot (x_{t-1} - x_t) \quad \text{for } r, w, k, v, a, g \\
        w &= \exp(-e^{-1/2} \sigma(w_0 + W_2 \tanh(W_1 \hat{x}^w))), \quad a = \sigma(a_0 + A_2 A_1 \hat{x}^a), \quad
        g = G_2 \sigma(G_1 \hat{x}^g) \\
        v &\leftarrow v + (v^{(0)} - v) \odot \sigma(v_0 + V_2 V_1 \hat{x}^v), \quad
        \hat{\kappa} = k \odot k_k / |k \odot k_k|, \quad k \leftarrow k \odot (1 + (a - 1) \odot k_a) \\
        S_t &= \mathrm{Diag}(w) S_{t-1} - (a \odot \hat{\kappa}) (\hat{\kappa}^\top S_{t-1}) + k v^\top \\
        y_t &= W_o (g \odot (\mathrm{GN}(S_t^\top r) + (\textstyle\sum r \odot k \odot r_k) v))

    with r, k, v = W_r x̂, W_k x̂, W_v x̂, and v⁽⁰⁾ the v of the lowest such layer, which hands it upwards. The removal
    reads the state before its decay. The official state is stored turned, (values, keys). The channel mixing is
    ``rwkv7_channel``.
    Starts by depth as published: μ = 1 - (i/D)^(c (1 - l/L)); W_r, W_v orthogonal, W_k a tenth of that, W_o, W_1, A_1,
    V_1, G_1 zero, and their seconds orthogonal times 0.1. The traced f is the logistic function of which w is made, i
    is a.

    Parameters 6I + 3NI + N² + R(I + N) + 8N, with R the sum of the ranks.
    """

    Config = RWKV7Config
    EXAMPLES = (RWKV7Config(head=8), RWKV7Config(head=4, ranks=(3, 2, 2, 4)))
    EQUATION = "S = Diag(w) S - (a κ) (κ' S) + k v'; y = norm(S' r) * g"
    hands = ("v_first",)

    def __init__(self, in_width: int, width: int, config: RWKV7Config):
        super().__init__(in_width, width, config)
        for use in _USES:
            setattr(self, f"mu_{use}", nn.Parameter(torch.empty(in_width)))
        for name in _MATRICES:
            setattr(self, name, nn.Parameter(torch.empty(width, width if name == "out" else in_width)))
        for low, rank in zip(_LOW, self.ranks(config, width), strict=True):
            setattr(self, f"{low}1", nn.Parameter(torch.empty(rank, in_width)))
            setattr(self, f"{low}2", nn.Parameter(torch.empty(width, rank)))
        self.w0, self.a0, self.v0 = (nn.Parameter(torch.empty(width)) for _ in range(3))
        self.k_k, self.k_a, self.r_k = (nn.Parameter(torch.empty(width)) for _ in range(3))
        self.norm = HeadNorm(width // config.head, config.head, "layer", "channels", bias=True, epsilon=64e-5)
        self.reset_parameters()

    @property
    def parameter_rules(self) -> dict[str, ParameterRule]:  # type: ignore[override]
        """Vectors and the low-rank matrices are not decayed, the bias of the decay learns twice as fast, and matrices
        keep their starts."""
        rules = {name: ParameterRule(decay=False) for name, value in self.named_parameters() if value.dim() == 1}
        low = {f"{name}{i}": ParameterRule(decay=False, drawn=False) for name in _LOW for i in (1, 2)}
        return (
            rules
            | low
            | {name: ParameterRule(drawn=False) for name in _MATRICES}
            | {"w0": ParameterRule(decay=False, rate=2.0)}
        )

    @staticmethod
    def ranks(config: RWKV7Config, width: int) -> tuple[int, ...]:
        """Of w, a, v, g."""
        if config.ranks is not None:
            return config.ranks
        sizes = (1.8 * width**0.5, 1.8 * width**0.5, 1.3 * width**0.5, 0.6 * width**0.8)
        return tuple(max(32, round(size / 32) * 32) for size in sizes)

    def reset_parameters(self) -> None:
        """Draw the weights anew, for the cell's place."""
        layer, layers = self.place.index, self.place.count
        width, size = self.width, self.config.head
        place = torch.arange(self.in_width) / self.in_width
        rising = torch.arange(width) / max(1, width - 1)
        line = rising - 0.5
        within = (torch.arange(width) % size) / (size - 1) * 2 - 1
        zigzag = within * within.abs()
        above = layer / max(1, layers - 1)
        powers = {"r": 0.2, "w": 0.9, "k": 0.7, "v": 0.7, "a": 0.9, "g": 0.2}
        values = {f"mu_{use}": 1 - place ** (power * (1 - layer / layers)) for use, power in powers.items()}
        values["w0"] = -6 + 6 * rising ** (1 + above**0.3) + 0.5 + 2.5 * zigzag
        values |= {"a0": -0.19 + 0.3 * zigzag + 0.4 * line, "v0": 0.73 - 0.4 * line, "k_k": 0.71 - 0.1 * line}
        values |= {"k_a": torch.full((width,), 1.02), "r_k": torch.full((width,), -0.04)}
        for name, value in values.items():
            fill(lambda vector, value=value: vector.copy_(value), [self.get_parameter(name)])
        fill(nn.init.orthogonal_, [self.get_parameter("weight_r"), self.get_parameter("weight_v")])
        tenth = [self.get_parameter(name) for name in ("weight_k", *(f"{low}2" for low in _LOW))]
        fill(lambda matrix: nn.init.orthogonal_(matrix, 0.1), tenth)
        fill(nn.init.zeros_, [self.get_parameter(name) for name in ("out", *(f"{low}1" for low in _LOW))])

    def take_place(self, place: Place) -> None:
        """Begin as a layer at that height does."""
        super().take_place(place)
        self.reset_parameters()

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """N / ``head`` heads."""
        return width // config.head, config.head, config.head

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """Whole heads."""
        return config.head

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> RWKV7State:
        """Zeros."""
        s = torch.zeros(batch, *self.head_sizes(self.config, self.width), device=device, dtype=dtype)
        return RWKV7State(s, s.new_zeros(batch, self.in_width))

    def _low(self, name: str, x: Tensor, between: Any = None, bias: str | None = None) -> Tensor:
        """The product of the two matrices behind a name, with a function between them."""
        inner = self.linear(f"{name}1", x)
        return self.linear(f"{name}2", inner if between is None else between(inner), bias)

    def mix(self, x: Tensor, state: RWKV7State, given: Given) -> tuple[Tensor, RWKV7State]:
        """One window of the class's equations."""
        heads = self.head_sizes(self.config, self.width)[0]
        shares = torch.stack([getattr(self, f"mu_{use}") for use in _USES])
        mixed = token_shift(x, state.x, shares, given.reset, self.wish_for("token_shift"), self.name)
        of: dict[str, Tensor] = dict(zip(_USES, mixed, strict=True))
        r, k, v = (self.linear(f"weight_{use}", of[use]) for use in "rkv")
        f_pre, a_pre = self._low("w", of["w"], torch.tanh, "w0"), self._low("a", of["a"], None, "a0")
        a, gate = torch.sigmoid(a_pre), self._low("g", of["g"], torch.sigmoid)
        first = given.handed.setdefault("v_first", v)
        v = v + (first - v) * torch.sigmoid(self._low("v", of["v"], None, "v0"))
        kappa = normalize(cut_heads(k * self.k_k, heads), dim=-1)
        k = k * (1 + (a - 1) * self.k_a)
        log_w = -_SLOWEST * torch.sigmoid(f_pre)
        r, k, v, log_w, strength = (cut_heads(part, heads) for part in (r, k, v, log_w, a))
        o, s = matrix_scan(r, k, v, log_w, -kappa, kappa * strength, **self.options(state, given))
        present = (r * k * cut_heads(self.r_k, heads)).sum(-1, keepdim=True) * v
        y = self.norm(o) + present
        for name, pre in (("f", f_pre), ("i", a_pre)):
            self.show_gate(given, name, pre)
        if given.show is not None:
            given.show("a", log_w.exp().flatten(2))
        return self.linear("out", y.flatten(2) * gate), RWKV7State(s, x[:, -1])

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """6I + 3NI + N² + R(I + N) + 8N."""
        ranks = sum(cls.ranks(config, width))
        return 6 * in_width + width * (3 * in_width + width + 8) + ranks * (in_width + width)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Two for each number of a matrix, and 4 H K V to read the state with r and κ."""
        products = width * (3 * in_width + width) + sum(cls.ranks(config, width)) * (in_width + width)
        return 2 * products + 2 * cls.read_flops(config, width)
