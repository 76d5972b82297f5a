"""Sliding-window attention."""

import math
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from unrolled.cells.attention.base import AttentionCell, AttentionConfig, Positions, RingState
from unrolled.cells.base import ParameterRule
from unrolled.cells.matrix.base import by_fan_in, fill
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import cut_heads
from unrolled.core.errors import UsageError

__all__ = ["WindowAttention", "WindowAttentionConfig"]


class WindowAttentionConfig(AttentionConfig):
    """Options of sliding-window attention."""

    name: Literal["window_attention"] = "window_attention"
    groups: int | None = Field(
        default=None,
        ge=1,
        description="heads of keys and values, each for as many query heads: 1 is multi-query attention (absent: as "
        "many "
        "as heads)",
    )
    positions: Positions = Field(
        default="rotary",
        description="rotary; alibi, scores that fall with the distance; none (NoPE)",
    )
    rotary_share: float = Field(default=1.0, gt=0, le=1, description="share of a head's channels that are rotated")
    rotary_base: float = Field(default=10000.0, gt=1, le=1e9, description="base of the rotary angles")
    head_scale: bool = Field(
        default=False,
        description="a trained factor on the scores of each head, at least 1 (NoPE head scales; Wang et al. 2024)",
    )
    bias: Literal["none", "out", "all"] = Field(
        default="none", description="biases: none, of the projection of the output alone, or of all four"
    )
    persistent: int = Field(
        default=0,
        ge=0,
        le=4096,
        description="trained keys and values that every token sees beside the last ones (Sukhbaatar et al. 2019)",
    )

    @model_validator(mode="after")
    def _grouped(self) -> "WindowAttentionConfig":
        if self.groups is not None and self.heads % self.groups:
            raise UsageError(f"{self.heads} heads cannot share {self.groups} groups of keys; give a divisor of heads.")
        return self


class WindowAttention(AttentionCell):
    r"""Causal softmax attention over the last C tokens, the present one among them (Vaswani et al. 2017; windows as in
    Beltagy et al. 2020, arXiv:2004.05150).

    .. math::
        q, k, v &= W_q x_t, W_k x_t, W_v x_t \quad \text{for each head} \\
        y_t &= W_o \sum_{j = t-C+1}^{t} \mathrm{softmax}_j(s_h\, q_t^\top k_j / \sqrt{d})\, v_j

    The state is a ring of the last C - 1 keys and values, before any rotation: positions count inside the ring, since
    scores depend on distances alone, so that nothing grows with the text. Documents no longer than C are attended to as
    a whole. Query heads share the keys and values of their group (Shazeer 2019; Ainslie et al. 2023). Without positions
    and with head scales it is the NoPE of Wang et al. 2024 (arXiv:2404.12224): to tune a trained model for longer
    texts, let ``train.trainable`` name the scales alone; they never fall below 1. Weights start as those of
    ``torch.nn.Linear``, scales 1, biases 0, persistent keys and values normal with deviation d^-1/2 (of values m^-1/2).
    The blocks of ``weight`` are q, k, v.

    Parameters (N + 2GD)I + N² with G groups of size D; H of scales; N or 2N + 2GD of biases; 2mGD of m persistent ones.
    """

    Config = WindowAttentionConfig
    EXAMPLES = (
        WindowAttentionConfig(heads=2, context=4),
        WindowAttentionConfig(heads=4, groups=2, context=3, rotary_share=0.5, rotary_base=100.0, bias="all"),
        WindowAttentionConfig(heads=2, context=6, positions="none", head_scale=True, persistent=2),
        WindowAttentionConfig(heads=2, groups=1, context=2, positions="alibi", bias="out"),
        WindowAttentionConfig(heads=4, groups=2, context=3, persistent=3),
    )
    sets = True
    looks_up = True
    EQUATION = "y = softmax(q k' / sqrt(d)) v over the last C tokens"
    parameter_rules = {}

    def __init__(self, in_width: int, width: int, config: WindowAttentionConfig):
        super().__init__(in_width, width, config)
        heads, groups, size = self.head_sizes(config, width)
        rows = width + 2 * groups * size
        self.weight, self.out = nn.Parameter(torch.empty(rows, in_width)), nn.Parameter(torch.empty(width, width))
        self.bias = nn.Parameter(torch.empty(rows)) if config.bias == "all" else None
        self.out_bias = nn.Parameter(torch.empty(width)) if config.bias != "none" else None
        self.head_scale = nn.Parameter(torch.empty(heads)) if config.head_scale else None
        self.persistent = nn.Parameter(torch.empty(2, config.persistent, groups, size)) if config.persistent else None
        if config.head_scale:
            self.parameter_rules = {"head_scale": ParameterRule(decay=False, least=1.0)}
        if config.persistent:
            self.parameter_rules = {**self.parameter_rules, "persistent": ParameterRule(decay=False, drawn=False)}
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill(by_fan_in, [self.weight, self.out])
        fill(nn.init.zeros_, [self.bias, self.out_bias])
        fill(nn.init.ones_, [self.head_scale])
        if self.persistent is not None and not self.persistent.is_meta:
            _, count, _, size = self.persistent.shape
            nn.init.normal_(self.persistent[0], 0, size**-0.5)
            nn.init.normal_(self.persistent[1], 0, count**-0.5)

    @classmethod
    def head_sizes(cls, config: Any, width: int) -> tuple[int, int, int]:
        """See :meth:`AttentionCell.head_sizes`."""
        return config.heads, config.groups or config.heads, width // config.heads

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The heads, and two channels of each where they rotate."""
        return config.heads * (2 if config.positions == "rotary" else 1)

    def _biases(self) -> dict[str, Tensor | None]:
        return {"bias": self.bias, "out_bias": self.out_bias}

    def backends(self) -> list[str]:
        """Those of attention; beside persistent keys that rotations do not turn, such as give the sum of weights."""
        apart = self.persistent is not None and self.config.positions == "rotary"
        return [name for name in super().backends() if not (apart and name == "torch")]

    def mix(self, x: Tensor, state: RingState, given: Given) -> tuple[Tensor, RingState]:
        """One window of the class's equations."""
        config = self.config
        heads, groups, size = self.head_sizes(config, self.width)
        bias, out_bias = (None if part is None else name for name, part in self._biases().items())
        q, k, v = self.linear("weight", x, bias).split((self.width, groups * size, groups * size), -1)
        q = cut_heads(q, heads)
        if self.head_scale is not None:
            q = q * self.head_scale.unsqueeze(-1)
        turned = self.turned(state, given, cut_heads(k, groups), cut_heads(v, groups))
        memory = None if self.persistent is None else (self.persistent[:1], self.persistent[1:])
        channels = max(2, 2 * math.floor(size * config.rotary_share / 2))
        y = self.attend(q, turned, config.positions, channels, config.rotary_base, memory=memory)
        return self.linear("out", y.flatten(2), out_bias), self.kept(state, turned)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """(N + 2GD)I + N², scales, biases and persistent ones."""
        heads, groups, size = cls.head_sizes(config, width)
        rows = width + 2 * groups * size
        return (
            rows * in_width
            + width**2
            + (heads if config.head_scale else 0)
            + {"none": 0, "out": width, "all": rows + width}[config.bias]
            + 2 * config.persistent * groups * size
        )

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2(N + 2GD)I + 2N², and 4(C + m)N of a full context and the persistent ones."""
        _, groups, size = cls.head_sizes(config, width)
        products = 2 * (width + 2 * groups * size) * in_width + 2 * width**2
        return products + cls.attention_flops(config, width) + 4 * config.persistent * width
