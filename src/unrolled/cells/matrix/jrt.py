"""JRT-RNN: linear attention that reads the first tokens of a document in both directions."""

import math
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import Tap
from unrolled.cells.matrix.base import HeadsConfig, MatrixCell, by_fan_in, fill
from unrolled.cells.matrix.linear_attention import NormalisedState
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import cut_heads
from unrolled.core.errors import UsageError
from unrolled.kernels.matrix_scan import matrix_scan

__all__ = ["JRT", "JRTConfig", "PrefixState"]

_EPSILON = 1e-12


class JRTConfig(HeadsConfig):
    """Options of the JRT-RNN."""

    name: Literal["jrt"] = "jrt"
    prefix: int = Field(
        default=0,
        ge=0,
        le=2**20,
        description="P, the first tokens of a document, each of which sees all of them; 0 is causal linear attention",
    )
    features: int = Field(default=16, ge=1, le=128, description="F, queries and keys of a head before φ")


class PrefixState(NamedTuple):
    """s: (batch, heads, keys, values). normaliser: (batch, heads * keys), the sum of the keys' features. fill:
    (batch,), the tokens since the last reset."""

    s: Tensor
    normaliser: Tensor
    fill: Tensor


class JRT(MatrixCell):
    r"""JRT-RNN, prefix linear attention (Arora et al. 2024, arXiv:2407.05483), with the Taylor features of Based (Arora
    et al. 2024, arXiv:2402.18668).

    .. math::
        q, k, v &= W_q x_t, W_k x_t, W_v x_t, \quad k^e, v^e = W_{k^e} x_t, W_{v^e} x_t
        \quad \text{for each head} \\
        \phi(x) &= [1,\; x / F^{1/4},\; \mathrm{vec}(x x^\top) / (\sqrt{2} F^{1/2})] \\
        S_0 &= \sum_{j \le P} \phi(k^e_j) {v^e_j}^\top, \quad z_0 = \sum_{j \le P} \phi(k^e_j) \\
        S_t &= S_{t-1} + \phi(k_t) v_t^\top, \quad z_t = z_{t-1} + \phi(k_t) \\
        y_t &= W_o \frac{S_t^\top \phi(q_t)}{z_t^\top \phi(q_t) + \epsilon}

    So the outputs of the first P tokens of a document see all P of them, those after them are causal; P = 0 is causal
    linear attention. φ(q)·φ(k) = 1 + s + s²/2 with s = q·k / √F is positive, ε = 10⁻¹².

    The first P tokens must come in one window. Of a document that ends before them all tokens are the prefix, unpadded.
    What a prefix writes beside the scan is computed as attention over it. Tracing goes token by token, so it begins
    behind the prefix. A language model would be shown what it has to predict, and refuses P > 0. This is the linear
    attention alone; the papers' models have sliding windows and short convolutions beside it. Weights as those of
    ``torch.nn.Linear``, no biases. The blocks of ``weight`` are q, k, v, those of ``weight_prefix`` k^e, v^e.

    Parameters 2HFI + NI + N² with H heads, and HFI + NI where P > 0. Operations are those of a token behind the prefix.
    """

    Config = JRTConfig
    EXAMPLES = (
        JRTConfig(heads=2, features=3),
        JRTConfig(heads=2, features=2, prefix=3),
        JRTConfig(heads=1, features=3, prefix=2),
    )
    EQUATION = "S = S + φ(k) v'; y = S' φ(q) / z' φ(q); S(0) = Σ φ(k^e) v^e' of the first P tokens"
    State = NormalisedState
    reached_fields = ("normaliser",)

    def __init__(self, in_width: int, width: int, config: JRTConfig):
        super().__init__(in_width, width, config)
        keys = config.heads * config.features
        self.weight = nn.Parameter(torch.empty(2 * keys + width, in_width))
        self.weight_prefix = nn.Parameter(torch.empty(keys + width, in_width)) if config.prefix else None
        self.out = nn.Parameter(torch.empty(width, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrices anew."""
        fill(by_fan_in, [self.weight, self.weight_prefix, self.out])

    @classmethod
    def causal_from(cls, config: Any) -> int:
        """P."""
        return config.prefix

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """1 + F + F² keys."""
        return config.heads, 1 + config.features + config.features**2, width // config.heads

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """Zeros."""
        heads, keys, values = self.head_sizes(self.config, self.width)
        s = torch.zeros(batch, heads, keys, values, device=device, dtype=dtype)
        normaliser = s.new_zeros(batch, heads * keys)
        if not self.config.prefix:
            return NormalisedState(s, normaliser)
        return PrefixState(s, normaliser, torch.zeros(batch, dtype=torch.int64, device=device))

    def _features(self, x: Tensor) -> Tensor:
        """φ: (..., F) -> (..., 1 + F + F²)."""
        size = x.shape[-1]
        pairs = (x.unsqueeze(-1) * x.unsqueeze(-2)).flatten(-2) / math.sqrt(2 * size)
        return torch.cat([torch.ones_like(x[..., :1]), x / size**0.25, pairs], -1)

    def _cut(self, x: Tensor, *parts: int) -> list[Tensor]:
        """Parts of x by head, the last, which are the values, with a 1 behind them, whose sum is the divisor."""
        cut = [cut_heads(part, self.config.heads) for part in x.split(parts, -1)]
        return [*cut[:-1], torch.cat([cut[-1], torch.ones_like(cut[-1][..., :1])], -1)]

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        """One window of the class's equations.

        Raises:
            UsageError: a window that goes on inside the first P tokens of a document.
        """
        keys = self.config.heads * self.config.features
        q, k, v = self._cut(self.linear("weight", x), keys, keys, self.width)
        before = torch.cat([state.s, state.normaliser.view(*state.s.shape[:3], 1)], -1)
        options = {**self.options(state, given), "state": before}
        o, s = matrix_scan(self._features(q), self._features(k), v, **options)
        last = None
        if self.config.prefix:
            place, document = _places(state.fill, given.reset, x.shape[1])
            last = place[:, -1] + 1
            self._refuse(place[:, 0])
            if bool((early := place < self.config.prefix).any()):
                read, written = self._prefix(x, q, early, document)
                o, s = o + read, s + written
        y = self.linear("out", (o[..., :-1] / (o[..., -1:] + _EPSILON)).flatten(2))
        s, normaliser = s[..., :-1], s[..., -1].flatten(1)
        return y, NormalisedState(s, normaliser) if last is None else PrefixState(s, normaliser, last)

    def _refuse(self, first: Tensor) -> None:
        """first: (batch,), the place in its document of each row's first token."""
        prefix = self.config.prefix
        cut = first[(first > 0) & (first < prefix)]
        if len(cut):
            raise UsageError(
                f"the {self.name} reads the first {prefix} tokens of a document in one window, and this one goes on "
                f"after {int(cut[0])} of them; give them at once, or begin the document anew with a reset."
            )

    def _prefix(self, x: Tensor, q: Tensor, early: Tensor, document: Tensor) -> tuple[Tensor, Tensor]:
        """What the window's outputs read of the prefixes in it, (batch, time, heads, values + 1), and what the last
        document's leaves in the state.

        Args:
            q: (batch, time, heads, F). early: boolean (batch, time), the tokens of a prefix. document: each token's
                document, as a number.
        """
        end = int(early.any(0).nonzero()[-1]) + 1
        early, ours = early[:, :end], document[:, :end]
        k, v = self._cut(self.linear("weight_prefix", x[:, :end]), self.config.heads * self.config.features, self.width)
        score = torch.einsum("bihf,bjhf->bhij", q, k) / math.sqrt(self.config.features)
        seen = early.unsqueeze(1) & (document.unsqueeze(2) == ours.unsqueeze(1))
        weight = (1 + score + score.square() / 2).masked_fill(~seen.unsqueeze(1), 0)
        kept = early & (ours == document[:, -1:])
        written = torch.einsum("bjhk,bjhv->bhkv", self._features(k) * kept[..., None, None], v)
        return torch.einsum("bhij,bjhv->bihv", weight, v), written

    def _trace(self, x: Tensor, state: Any, given: Given, tap: Tap) -> None:
        if self.config.prefix and x.shape[1] > 1:
            place, _ = _places(state.fill, given.reset, x.shape[1])
            if bool((place < self.config.prefix).any()):
                raise UsageError(
                    f"the {self.name} is traced token by token, and reads the first {self.config.prefix} tokens of a "
                    "document at once; give those without a tap, and trace what follows."
                )
        super()._trace(x, state, given, tap)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """2HFI + NI + N², and HFI + NI of the prefix."""
        keys = config.heads * config.features
        return in_width * (2 * keys + width) + width**2 + bool(config.prefix) * in_width * (keys + width)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2(2HF + N)I + 2N², and 2 H K (V + 1) to read."""
        heads, keys, values = cls.head_sizes(config, width)
        products = in_width * (2 * heads * config.features + width) + width**2
        return 2 * products + 2 * heads * keys * (values + 1)


def _places(fill: Tensor, reset: Tensor | None, time: int) -> tuple[Tensor, Tensor]:
    """The place of each token in its document, from 0, and a number of that document, (batch, time) both."""
    steps = torch.arange(time, device=fill.device).expand(fill.shape[0], time)
    before = fill.unsqueeze(1) + steps
    if reset is None:
        return before, torch.zeros_like(steps)
    begun = torch.where(reset, steps, -1).cummax(1).values
    return torch.where(begun < 0, before, steps - begun), begun
