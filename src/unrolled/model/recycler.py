"""A guess of the next output without the cells."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, linear

from unrolled.core.errors import UnrolledError

__all__ = ["Recycler"]


class Recycler(nn.Module):
    r"""A guess of the output after one more token.

    .. math:: \hat h_{t+1} = h_t + V \, \mathrm{gelu}(W [h_t ; e(x_{t+1})] + b) + c

    Args:
        width: of h. embedded: of e. hidden: rows of W. V and c begin at 0, so that the first guess is h_t.
    """

    def __init__(self, width: int, embedded: int, hidden: int):
        super().__init__()
        self.weight_in = nn.Parameter(torch.empty(hidden, width + embedded))
        self.bias_in = nn.Parameter(torch.zeros(hidden))
        self.weight_out = nn.Parameter(torch.zeros(width, hidden))
        self.bias_out = nn.Parameter(torch.zeros(width))
        nn.init.normal_(self.weight_in, std=1 / math.sqrt(width + embedded))

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], width: int, embedded: int) -> "Recycler":
        """The one with these parameters. Raises UnrolledError where they are of another model."""
        hidden = tensors["weight_in"].shape[0] if "weight_in" in tensors and tensors["weight_in"].dim() == 2 else 1
        made = cls(width, embedded, hidden)
        wanted = made.state_dict()
        if set(wanted) != set(tensors) or any(tensors[name].shape != value.shape for name, value in wanted.items()):
            raise UnrolledError("the recycler is damaged or of another model; train anew.")
        made.load_state_dict(dict(tensors))
        return made

    def forward(self, h: Tensor, e: Tensor) -> Tensor:
        """h: (..., width), the output after a token. e: (..., embedded), the next token's vector."""
        inner = gelu(linear(torch.cat([h, e], -1), self.weight_in, self.bias_in))
        return h + linear(inner, self.weight_out, self.bias_out)
