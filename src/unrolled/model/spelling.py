"""Input vectors of tokens from their spelling: convolutions over bytes, highway layers, a projection."""

from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import conv1d, embedding, linear

from unrolled.core.config import Config
from unrolled.core.errors import UsageError

__all__ = ["Spelling", "SpellingConfig", "spell"]

# after the 256 bytes; NOTHING is a row of zeros behind the end
BEGIN, END, NOTHING, SIGNS = 256, 257, 258, 258
# tokens whose convolutions are held at once
_BLOCK = 512


class SpellingConfig(Config):
    """Options of an input by spelling; the defaults are the sizes of Jozefowicz et al. (2016)."""

    characters: int = Field(default=16, ge=1, le=4096, description="size of a byte's vector")
    widths: tuple[int, ...] = Field(
        default=(1, 2, 3, 4, 5, 6, 7), min_length=1, description="bytes that each filter reads"
    )
    filters: tuple[int, ...] = Field(
        default=(32, 32, 64, 128, 256, 512, 1024), min_length=1, description="filters of each width"
    )
    activation: Literal["relu", "tanh"] = Field(default="relu", description="after the maximum over the places")
    highway: int = Field(default=2, ge=0, le=64, description="highway layers (Srivastava et al. 2015)")
    length: int = Field(
        default=50, ge=3, le=1024, description="bytes of a spelling at most, with its two marks; the rest is cut off"
    )

    @model_validator(mode="after")
    def _alike(self) -> "SpellingConfig":
        if len(self.widths) != len(self.filters) or min(*self.widths, *self.filters, 1) < 1:
            raise UsageError("embedding.spelling.widths and filters are as many numbers, each 1 or more; give both.")
        if max(self.widths) > self.length:
            raise UsageError("embedding.spelling.widths are at most its length; lower them.")
        return self


def spell(pieces: Sequence[bytes], length: int) -> Tensor:
    """Spellings (pieces, length) int16: a mark of the beginning, the bytes as far as there is room, a mark of the end,
    and NOTHING behind it."""
    found = torch.full((len(pieces), length), NOTHING, dtype=torch.int16)
    for row, piece in zip(found, pieces, strict=True):
        signs = [BEGIN, *piece[: length - 2], END]
        row[: len(signs)] = torch.tensor(signs, dtype=torch.int16)
    return found


