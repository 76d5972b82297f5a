"""HGRN2."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import silu

from unrolled.cells.base import Place
from unrolled.cells.matrix.base import SMALL_GAIN, HeadsConfig, MatrixCell, MatrixState, fill, xavier
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import HeadNorm, cut_heads
from unrolled.cells.scan.hgrn import LowerBounds
from unrolled.kernels.matrix_scan import matrix_scan

__all__ = ["HGRN2", "HGRN2Config"]


class HGRN2Config(HeadsConfig):
    """Options of HGRN2."""

    name: Literal["hgrn2"] = "hgrn2"
    keys: int | None = Field(
        default=None, ge=1, le=1 << 16, description="keys of a head, the expansion (absent: as many as its values)"
    )


class HGRN2(MatrixCell):
    r"""HGRN2 (Qin et al. 2024, arXiv:2404.07904): the gates of the HGRN with an outer product for their state; with
    the recipe of Haller, Golde and Akbik 2024, BabyHGRN.

    .. math::
        f_t &= \gamma + (1 - \gamma) \odot \sigma(W_f x_t), \quad q = \mathrm{SiLU}(W_q x_t), \quad v = W_i x_t \\
        S_t &= \mathrm{Diag}(f_t) S_{t-1} + (1 - f_t) v^\top \\
        y_t &= W_o\,\mathrm{RMSNorm}(S_t^\top q)

    γ of a layer as in the HGRN, 0 in the first. The norm is over the whole width; no gate and no biases. Xavier start
    with gain 2^-2.5. The public code scales q by K^-1/2, which the norm undoes but for its ε, and so does this one. The
    blocks of ``weight`` are q, f (H K each), i (N). The traced f is the logistic function, a what is kept.

    Parameters, with its row of the table: 2HKI + NI + N² + N + HK.
    """

    Config = HGRN2Config
    EXAMPLES = (HGRN2Config(heads=2), HGRN2Config(heads=1, keys=3))
    EQUATION = "S = Diag(f) S + (1-f) v', f >= γ of the layer; y = norm(S' q)"

    def __init__(self, in_width: int, width: int, config: HGRN2Config):
        super().__init__(in_width, width, config)
        heads, keys, _ = self.head_sizes(config, width)
        self.weight = nn.Parameter(torch.empty(2 * heads * keys + width, in_width))
        self.bounds = LowerBounds(1, heads * keys)
        self.norm = HeadNorm(1, width)
        self.out = nn.Parameter(torch.empty(width, width))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrices anew."""
        fill(xavier(SMALL_GAIN), [self.weight, self.out])

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """N / H values, and as many keys or what is asked for."""
        values = width // config.heads
        return config.heads, config.keys or values, values

    @classmethod
    def make_shared(cls, config: Any, in_width: int, width: int, count: int) -> nn.Module:
        """The table of lower bounds."""
        heads, keys, _ = cls.head_sizes(config, width)
        return LowerBounds(count, heads * keys)

    def take_place(self, place: Place) -> None:
        """Take the bounds that all layers share."""
        super().take_place(place)
        if isinstance(place.shared, LowerBounds):
            self.bounds = place.shared

    def mix(self, x: Tensor, state: MatrixState, given: Given) -> tuple[Tensor, MatrixState]:
        """One window of the class's equations."""
        heads, keys, _ = self.head_sizes(self.config, self.width)
        q, into_f, v = self.linear("weight", x).split((heads * keys, heads * keys, self.width), -1)
        bound = self.bounds.of(self.place.index)
        kept = bound + (1 - bound) * torch.sigmoid(into_f)
        written = (1 - bound) * torch.sigmoid(-into_f)  # 1 - f, without loss near 0
        parts = (cut_heads(part, heads) for part in (silu(q), written, v, kept.log()))
        o, s = matrix_scan(*parts, scale=keys**-0.5, **self.options(state, given))
        self.show_gate(given, "f", into_f)
        if given.show is not None:
            given.show("a", kept)
        return self.linear("out", self.normed(self.norm, o.flatten(2).unsqueeze(2))), MatrixState(s)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """2HKI + NI + N² + N + HK."""
        heads, keys, _ = cls.head_sizes(config, width)
        return heads * keys * (2 * in_width + 1) + width * (in_width + width + 1)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """4HKI + 2NI + 2N², and 2 H K V to read."""
        heads, keys, _ = cls.head_sizes(config, width)
        return 2 * (2 * heads * keys * in_width + width * (in_width + width)) + cls.read_flops(config, width)
