"""Attention through landmarks."""

from typing import Any, Literal

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn
from torch.nn.functional import pad

from unrolled.cells.encoders.block import BlockConfig, BlockEncoder
from unrolled.cells.matrix.base import by_fan_in, fill
from unrolled.core.errors import UsageError
from unrolled.kernels.causal_conv import causal_conv

__all__ = ["Nystrom", "NystromConfig", "iterated_inverse", "landmark_runs"]


class NystromConfig(BlockConfig):
    """Options of a layer of the Nyströmformer."""

    name: Literal["nystrom"] = "nystrom"
    landmarks: int = Field(default=64, ge=1, le=4096, description="landmarks m, each the mean of a run of the row")
    pinv: Literal["iterations", "exact"] = Field(
        default="iterations",
        description="the inverse of the landmarks' matrix: a fixed number of iterations, or exact, by singular values",
    )
    iterations: int = Field(default=6, ge=1, le=256, description="of that inverse")
    taps: int = Field(
        default=65, ge=0, le=4095, description="of the convolution over time beside the attention, odd; 0: none"
    )

    @field_validator("taps", mode="after")
    @classmethod
    def _odd(cls, value: int) -> int:
        if value and value % 2 == 0:
            raise UsageError(f"a filter of {value} taps has no middle; give an odd number of taps, or 0 for none.")
        return value


