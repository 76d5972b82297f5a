"""What encoders that mix tokens by heads share: projections, places, and the residuals, norms and MLP around."""

from collections.abc import Callable, Mapping
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import layer_norm

from unrolled.cells.base import CellConfig, ParameterRule, Place
from unrolled.cells.encoders.base import Drop, EncoderCell
from unrolled.cells.feedforward.mlp import MLPS, hidden_width
from unrolled.cells.matrix.base import by_fan_in, fill, normal, xavier
from unrolled.cells.parts.heads import cut_heads
from unrolled.cells.parts.places import sinusoid
from unrolled.core.errors import UsageError

__all__ = ["Activation", "BlockConfig", "BlockEncoder", "Positions"]

Activation = Literal["gelu", "gelu_tanh", "relu"]
Positions = Literal["learned", "sinusoid", "none"]
_ACTIVATIONS: Mapping[Activation, Callable[[Tensor], Tensor]] = {
    "gelu": MLPS["gelu"],
    "gelu_tanh": MLPS["geglu_tanh"],
    "relu": MLPS["relu"],
}


class BlockConfig(CellConfig):
    """Options of an encoder with heads."""

    heads: int = Field(default=4, ge=1, le=4096, description="heads")
    block: bool = Field(
        default=True,
        description="a whole layer, with residuals, norms and an MLP, for a plain stack; else the mixing of tokens "
        "alone, for a residual stack",
    )
    norm_first: bool = Field(default=False, description="whole layer: norms before mixing and MLP; else after each sum")
    activation: Activation = Field(default="gelu", description="whole layer: of the MLP; gelu_tanh is gelu by tanh")
    factor: float = Field(
        default=4.0, gt=0, le=1024, description="whole layer: hidden width of the MLP, as a multiple of the width"
    )
    positions: Positions = Field(
        default="learned",
        description="vectors that the first layer of a stack adds to its input, by the place in the row: learned, "
        "sinusoid, or none",
    )
    places: int = Field(default=512, ge=1, le=1 << 20, description="learned positions: the longest row")


class BlockEncoder(EncoderCell):
    """A layer whose tokens are mixed by heads. A subclass writes :meth:`mixed`.

    An input of another width than the layer's goes through a matrix first. Matrices start as those of
    ``torch.nn.Linear``, but queries, keys and values by Glorot; biases of the mixing at 0; learned positions as
    N(0, 0.02²). The blocks of ``weight`` are q, k, v.

    Attributes:
        biases: whether queries, keys, values and what is put out have biases. down_biases: whether the second matrix of
            the MLP has them. epsilon: of the norms.
    """

    biases = True
    down_biases = True
    epsilon = 1e-5

    def __init__(self, in_width: int, width: int, config: Any):
        super().__init__(in_width, width, config)

        def made(*shape: int, there: bool = True) -> nn.Parameter | None:
            return nn.Parameter(torch.empty(shape)) if there else None

        self.entry = made(width, in_width, there=in_width != width)
        self.weight, self.bias = made(3 * width, width), made(3 * width, there=self.biases)
        self.out, self.out_bias = made(width, width), made(width, there=self.biases)
        self.learned = made(config.places, width, there=config.positions == "learned")
        if config.block:
            hidden = hidden_width(config.factor, width)
            self.up, self.up_bias = made(hidden, width), made(hidden)
            self.down, self.down_bias = made(width, hidden), made(width, there=self.down_biases)
            self.gain, self.gain_bias = made(2, width), made(2, width)
            self.inner_sites = {"attention": width, "mlp": width}
            self.parameter_rules = dict.fromkeys(("gain", "gain_bias"), ParameterRule(decay=False, drawn=False))
        self.reset_parameters()

    @torch.no_grad()
    def reset_parameters(self) -> None:
        """Draw the weights anew."""
        fill(xavier(1.0), [self.weight])
        fill(by_fan_in, [self.entry, self.out])
        fill(nn.init.zeros_, [self.bias, self.out_bias])
        fill(normal(0.02), [self.learned])
        if self.config.block:
            fill(by_fan_in, [self.up, self.down])
            fill(nn.init.zeros_, [self.up_bias, self.down_bias, self.gain_bias])
            fill(nn.init.ones_, [self.gain])

    def take_place(self, place: Place) -> None:
        """Positions are the first layer's alone."""
        super().take_place(place)
        if place.layer:
            self.learned = None

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The heads."""
        return config.heads

    def mixed(self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> Tensor:
        """The heads' outputs, (batch, time, heads, n).

        Args:
            q, k, v: (batch, time, heads, n), of any numbers at padding. mask: as :meth:`encode` has it.
        """
        raise NotImplementedError

    def encode(self, x: Tensor, mask: Tensor | None, drop: Drop) -> Tensor:
        """See :meth:`EncoderCell.encode`.

        Raises:
            UsageError: a row longer than the learned positions.
        """
        x = x if mask is None else x.masked_fill(~mask.unsqueeze(-1), 0)
        x = x if self.entry is None else self.linear("entry", x)
        if self.config.positions != "none" and self.place.layer == 0:
            x = x + self._vectors(x, mask).to(x.dtype)
        if not self.config.block:
            return self._mixing(x, mask)
        first = self.config.norm_first
        x = x + drop("attention", self._mixing(self._norm(0, x) if first else x, mask))
        x = x if first else self._norm(0, x)
        act = _ACTIVATIONS[self.config.activation]
        hidden = act(self.linear("up", self._norm(1, x) if first else x, "up_bias"))
        x = x + drop("mlp", self.linear("down", hidden, "down_bias" if self.down_biases else None))
        return x if first else self._norm(1, x)

    def _norm(self, i: int, x: Tensor) -> Tensor:
        assert self.gain is not None
        assert self.gain_bias is not None
        return layer_norm(x, (self.width,), self.gain[i], self.gain_bias[i], self.epsilon)

    def _mixing(self, x: Tensor, mask: Tensor | None) -> Tensor:
        parts = self.linear("weight", x, "bias" if self.biases else None).chunk(3, -1)
        q, k, v = (cut_heads(part, self.config.heads) for part in parts)
        return self.linear("out", self.mixed(q, k, v, mask).flatten(2), "out_bias" if self.biases else None)

    def _vectors(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Those of the places, (1 or batch, time, width), counted from each row's first token."""
        time = x.shape[1]
        steps = torch.arange(time, device=x.device).unsqueeze(0)
        place = steps if mask is None else (steps - (~mask).sum(1, keepdim=True)).clamp_min(0)
        if self.learned is None:
            return sinusoid(place.double(), self.width)
        if time > len(self.learned):
            longest = time if mask is None else int(mask.sum(1).max())
            if longest > len(self.learned):
                raise UsageError(
                    f"a row of {longest} steps goes on beyond the {len(self.learned)} learned positions; raise "
                    "model.cell.places, lower task.longest, or choose model.cell.positions=sinusoid."
                )
        return self.learned[place]

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """4N² of the mixing, 4N of its biases; 2NF + F + N of the MLP, 4N of the norms; NI of an entry, PN of
        learned positions."""
        count = 4 * width**2 + 4 * width * cls.biases + (width * in_width if in_width != width else 0)
        if config.block:
            hidden = hidden_width(config.factor, width)
            count += 2 * width * hidden + hidden + width * cls.down_biases + 4 * width
        return count + (config.places * width if config.positions == "learned" else 0)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """8N² + 4NF, 2NI of an entry."""
        entry = 0 if in_width == width else 2 * width * in_width
        mlp = 4 * width * hidden_width(config.factor, width) if config.block else 0
        return 8 * width**2 + mlp + entry
