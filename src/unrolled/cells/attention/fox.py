"""Forgetting attention."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import logsigmoid

from unrolled.cells.attention.base import AttentionCell, AttentionConfig, Positions
from unrolled.cells.base import ParameterRule
from unrolled.cells.matrix.base import fill, normal
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import HeadNorm, cut_heads
from unrolled.cells.parts.shift import shifted
from unrolled.core.errors import UsageError

__all__ = ["Fox", "FoxConfig"]


class FoxConfig(AttentionConfig):
    """Options of forgetting attention."""

    name: Literal["fox"] = "fox"
    form: Literal["pro", "plain"] = Field(
        default="pro",
        description="pro: keys and values mixed with those before, norms of queries, keys and output, an output gate; "
        "plain",
    )
    gate: Literal["data", "bias", "fixed"] = Field(
        default="data", description="forget gates from the token, from a trained bias alone, or fixed"
    )
    spans: tuple[float, float] | None = Field(
        default=None,
        description="biases of the gates so that heads forget in so many tokens, geometric from the first to the last "
        "(absent: biases 0); gate = bias or fixed wants it",
    )
    positions: Literal["none", "rotary"] = Field(default="none", description="positions of the plain form; none in pro")
    prune: float | None = Field(
        default=None,
        gt=0,
        le=1000,
        description="in evaluation leave out keys whose weight cannot exceed e^-prune of the sum (10 in the paper; "
        "absent: "
        "all are seen); of the pro form, whose norms bound the scores",
    )

    @model_validator(mode="after")
    def _fits(self) -> "FoxConfig":
        if self.form == "pro" and self.positions != "none":
            raise UsageError("fox of form pro has no positions; leave fox.positions out, or set form = plain.")
        if self.prune is not None and self.form != "pro":
            raise UsageError("fox.prune goes by the norms of the pro form; set form = pro, or leave it out.")
        if self.spans is None and self.gate != "data":
            raise UsageError(
                f"fox.gate = {self.gate} goes by the biases of the gates; give fox.spans, such as [2, 256]."
            )
        if self.spans is not None and min(self.spans) < 1:
            raise UsageError("fox.spans are numbers of tokens, from 1 on.")
        return self


class FoxState(NamedTuple):
    """keys, values: (batch, context - 1, heads, size), newest last. decay: (batch, context - 1, heads), the logarithm
    of what each key has kept since its own token. fill: int64 (batch,), how many are filled."""

    keys: Tensor
    values: Tensor
    decay: Tensor
    fill: Tensor


class FoxProState(NamedTuple):
    """The same, and the last key and value before they were mixed, (batch, width) each."""

    keys: Tensor
    values: Tensor
    decay: Tensor
    last_key: Tensor
    last_value: Tensor
    fill: Tensor


class Fox(AttentionCell):
    r"""Forgetting attention (Lin et al. 2025, arXiv:2503.02130): softmax attention whose scores fall by the logarithm
    of a forget gate at every token between.

    .. math::
        q, k, v &= W_q x_t, W_k x_t, W_v x_t, \quad \ell_t = \log\sigma(W_f x_t + b_f) \quad \text{for each head} \\
        o_t &= \sum_j \mathrm{softmax}_j\Big(q_t^\top k_j / \sqrt{d} + \sum_{l=j+1}^{t} \ell_l\Big) v_j, \quad
        y_t = W_o o_t \\
        \text{pro: } k_t &\leftarrow \mathrm{norm}(\alpha_t k_{t-1} + (1 - \alpha_t) k_t), \quad
        v_t \leftarrow \beta_t v_{t-1} + (1 - \beta_t) v_t, \quad q_t \leftarrow \mathrm{norm}(q_t), \quad
        \alpha, \beta = \sigma(A x_t) \\
        y_t &= W_o (\mathrm{norm}(o_t) \odot \sigma(W_g x_t))

    k(t-1) and v(t-1) are those before they were mixed, zero before the first token; norms are those of each head by its
    root mean square, with a gain for every channel. The papers' blocks are a residual stack with rms norms and swiglu
    (``stack.mlp`` 7/3 in the pro form, 8/3 in the plain one). Attention is to the last C tokens. Each key in the state
    keeps the sum of ℓ since its token, so that no sum grows with the text. Pruning leaves out the keys before the first
    whose weight could exceed e^-prune of the sum, given that no score exceeds the product of the gains' maxima times
    the root of d. All matrices start N(0, 0.02²), biases 0 or by ``spans``. Blocks of ``weight``: q, k, v and in the
    pro form the gate; of ``weight_heads``: f, and in the pro form α, β.

    Parameters, pro: 4NI + 3HI + H + N² + 3N; plain: 3NI + HI + H + N²; gates that are no function of the token have H
    alone, fixed ones none.
    """

    Config = FoxConfig
    EXAMPLES = (
        FoxConfig(heads=2, context=5),
        FoxConfig(heads=2, context=4, form="plain", positions="rotary", spans=(2, 8)),
        FoxConfig(heads=2, context=6, gate="bias", spans=(2, 8)),
        FoxConfig(heads=2, context=3, form="plain", gate="fixed", spans=(1, 4)),
    )
    EQUATION = "y = softmax(q k' + Σ log f) v"

    def __init__(self, in_width: int, width: int, config: FoxConfig):
        super().__init__(in_width, width, config)
        pro, heads = config.form == "pro", config.heads
        self.weight = nn.Parameter(torch.empty((4 if pro else 3) * width, in_width))
        rows = heads * ((config.gate == "data") + 2 * pro)
        self.weight_heads = nn.Parameter(torch.empty(rows, in_width)) if rows else None
        bias = torch.empty(heads)
        self.bias = nn.Parameter(bias) if config.gate != "fixed" else None
        if self.bias is None:
            self.register_buffer("fixed_bias", bias, persistent=False)
        self.out = nn.Parameter(torch.empty(width, width))
        size = width // heads
        self.norm_q, self.norm_k, self.norm_o = (
            HeadNorm(heads, size, gain="channels") if pro else None for _ in range(3)
        )
        self.parameter_rules = {} if self.bias is None else {"bias": ParameterRule(decay=False, drawn=False)}
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill(normal(0.02), [self.weight, self.weight_heads, self.out])
        bias: Any = self.fixed_bias if self.bias is None else self.bias
        if bias.is_meta:
            return
        if self.config.spans is None:
            bias.zero_()
            return
        low, high = (torch.tensor(span, dtype=torch.float64).log() for span in self.config.spans)
        steps = torch.linspace(0, 1, len(bias), dtype=torch.float64)
        # logsigmoid of it is -1 / span
        bias.copy_(-torch.log(torch.expm1(torch.exp(-(low + (high - low) * steps)))))

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The heads, and two channels of each where they rotate."""
        return config.heads * (2 if config.positions == "rotary" else 1)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """Nothing was seen."""
        keys, values, filled = super().initial_state(batch, device, dtype)
        decay = keys.new_zeros(keys.shape[:3])
        if self.config.form == "plain":
            return FoxState(keys, values, decay, filled)
        last = keys.new_zeros(batch, self.width)
        return FoxProState(keys, values, decay, last, torch.zeros_like(last), filled)

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        """One window of the class's equations."""
        config, heads, pro = self.config, self.config.heads, self.config.form == "pro"
        q, k, v, *gate = self.linear("weight", x).split(self.width, -1)
        into_f, shares = self._gates(x)
        log_f = logsigmoid(into_f)
        q, last = cut_heads(q, heads), {}
        if pro:
            last = {"last_key": k[:, -1], "last_value": v[:, -1]}
            k, v = (
                torch.lerp(cut_heads(now, heads), cut_heads(shifted(now, old, given.reset), heads), share.unsqueeze(-1))
                for now, old, share in zip((k, v), (state.last_key, state.last_value), shares, strict=True)
            )
            q, k = self._normed(self.norm_q, q), self._normed(self.norm_k, k)
        else:
            k, v = cut_heads(k, heads), cut_heads(v, heads)
        turned = self.turned(state, given, k, v, log_f)
        level = self._level(turned.joined[2], x.shape[1])
        if config.prune is not None and not torch.is_grad_enabled():
            first = torch.maximum(turned.first.unsqueeze(-1), self._unpruned(level, x.shape[1]))
            turned = turned._replace(first=first)
        positions: Positions = config.positions
        y = self.attend(q, turned, positions, level=level).flatten(2)
        if pro:
            y = self._normed(self.norm_o, cut_heads(y, heads)).flatten(2) * torch.sigmoid(gate[0])
        keys, values, _ = turned.kept
        # what each key keeps now: its level against that of the newest
        length = keys.shape[1]
        filled = torch.arange(length, device=x.device) >= length - turned.fill.unsqueeze(1)
        decay = (level[:, -1:] - level)[:, -length:] * filled.unsqueeze(-1)
        if given.show is not None:
            for name, value in {"f_pre": into_f, "f": log_f.exp()}.items():
                given.show(name, value)
        parts = {"keys": keys, "values": values, "decay": decay, "fill": turned.fill}
        return self.linear("out", y), (FoxProState if pro else FoxState)(**parts, **last)

    def _normed(self, norm: Any, x: Tensor) -> Tensor:
        return norm(x, self.wish_for("rms_norm"))

    def _gates(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        """What goes into the forget gates, (batch, time, heads), and the shares α and β of the pro form."""
        heads = self.config.heads
        found = [] if self.weight_heads is None else list(self.linear("weight_heads", x).split(heads, -1))
        bias: Any = self.fixed_bias if self.bias is None else self.bias
        into = found.pop(0) + bias if self.config.gate == "data" else bias.to(x.dtype).expand(*x.shape[:2], heads)
        return into, [torch.sigmoid(part) for part in found]

    def _level(self, joined: Tensor, time: int) -> Tensor:
        """Levels of all keys, (batch, keys, heads). joined: what those before the window have kept before it, then ℓ of
        its tokens."""
        old, log_f = joined[:, :-time], joined[:, -time:]
        return torch.cat([-old, log_f.cumsum(1)], 1)

    def _unpruned(self, level: Tensor, time: int) -> Tensor:
        """(batch, time, heads): the first key that each head keeps; levels fall from key to key, so that those before
        it have kept less."""
        assert self.norm_q is not None
        assert self.norm_k is not None
        gains: Any = (self.norm_q.weight, self.norm_k.weight)
        largest = [gain.abs().view(self.config.heads, -1).amax(-1) for gain in gains]
        bound = largest[0] * largest[1] * (self.width // self.config.heads) ** 0.5
        seen = torch.arange(1, level.shape[1] + 1, device=level.device)[-time:, None]
        least = -(2 * bound + seen.log() + self.config.prune)
        kept = level[:, -time:].unsqueeze(2) - level.unsqueeze(1) >= least.unsqueeze(1)
        return kept.long().argmax(2)

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """pro: 4NI + 3HI + H + N² + 3N; plain: 3NI + HI + H + N²; less where gates are no function of the token."""
        pro, data = config.form == "pro", config.gate == "data"
        rows = (4 if pro else 3) * width + config.heads * (data + 2 * pro)
        return rows * in_width + width**2 + (config.heads if config.gate != "fixed" else 0) + 3 * width * pro

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Twice the matrices, and 4CN of a full context."""
        pro, data = config.form == "pro", config.gate == "data"
        rows = (4 if pro else 3) * width + config.heads * (data + 2 * pro)
        return 2 * rows * in_width + 2 * width**2 + cls.attention_flops(config, width)