class Nystrom(BlockEncoder):
    r"""A layer of the Nyströmformer (Xiong et al. 2021, arXiv:2102.03902): softmax attention through m landmarks.

    .. math::
        F_1 &= \mathrm{softmax}(q \tilde{k}^\top / \sqrt{n}), \quad
        A = \mathrm{softmax}(\tilde{q} \tilde{k}^\top / \sqrt{n}), \quad
        F_3 = \mathrm{softmax}(\tilde{q} k^\top / \sqrt{n}) \\
        y &= F_1\, Z\, (F_3 v) + c * v, \quad Z \approx A^+ \\
        Z_0 &= A^\top / (\lVert A \rVert_1 \lVert A \rVert_\infty), \quad
        Z \leftarrow \tfrac14 Z (13 I - AZ (15 I - AZ (7 I - AZ)))

    for each head of n channels, then an output matrix; landmarks are means of runs of ceil(length / m) tokens, and
    c * v is a convolution over time with one filter of ``taps`` for each head. With m at least the length of a row
    every token is a landmark, and the exact inverse gives softmax attention. It goes through the three factors then
    too, where the published code takes softmax attention in their place.

    Differences from the published code: a row's runs are of its own tokens, so that padding has no part in a landmark
    (a row whose runs fill fewer than m landmarks has fewer), nor in the convolution; and Z_0 is scaled for each head
    of each row by itself. The published default divides by the largest column sum of the whole batch, so that an
    output depends on the rows beside it; it is not offered. Few iterations are far from the pseudoinverse where A is
    nearly of rank one, as with small weights.

    Residuals, norms and MLP as in ``transformer``, norms after each sum by default (BERT); learned positions. With
    ``block = false`` the attention alone, for a residual stack.

    Parameters 4N² + 4N, taps for each head; 2NF + F + N + 4N of MLP and norms; NI where I is not N; of learned
    positions PN.
    """

    Config = NystromConfig
    EXAMPLES = (
        NystromConfig(heads=2, landmarks=3, taps=5, factor=1.5, places=64),
        NystromConfig(
            heads=1, landmarks=4, pinv="exact", taps=3, norm_first=True, activation="relu", positions="sinusoid"
        ),
        NystromConfig(heads=2, landmarks=2, iterations=3, taps=0, block=False, positions="none"),
        NystromConfig(heads=2, landmarks=16, taps=65, activation="gelu_tanh", block=False, places=4096),
    )
    EQUATION = "y = softmax(q k~) pinv(softmax(q~ k~)) softmax(q~ k) v + conv(v)"

    def __init__(self, in_width: int, width: int, config: NystromConfig):
        super().__init__(in_width, width, config)
        self.filter = nn.Parameter(torch.empty(config.heads, config.taps)) if config.taps else None
        fill(by_fan_in, [self.filter])

    def reset_parameters(self) -> None:
        """Draw the weights anew; the filters as those of ``torch.nn.Conv1d``."""
        super().reset_parameters()
        fill(by_fan_in, [getattr(self, "filter", None)])

    def mixed(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """See :meth:`BlockEncoder.mixed`."""
        v = v if mask is None else v.masked_fill(~mask[:, :, None, None], 0)
        root = q.shape[-1] ** -0.25
        queries, keys, values = ((root * q).transpose(1, 2), (root * k).transpose(1, 2), v.transpose(1, 2))
        means, there = landmark_runs(mask, q.shape[1], self.config.landmarks, q)
        few_queries, few_keys = means.unsqueeze(1) @ queries, means.unsqueeze(1) @ keys
        absent = ~there[:, None, None, :]
        f1 = (queries @ few_keys.mT).masked_fill(absent, -torch.inf).softmax(-1)
        a = (few_queries @ few_keys.mT).masked_fill(absent, -torch.inf).softmax(-1)
        # a landmark that is not there stands by itself: neither inverse, nor scale of the others, heeds it
        a = torch.where(absent.mT, torch.eye(a.shape[-1], dtype=a.dtype, device=a.device), a)
        f3 = few_queries @ keys.mT
        f3 = (f3 if mask is None else f3.masked_fill(~mask[:, None, None, :], -torch.inf)).softmax(-1)
        z = torch.linalg.pinv(a) if self.config.pinv == "exact" else iterated_inverse(a, self.config.iterations)
        y = (f1 @ (z @ (f3 @ values))).transpose(1, 2)
        return y if self.filter is None else y + self._convolved(v)

    def _convolved(self, v: Tensor) -> Tensor:
        """Over time, as much ahead as back; v (batch, time, heads, n) with zeros at padding."""
        assert self.filter is not None
        time, half = v.shape[1], self.config.taps // 2
        reach = min(half, time - 1)
        taps = self.filter[:, half - reach : half + reach + 1].repeat_interleave(v.shape[-1], 0)  # the last: ahead
        ahead = pad(v.flatten(2), (0, 0, 0, reach))
        y, _ = causal_conv(ahead, taps.contiguous(), backend=self.wish_for("causal_conv"), subject=self.name)
        return y[:, reach:].view_as(v)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """Those of every such layer, and the filters."""
        return super().num_params(config, in_width, width) + config.heads * config.taps

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """8mN of the scores, and of the values and what they give, beside the products with weights; what is done once
        a row, of m³, is left out."""
        return super().flops_per_token(config, in_width, width) + 8 * config.landmarks * width


def landmark_runs(mask: Tensor | None, time: int, landmarks: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """The runs of ceil(length / m) tokens whose means are a row's landmarks.

    Args:
        mask: boolean (batch, time), or None. like: a tensor of the wanted type.
    Returns:
        weights (batch or 1, count, time) that make the means, count = min(m, time), and boolean (batch or 1, count):
        which landmarks have tokens.
    """
    mask = torch.ones(1, time, dtype=torch.bool, device=like.device) if mask is None else mask
    length = mask.sum(1, keepdim=True)
    run = (mask.cumsum(1) - 1) // -(-length // landmarks)
    wanted = torch.arange(min(landmarks, time), device=like.device)
    member = (run.unsqueeze(1) == wanted[:, None]) & mask.unsqueeze(1)
    number = member.sum(-1, keepdim=True)
    return member.to(like.dtype) / number.clamp_min(1), number.squeeze(-1) > 0


def iterated_inverse(a: Tensor, iterations: int) -> Tensor:
    """An approximate pseudoinverse of each matrix (..., m, m) of numbers that are not negative (Razavi et al. 2014), in
    so many steps of third order, each matrix scaled by its own norms."""
    eye = torch.eye(a.shape[-1], dtype=a.dtype, device=a.device)
    norms = a.sum(-2).amax(-1) * a.sum(-1).amax(-1)
    z = a.mT / norms[..., None, None]
    for _ in range(iterations):
        az = a @ z
        z = 0.25 * z @ (13 * eye - az @ (15 * eye - az @ (7 * eye - az)))
    return z
