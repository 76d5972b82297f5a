"""Test-time training layers: TTT-Linear and TTT-MLP."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from unrolled.cells.base import ParameterRule
from unrolled.cells.learners.base import LearnerCell, LearnerConfig, TTTConvState, TTTState
from unrolled.cells.matrix.base import by_fan_in, fill, normal
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import cut_heads
from unrolled.cells.parts.places import angles, rotate
from unrolled.cells.parts.ring import places_of
from unrolled.cells.parts.short_conv import ShortConv
from unrolled.kernels.learner_scan import Learned, Network, Norm

__all__ = ["TTTMLP", "TTTConfig", "TTTLinear", "TTTLinearConfig", "TTTMLPConfig"]

_EPSILON = 1e-6


class TTTConfig(LearnerConfig):
    """Options of the layers that are trained at test time."""

    rate: float = Field(default=1.0, gt=0, description="largest learning rate of the learner, before d of a head")
    shared: bool = Field(
        default=True,
        description="queries and keys are one projection, told apart by a convolution each (the form within Mamba's "
        "backbone; without it, within a Transformer's)",
    )
    kernel: int = Field(default=4, ge=2, le=64, description="inputs that these convolutions see")
    gate: bool = Field(default=True, description="multiply what the heads read by GELU(W_g x)")
    rotary_base: float = Field(default=10000.0, gt=1, le=1e9, description="base of the rotary angles within a chunk")


class TTTLinearConfig(TTTConfig):
    """Options of TTT-Linear."""

    name: Literal["ttt_linear"] = "ttt_linear"


class TTTMLPConfig(TTTConfig):
    """Options of TTT-MLP."""

    name: Literal["ttt_mlp"] = "ttt_mlp"
    rate: float = Field(default=0.1, gt=0, description="largest learning rate of the learner, before d of a head")
    factor: int = Field(default=4, ge=1, le=64, description="width of the learner's hidden layer, times that of a head")


class TTTLinear(LearnerCell):
    r"""TTT-Linear (Sun et al. 2024, arXiv:2407.04620): each head learns a linear map while it reads.

    .. math::
        f(x; W, b) &= x + \mathrm{LN}(x W + b), \qquad
        \ell_t(W, b) = \tfrac12 \lVert f(k_t; W, b) - v_t \rVert^2 \\
        \eta_t &= \tfrac{\mathrm{rate}}{d}\, \sigma(w_h^\top x_t + b_h), \qquad
        W_t = W' - \max(0, \tfrac{1}{i+1} + c_i) \sum_{j \le t} \eta_j \nabla \ell_j(W') \\
        y_t &= W_o (\mathrm{LN}(f(q_t; W_t, b_t)) \odot \mathrm{GELU}(W_g x_t))

    The sum is over the tokens of the present chunk (the paper's mini-batch) and W' are the weights before it; i is the
    token's place in it, from 0, and c is trained from zero: the size of a step is that of the reader's place times that
    of the token that is learned from. The next chunk begins with the weights of the last token of this one, and a
    document with W₀, which is trained. d numbers are a head's; LN of the learner has a gain and a bias for each head,
    the outer one for the whole width, both with 10⁻⁶ beside the variance. Queries and keys turn by rotary angles of
    their place in the chunk. With ``shared`` they are one projection and two convolutions with biases. GELU is the one
    by tanh.

    As in the public code the bias b learns too, the learner's target is v - k, its own input being added behind the
    norm, and the sum of all steps of a chunk that is not complete is carried: windows may end and documents begin
    anywhere. Pairs of channels that turn together are i and i + d/2, where it has 2i and 2i + 1. The further
    convolution that it has in front of each block of Mamba's backbone is not part of this. W₀ and w start normal with
    deviation .02, b and c at zero, the other maps as those of ``torch.nn.Linear``. ``group`` has the purpose of its
    ``scan_checkpoint_group_size``. The blocks of ``weight`` are q and k or both in one, v, and g where there is a gate.

    Parameters NI for each of these (2 to 4), N² + 2N, HI + H of the rates, C of the chunk's places, 2N(K + 1) of the
    convolutions, 2N of the inner norm and H(d² + d) of the learner.
    """

    Config: type[TTTConfig] = TTTLinearConfig
    State: type = TTTConvState
    EXAMPLES: tuple[Any, ...] = (
        TTTLinearConfig(heads=2, chunk=3),
        TTTLinearConfig(heads=1, chunk=4, shared=False, gate=False, rate=0.5, rotary_base=100.0),
        TTTLinearConfig(heads=2, chunk=2, kernel=3, group=1, gate=False),
    )
    EQUATION = "W = W' - η ∇|f(k; W') - v|²; y = f(q; W), f(x; W) = x + norm(x W)"
    parameter_rules = {
        "start": ParameterRule(drawn=False),
        "shares": ParameterRule(decay=False, drawn=False),
        "gain": ParameterRule(decay=False, drawn=False),
        "bias": ParameterRule(decay=False, drawn=False),
        "norm": ParameterRule(decay=False, drawn=False),
    }

    def __init__(self, in_width: int, width: int, config: TTTConfig):
        super().__init__(in_width, width, config)
        heads, size = config.heads, width // config.heads
        self.weight = nn.Parameter(torch.empty(self.blocks(config) * width, in_width))
        self.out = nn.Parameter(torch.empty(width, width))
        self.step, self.step_bias = nn.Parameter(torch.empty(heads, in_width)), nn.Parameter(torch.empty(heads))
        self.shares = nn.Parameter(torch.empty(config.chunk))
        self.start = nn.Parameter(torch.empty(heads, self.network(config, width).numbers()))
        self.gain, self.bias = (nn.Parameter(torch.empty(heads, size)) for _ in range(2))
        self.norm = nn.Parameter(torch.empty(2, width))
        self.conv_q, self.conv_k = (ShortConv(width, config.kernel) if config.shared else None for _ in range(2))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill(by_fan_in, [self.weight, self.out])
        fill(normal(0.02), [self.step])
        fill(nn.init.zeros_, [self.step_bias, self.shares, self.bias])
        fill(nn.init.ones_, [self.gain])
        if not self.norm.is_meta:
            self.norm.copy_(torch.tensor([[1.0], [0.0]]).expand_as(self.norm))
        self.fill_start(0.02)

    @classmethod
    def network(cls, config: Any, width: int) -> Network:
        """One layer, from a head to a head."""
        size = width // config.heads
        return Network((size, size), biases=True)

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The heads, and four channels of each: two turn together, and of a norm of two nothing is left but signs."""
        return 4 * config.heads

    @classmethod
    def blocks(cls, config: Any) -> int:
        """Of ``weight``, each as wide as the cell."""
        return (2 if config.shared else 3) + config.gate

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """The trained weights, and nothing learned."""
        begun = self.begin(batch, device, dtype)
        if self.conv_q is None:
            return TTTState(*begun)
        return TTTConvState(*begun, self.conv_q.initial(batch, device, dtype))

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        """One window of the class's equations."""
        config, heads, conv = self.config, self.config.heads, None
        first, *rest = self.linear("weight", x).split(self.width, -1)
        if self.conv_q is not None and self.conv_k is not None:
            options = (state.conv, given.reset, self.wish_for("causal_conv"), self.name)
            q, conv = self.conv_q(first, *options)
            k, _ = self.conv_k(first, *options)
        else:
            q, k = first, rest.pop(0)
        q, k, v = (cut_heads(part, heads) for part in (q, k, rest[0]))
        q, k = self._turned(q, k, state.place, given.reset)
        pre = self.linear("step", x, "step_bias")
        step = torch.sigmoid(pre) * (config.rate / q.shape[-1])
        if given.show is not None:
            given.show("delta_pre", pre)
            given.show("delta", step)
        places = torch.arange(1, config.chunk + 1, device=x.device, dtype=x.dtype)
        o, learned = self.learn(
            q, k, v, step, Learned(state.before, None, state.sums, state.place), reset=given.reset,
            shares=(1 / places + self.shares).clamp_min(0), norm=Norm(self.gain, self.bias),
        )  # fmt: skip
        y = layer_norm(o.flatten(2), (self.width,), self.norm[0], self.norm[1], _EPSILON)
        if config.gate:
            y = y * gelu(rest[1], approximate="tanh")
        after = (learned.base, learned.sums, learned.place)
        return self.linear("out", y), TTTState(*after) if conv is None else TTTConvState(*after, conv)

    def _turned(self, q: Tensor, k: Tensor, place: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        """Queries and keys (batch, time, heads, size) by the angles of their places in their chunks."""
        chunk = self.config.chunk
        inside = places_of(place, reset, q.shape[1]) % chunk
        table = angles(torch.arange(chunk, device=q.device, dtype=torch.float64), q.shape[-1], self.config.rotary_base)
        cos, sin = (part.to(q)[inside].unsqueeze(2) for part in table)
        return rotate(q, cos, sin), rotate(k, cos, sin)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """The docstring's sum."""
        heads, conv = config.heads, 2 * width * (config.kernel + 1) if config.shared else 0
        maps = cls.blocks(config) * width * in_width + width**2 + heads * (in_width + 1)
        learner = heads * cls.network(config, width).numbers() + 2 * width
        return maps + 2 * width + config.chunk + conv + learner

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2I times the rows, 2N², and the learner's."""
        products = cls.blocks(config) * width * in_width + width**2 + config.heads * in_width
        return 2 * products + cls.learner_flops(config, width)


class TTTMLP(TTTLinear):
    r"""TTT-MLP (Sun et al. 2024, arXiv:2407.04620): as :class:`TTTLinear`, each head learns a network of two layers.

    .. math::
        f(x; W, b) = x + \mathrm{LN}(\mathrm{GELU}(x W_1 + b_1) W_2 + b_2)

    with 4d hidden numbers; all four learn. GELU is the one by tanh. The largest rate is a tenth of that of TTT-Linear,
    as published.

    Parameters as there, but H(2Fd² + Fd + d) of the learner.
    """

    Config = TTTMLPConfig
    EXAMPLES = (
        TTTMLPConfig(heads=2, chunk=3, factor=2),
        TTTMLPConfig(heads=1, chunk=4, shared=False, gate=False, rate=1.0),
        TTTMLPConfig(heads=2, chunk=2, kernel=2, factor=1, group=1),
    )
    EQUATION = "W = W' - η ∇|f(k; W') - v|²; y = f(q; W), f(x; W) = x + norm(GELU(x W1) W2)"

    @classmethod
    def network(cls, config: Any, width: int) -> Network:
        """Two layers."""
        size = width // config.heads
        return Network((size, config.factor * size, size), biases=True)