class Spelling(nn.Module):
    r"""A vector for each spelling (Kim, Jernite, Sontag and Rush 2016; Jozefowicz et al. 2016).

    .. math::
        f_j &= \phi(\max_i (F_j * c)_i), \quad
        y = g \odot \operatorname{relu}(W y' + b) + (1 - g) \odot y', \; g = \sigma(W_g y' + b_g), \quad x = P y

    A filter stands on places within the spelling alone; a spelling that is shorter than the filter is read once, with
    zeros behind it. So what a token's vector is does not depend on the others, nor on ``length`` where it has room.

    Args:
        vocab_size: number of tokens V. out_width: width of a vector.

    Attributes:
        spellings: (V, length) int16, a buffer that is saved with a model's state; zeros until :meth:`use_pieces`.
    """

    spellings: Tensor

    def __init__(self, vocab_size: int, out_width: int, config: SpellingConfig):
        super().__init__()
        self.config, self.out_width = config, out_width
        total = sum(config.filters)
        self.register_buffer("spellings", torch.zeros(vocab_size, config.length, dtype=torch.int16))
        self.characters = nn.Parameter(torch.empty(SIGNS, config.characters))
        pairs = list(zip(config.widths, config.filters, strict=True))
        self.filters = nn.ParameterList(nn.Parameter(torch.empty(n, config.characters, k)) for k, n in pairs)
        self.filter_bias = nn.Parameter(torch.empty(total))
        self.highway = nn.ParameterList(nn.Parameter(torch.empty(2 * total, total)) for _ in range(config.highway))
        self.highway_bias = nn.ParameterList(nn.Parameter(torch.empty(2 * total)) for _ in range(config.highway))
        self.projection = nn.Parameter(torch.empty(out_width, total))
        self._known = False
        self._kept: tuple[list[Any], Tensor] | None = None

    def reset_parameters(self) -> None:
        """Draw anew all but the bytes' vectors: uniform over the root of what each reads; gates begin at -2, so that
        highway layers begin by passing on what they read."""
        if self.characters.is_meta:
            return
        for one in self.filters:
            bound = (one.shape[1] * one.shape[2]) ** -0.5
            nn.init.uniform_(one, -bound, bound)
        nn.init.zeros_(self.filter_bias)
        for matrix, bias in zip(self.highway, self.highway_bias, strict=True):
            bound = matrix.shape[1] ** -0.5
            nn.init.uniform_(matrix, -bound, bound)
            nn.init.zeros_(bias)
            nn.init.constant_(bias[: matrix.shape[1]], -2.0)
        bound = self.projection.shape[1] ** -0.5
        nn.init.uniform_(self.projection, -bound, bound)

    @torch.no_grad()
    def use_pieces(self, pieces: Sequence[bytes]) -> None:
        """Receive how each token is spelled. Raises UsageError for another number of them than the vocabulary's."""
        if len(pieces) != len(self.spellings):
            raise UsageError(f"{len(pieces):,} spellings are given for a vocabulary of {len(self.spellings):,}.")
        self.spellings.copy_(spell(pieces, self.config.length))
        self._known, self._kept = False, None

    def _check(self) -> None:
        if not self._known and not bool(self.spellings[:, 0].all()):
            raise UsageError(
                "this model reads tokens by their spelling and was not told it; call model.embedding.use_pieces, or "
                "take embedding.kind=lookup where tokens have none."
            )
        self._known = True

    def vectors(self, spellings: Tensor) -> Tensor:
        """The vectors (n, out_width) of spellings (n, length) as :func:`spell` gives them, in blocks."""
        return torch.cat([self._vectors(part) for part in spellings.split(_BLOCK)])

    def _vectors(self, spellings: Tensor) -> Tensor:
        ids = spellings.long()
        size = (ids != NOTHING).sum(1)
        ids = ids[:, : max(int(size.max()), *self.config.widths)]
        table = torch.cat([self.characters, self.characters.new_zeros(1, self.config.characters)])
        read = embedding(ids, table).transpose(1, 2)
        found = []
        for one in self.filters:
            width = one.shape[2]
            y = conv1d(read, one)
            within = torch.arange(y.shape[2], device=y.device) <= (size - width).clamp_min(0).unsqueeze(1)
            found.append(y.masked_fill(~within.unsqueeze(1), -torch.inf).amax(2))
        y = torch.cat(found, 1) + self.filter_bias
        y = torch.relu(y) if self.config.activation == "relu" else torch.tanh(y)
        for matrix, bias in zip(self.highway, self.highway_bias, strict=True):
            gate, new = linear(y, matrix, bias).chunk(2, 1)
            gate = torch.sigmoid(gate)
            y = gate * torch.relu(new) + (1 - gate) * y
        return linear(y, self.projection)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, time) ids -> (batch, time, out_width); each token of a window is spelled once, and in evaluation all
        tokens once."""
        if not torch.is_grad_enabled() and not self.training:
            return embedding(tokens, self.table())
        self._check()
        own, places = tokens.unique(return_inverse=True)
        return embedding(places, self.vectors(self.spellings[own]))

    def table(self) -> Tensor:
        """The vectors of all tokens, (vocabulary, out_width); without gradients in evaluation they are kept until a
        parameter changes."""
        self._check()
        if torch.is_grad_enabled() or self.training:
            return self.vectors(self.spellings)
        own = list(self.parameters())
        # by the objects themselves and how often each was written to
        key = [(one, one._version, one.device, one.dtype) for one in own]
        if self._kept is None or not _same(self._kept[0], key):
            self._kept = key, self.vectors(self.spellings)
        return self._kept[1]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}


def _same(one: list[Any], other: list[Any]) -> bool:
    return all(a[0] is b[0] and a[1:] == b[1:] for a, b in zip(one, other, strict=True))
