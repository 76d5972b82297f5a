"""A layer of the Transformer."""

from collections.abc import Callable, Mapping
from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import gelu, layer_norm

from unrolled.cells.attention.base import AttentionCell, AttentionConfig
from unrolled.cells.base import ParameterRule, Place
from unrolled.cells.feedforward.mlp import hidden_width
from unrolled.cells.matrix.base import by_fan_in, fill, normal, xavier
from unrolled.cells.mixer import Given
from unrolled.cells.parts.heads import cut_heads
from unrolled.cells.parts.places import sinusoid
from unrolled.cells.parts.ring import places_of
from unrolled.core.errors import UsageError

__all__ = ["Transformer", "TransformerConfig"]

_ABSOLUTE = ("sinusoid", "learned")
_ACTIVATIONS: Mapping[str, Callable[[Tensor], Tensor]] = {"relu": torch.relu, "gelu": gelu}


class TransformerConfig(AttentionConfig):
    """Options of a Transformer layer."""

    name: Literal["transformer"] = "transformer"
    norm_first: bool = Field(
        default=True,
        description="norms before attention and MLP; else after each sum (the paper)",
    )
    activation: Literal["relu", "gelu"] = Field(default="gelu", description="of the MLP; relu in the paper")
    factor: float = Field(default=4.0, gt=0, le=1024, description="hidden width of the MLP, as a multiple of the width")
    positions: Literal["none", "sinusoid", "learned", "rotary", "alibi"] = Field(
        default="rotary",
        description="rotary; alibi, scores that fall with the distance; sinusoid or learned, vectors that the first "
        "layer "
        "of a stack adds to its input by the token's place in its document; none",
    )
    places: int = Field(default=1024, ge=1, le=1 << 20, description="learned positions: the longest document")


class PlacedState(NamedTuple):
    """keys, values, fill: as in RingState. pos: int64 (batch,), tokens since the last reset."""

    keys: Tensor
    values: Tensor
    fill: Tensor
    pos: Tensor


