"""Linear attention, fast weights."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import elu

from unrolled.cells.matrix.base import HeadsConfig, MatrixCell, by_fan_in, fill
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import HeadNorm, cut_heads
from unrolled.kernels.diag_scan import diag_scan
from unrolled.kernels.matrix_scan import matrix_scan

__all__ = ["LinearAttention", "LinearAttentionConfig", "dpfp"]

_EPSILON = 1e-6


class LinearAttentionConfig(HeadsConfig):
    """Options of linear attention."""

    name: Literal["linear_attention"] = "linear_attention"
    features: Literal["elu", "dpfp"] = Field(
        default="elu", description="feature map of queries and keys: elu + 1, or dpfp, the deterministic projection"
    )
    dpfp_rolls: int = Field(default=1, ge=1, le=16, description="ν of dpfp: it has 2ν features a key")
    normalise: bool = Field(
        default=True, description="divide by the sum of the weights; without it each head's output is normalised"
    )


class NormalisedState(NamedTuple):
    """s: (batch, heads, keys, values). normaliser: (batch, heads * keys), the sum of the keys' features."""

    s: Tensor
    normaliser: Tensor


class PlainState(NamedTuple):
    """s: (batch, heads, keys, values)."""

    s: Tensor


def dpfp(x: Tensor, rolls: int) -> Tensor:
    """The deterministic parameter-free projection (Schlag, Irie and Schmidhuber 2021, equation 37): r ⊙ roll(r, j) for
    j = 1...rolls, with r = relu([x, -x]); (..., n) -> (..., 2 rolls n)."""
    r = torch.relu(torch.cat([x, -x], -1))
    return torch.cat([r * r.roll(j, -1) for j in range(1, rolls + 1)], -1)


class LinearAttention(MatrixCell):
    r"""Linear attention (Katharopoulos et al. 2020, arXiv:2006.16236), which is a fast weight programmer (Schlag et al.
    2021, arXiv:2102.11174).

    .. math::
        q, k, v &= W_q x_t, W_k x_t, W_v x_t \quad \text{for each head} \\
        S_t &= S_{t-1} + \phi(k) v^\top, \quad z_t = z_{t-1} + \phi(k) \\
        y_t &= W_o \frac{S_t^\top \phi(q)}{z_t^\top \phi(q) + \epsilon}
        \quad (\text{or } W_o\,\mathrm{RMSNorm}(S_t^\top \phi(q)))

    φ is elu + 1, or the deterministic projection of Schlag et al.; ε = 10⁻⁶. No decay: what is written stays. Without
    the division each head's output is normalised by its root mean square, as in later work. Weights as those of
    ``torch.nn.Linear``, no biases. The blocks of ``weight`` are q, k, v.

    Parameters 3NI + N², and N of the norm.
    """

    Config = LinearAttentionConfig
    EXAMPLES = (
        LinearAttentionConfig(),
        LinearAttentionConfig(heads=2, features="dpfp", dpfp_rolls=2),
        LinearAttentionConfig(heads=2, normalise=False),
    )
    EQUATION = "S = S + φ(k) v'; y = S' φ(q) / z' φ(q)"
    State = NormalisedState
    positive_fields = ("normaliser",)

    def __init__(self, in_width: int, width: int, config: LinearAttentionConfig):
        super().__init__(in_width, width, config)
        self.weight = nn.Parameter(torch.empty(3 * width, in_width))
        self.out = nn.Parameter(torch.empty(width, width))
        self.norm = None if config.normalise else HeadNorm(config.heads, width // config.heads, gain="channels")
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrices anew."""
        fill(by_fan_in, [self.weight, self.out])

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """As many keys as φ gives."""
        size = width // config.heads
        return config.heads, size * (2 * config.dpfp_rolls if config.features == "dpfp" else 1), size

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """Zeros."""
        heads, keys, values = self.head_sizes(self.config, self.width)
        s = torch.zeros(batch, heads, keys, values, device=device, dtype=dtype)
        return NormalisedState(s, s.new_zeros(batch, heads * keys)) if self.config.normalise else PlainState(s)

    def _features(self, x: Tensor) -> Tensor:
        return elu(x) + 1 if self.config.features == "elu" else dpfp(x, self.config.dpfp_rolls)

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        """One window of the class's equations."""
        q, k, v = (cut_heads(part, self.config.heads) for part in self.linear("weight", x).chunk(3, -1))
        q, k = self._features(q), self._features(k)
        o, s = matrix_scan(q, k, v, **self.options(state, given))
        if self.norm is not None:
            return self.linear("out", self.normed(self.norm, o)), PlainState(s)
        ones = k.new_ones(k[0, 0].numel())
        u, last = diag_scan(
            ones, k.flatten(2), state.normaliser, given.reset, backend=self.wish_for("diag_scan"), subject=self.name
        )
        o = o / ((q * u.view(q.shape)).sum(-1, keepdim=True) + _EPSILON)
        return self.linear("out", o.flatten(2)), NormalisedState(s, last)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """3NI + N², and N where heads are normalised."""
        return width * (3 * in_width + width + (not config.normalise))

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """6NI + 2N², and 2 H K V to read."""
        return 2 * width * (3 * in_width + width) + cls.read_flops(config, width)