class Transformer(AttentionCell):
    r"""A whole layer of the Transformer (Vaswani et al. 2017, arXiv:1706.03762), attention and MLP with their
    residuals.

    .. math::
        \text{norm first: } x &\leftarrow x + \mathrm{MHA}(\mathrm{LN}\,x), \quad
        x \leftarrow x + W_2\,\phi(W_1\,\mathrm{LN}\,x + b_1) + b_2 \\
        \text{after: } x &\leftarrow \mathrm{LN}(x + \mathrm{MHA}(x)), \quad
        x \leftarrow \mathrm{LN}(x + W_2\,\phi(W_1 x + b_1) + b_2)

    MHA is softmax attention to the last C tokens, scores over the root of a head's size, with biases; a document no
    longer than C is attended to as a whole. It holds residuals and norms itself, so it goes into a plain stack; norm
    first wants ``stack.output_norm = "layer"`` behind the last layer. Sinusoids and learned vectors are added by the
    first layer of a stack, and count from the last reset; a document longer than learned places is refused. The paper
    has norms after, relu, sinusoids, ``embedding.multiplier`` the root of the width, ``dropout.input`` and
    ``dropout.inner``, which masks what attention and MLP add. An input of another width than the cell's goes through
    a matrix first. Starts are those of ``torch.nn.TransformerEncoderLayer``: in-projection by Glorot, the others
    uniform within fan-in^-1/2, biases of attention 0; learned positions N(0, 0.02²). The blocks of ``weight`` are q, k,
    v.

    Parameters 4N² + 4N + 2NF + F + N + 4N with hidden width F; NI where I is not N; of learned positions PN.
    """

    Config = TransformerConfig
    EXAMPLES = (
        TransformerConfig(heads=2, context=4, factor=2.0),
        TransformerConfig(heads=2, context=5, norm_first=False, activation="relu", positions="sinusoid", factor=1.0),
        TransformerConfig(heads=1, context=3, positions="learned", places=4096, factor=1.5),
        TransformerConfig(heads=2, context=6, positions="none"),
        TransformerConfig(heads=2, context=3, positions="alibi", norm_first=False),
    )
    sets = True
    looks_up = True
    EQUATION = "x = x + MHA(LN x); x = x + MLP(LN x)"

    def __init__(self, in_width: int, width: int, config: TransformerConfig):
        super().__init__(in_width, width, config)
        hidden = hidden_width(config.factor, width)
        self.inner_sites = {"attention": width, "mlp": width}
        self.entry = nn.Parameter(torch.empty(width, in_width)) if in_width != width else None
        self.weight, self.bias = nn.Parameter(torch.empty(3 * width, width)), nn.Parameter(torch.empty(3 * width))
        self.out, self.out_bias = nn.Parameter(torch.empty(width, width)), nn.Parameter(torch.empty(width))
        self.up, self.up_bias = nn.Parameter(torch.empty(hidden, width)), nn.Parameter(torch.empty(hidden))
        self.down, self.down_bias = nn.Parameter(torch.empty(width, hidden)), nn.Parameter(torch.empty(width))
        self.gain, self.gain_bias = nn.Parameter(torch.empty(2, width)), nn.Parameter(torch.empty(2, width))
        self.learned: nn.Parameter | None = None
        if config.positions == "learned":
            self.learned = nn.Parameter(torch.empty(config.places, width))
        rule = ParameterRule(decay=False, drawn=False)
        self.parameter_rules = dict.fromkeys(("gain", "gain_bias"), rule)
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill(xavier(1.0), [self.weight])
        fill(by_fan_in, [self.entry, self.out, self.up, self.down])
        fill(nn.init.zeros_, [self.bias, self.out_bias, self.gain_bias])
        fill(nn.init.ones_, [self.gain])
        for bias, matrix in ((self.up_bias, self.up), (self.down_bias, self.down)):
            bound = matrix.shape[1] ** -0.5
            fill(lambda b, bound=bound: nn.init.uniform_(b, -bound, bound), [bias])
        fill(normal(0.02), [self.learned])

    def take_place(self, place: Place) -> None:
        """Absolute positions are the first layer's alone."""
        super().take_place(place)
        if place.layer:
            self.learned = None

    @property
    def _placed(self) -> bool:
        return self.config.positions in _ABSOLUTE and self.place.layer == 0

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The heads, and two channels of each where they rotate."""
        return config.heads * (2 if config.positions == "rotary" else 1)

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """Nothing was seen."""
        ring = super().initial_state(batch, device, dtype)
        if not self._placed:
            return ring
        return PlacedState(ring.keys, ring.values, ring.fill, torch.zeros_like(ring.fill))

    def _norm(self, i: int, x: Tensor) -> Tensor:
        return layer_norm(x, (self.width,), self.gain[i], self.gain_bias[i])

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        """One window of the class's equations.

        Raises:
            UsageError: a document longer than the learned positions.
        """
        first = self.config.norm_first
        x = x if self.entry is None else self.linear("entry", x)
        pos = None
        if self._placed:
            place = places_of(state.pos, given.reset, x.shape[1])
            pos = place[:, -1] + 1
            place = place if self.layout is None else self.layout.places.expand(len(x), -1)
            x = x + self._vectors(place).to(x.dtype)
        added, turned = self._attention(self._norm(0, x) if first else x, state, given)
        x = x + given.drop("attention", added)
        x = x if first else self._norm(0, x)
        hidden = _ACTIVATIONS[self.config.activation](self.linear("up", self._norm(1, x) if first else x, "up_bias"))
        x = x + given.drop("mlp", self.linear("down", hidden, "down_bias"))
        x = x if first else self._norm(1, x)
        after = self.kept(state, turned)
        return x, after if pos is None else PlacedState(after.keys, after.values, after.fill, pos)

    def _attention(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        heads, positions = self.config.heads, self.config.positions
        q, k, v = (cut_heads(part, heads) for part in self.linear("weight", x, "bias").chunk(3, -1))
        turned = self.turned(state, given, k, v)
        y = self.attend(q, turned, "none" if positions in _ABSOLUTE else positions)
        return self.linear("out", y.flatten(2), "out_bias"), turned

    def _vectors(self, place: Tensor) -> Tensor:
        """Those of the places (batch, time)."""
        if self.learned is None:
            return sinusoid(place.double(), self.width)
        if not torch.compiler.is_exporting() and int(place.max()) >= len(self.learned):
            raise UsageError(
                f"a document goes on beyond the {len(self.learned)} learned positions; raise model.cell.places, reset "
                "at "
                "documents, or choose model.cell.positions=rotary."
            )
        return self.learned[place]

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """4N² + 4N + 2NF + F + N + 4N, NI of an entry, PN of learned positions."""
        hidden = hidden_width(config.factor, width)
        block = 4 * width**2 + 4 * width + 2 * width * hidden + hidden + width + 4 * width
        entry = 0 if in_width == width else width * in_width
        return block + entry + (config.places * width if config.positions == "learned" else 0)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """8N² + 4NF, 4CN of a full context, 2NI of an entry."""
        entry = 0 if in_width == width else 2 * width * in_width
        products = 8 * width**2 + 4 * width * hidden_width(config.factor, width)
        return products + entry + cls.attention_flops(config, width)
