"""Token embedding."""

import math
from collections.abc import Sequence
from typing import Any, Literal

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn
from torch.nn.functional import embedding

from unrolled.cells.init import truncated_normal
from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import Compute
from unrolled.kernels.linear import glue_linear
from unrolled.model.spelling import Spelling, SpellingConfig, spell
from unrolled.model.tables import Tables

__all__ = ["Embedding", "EmbeddingConfig"]


class EmbeddingConfig(Config):
    """Size and initialisation of the token embedding."""

    size: int | None = Field(default=None, ge=1, le=1 << 20, description="embedding size E (absent: the model's width)")
    tied: bool = Field(
        default=False, description="share the matrix with the output layer (Press and Wolf 2017; Inan et al. 2017)"
    )
    project: int | None = Field(
        default=None, ge=1, le=1 << 20, description="width of a linear map after the lookup (absent: none)"
    )
    init: Literal["uniform", "normal", "truncated_normal"] = Field(
        default="uniform",
        description="uniform(-scale, scale), normal(0, scale), or truncated normal with std 1/sqrt(E)",
    )
    cutoffs: tuple[int, ...] | None = Field(
        default=None,
        description="adaptive input (Baevski and Auli 2019): first id of each group of rarer tokens, whose rows are "
        "narrower and widened by a map; every group has one (absent: one table)",
    )
    div_value: float = Field(
        default=4.0, ge=1, le=1024, description="adaptive input: rows of a group are so many times narrower than before"
    )
    one_hot: bool = Field(
        default=False, description="no matrix: a token is a vector of the vocabulary's size with a one in its place"
    )
    scale: float = Field(
        default=0.1,
        gt=0,
        le=1e4,
        description="scale of the uniform or normal initialisation; of an adaptive input times each width^-1/2",
    )
    multiplier: float = Field(
        default=1.0,
        gt=0,
        le=1e4,
        description="factor on what is looked up, before a projection (Transformers: the root of the width)",
    )

    kind: Literal["lookup", "spelling"] = Field(
        default="lookup",
        description="rows of a matrix, or vectors that a network makes of each token's bytes (Kim et al. 2016)",
    )
    spelling: SpellingConfig = Field(default=SpellingConfig(), description="of kind spelling")

    @model_validator(mode="after")
    def _one_kind(self) -> "EmbeddingConfig":
        if self.kind == "spelling" and (self.one_hot or self.tied or self.project or self.cutoffs is not None):
            raise UsageError(
                "an embedding of kind spelling has no matrix: leave out one_hot, tied, project and cutoffs; size is "
                "the width of its vectors."
            )
        if self.kind != "spelling" and self.spelling != SpellingConfig():
            raise UsageError("embedding.spelling is for embedding.kind=spelling; set it, or leave the options out.")
        if self.one_hot and (self.size or self.tied or self.project):
            raise UsageError("embedding.one_hot has no size, no matrix to tie and no projection; leave those out.")
        if self.cutoffs is not None and (self.one_hot or self.project or self.init != "normal"):
            raise UsageError("embedding.cutoffs go with init = 'normal' and without one_hot and project; set it so.")
        return self


class Embedding(nn.Module):
    """Lookup (batch, time) -> (batch, time, out_width), with optional projection.

    Args:
        vocab_size: number of rows. width: E where the config leaves it open.

    Attributes:
        compute: backend and precision of the projection; set by the model that holds the embedding.
    """

    def __init__(self, vocab_size: int, width: int, config: EmbeddingConfig):
        super().__init__()
        self.config, self.compute = config, Compute()
        self.tables: Tables | None = None
        self.spelling: Spelling | None = None
        if config.kind == "spelling":
            self.out_width = config.size or width
            self.spelling = Spelling(vocab_size, self.out_width, config.spelling)
            self.weight = self.spelling.characters
            self.reset_parameters()
            return
        if config.cutoffs is not None:
            self.out_width = config.size or width
            self.tables = Tables(vocab_size, self.out_width, config.cutoffs, config.div_value)
            self.weight = self.tables.weight
            self.reset_parameters()
            return
        size = vocab_size if config.one_hot else config.size or width
        if config.one_hot:
            self.register_buffer("weight", torch.eye(vocab_size), persistent=False)
            self.out_width = size
            return
        self.weight = nn.Parameter(torch.empty(vocab_size, size))
        self.out_width = config.project or size
        if config.project:
            self.projection = nn.Parameter(torch.empty(config.project, size))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the matrix anew."""
        if self.weight.is_meta or self.config.one_hot:
            return
        size, scale = self.weight.shape[1], self.config.scale
        if self.tables is not None:
            self.tables.reset_parameters(scale)
            return
        if self.spelling is not None:
            self.spelling.reset_parameters()
        with torch.no_grad():
            if self.config.init == "uniform":
                self.weight.uniform_(-scale, scale)
            elif self.config.init == "normal":
                self.weight.normal_(0, scale)
            else:
                truncated_normal(self.weight, 1 / math.sqrt(size))
            if self.config.project:
                nn.init.uniform_(self.projection, -1 / math.sqrt(size), 1 / math.sqrt(size))

    def forward(self, tokens: Tensor, row_mask: Tensor | None = None) -> Tensor:
        """Look up tokens.

        Args:
            tokens: (batch, time) ids.
            row_mask: (vocabulary, 1), multiplies whole rows: a dropped word vanishes wherever it occurs.
        """
        if self.spelling is not None:
            x = self.spelling(tokens)
        else:
            x = embedding(tokens, self.weight) if self.tables is None else self.tables(tokens, self.compute)
        if row_mask is not None:
            x = x * embedding(tokens, row_mask)
        return self._project(x)

    def table(self, row_mask: Tensor | None = None) -> Tensor:
        """The rows that :meth:`forward` looks up, (vocabulary, out_width)."""
        if self.spelling is not None:
            rows = self.spelling.table()
        else:
            rows = self.weight if self.tables is None else self.tables.table(self.compute)
        rows = rows if row_mask is None else rows * row_mask
        return self._project(rows)

    def shared(self) -> Any:
        """What a tied head shares: the matrix, or the tables of an adaptive input."""
        return self.weight if self.tables is None else self.tables

    @property
    def is_matrix(self) -> bool:
        """Whether a row of ``weight`` is what a token looks up."""
        return self.tables is None and self.spelling is None

    @property
    def row_width(self) -> int:
        """Width of what is looked up, before a projection."""
        return self.out_width if self.spelling is not None else self.weight.shape[1]

    def use_pieces(self, pieces: Sequence[bytes]) -> None:
        """Receive the bytes of each token, where the vectors are made of them; see :meth:`Spelling.use_pieces`."""
        if self.spelling is not None:
            self.spelling.use_pieces(pieces)

    def vectors_of(self, pieces: Sequence[bytes]) -> Tensor:
        """Vectors (n, out_width) of any spellings, also of words outside the vocabulary; input of
        :meth:`LanguageModel.run_stack`. Raises UsageError for an embedding of another kind."""
        if self.spelling is None:
            raise UsageError("only an embedding of kind spelling reads words outside the vocabulary.")
        given = spell(pieces, self.spelling.config.length).to(self.weight.device)
        return self.times(self.spelling.vectors(given))

    def looked_up(self) -> list[Tensor]:
        """The matrices whose rows are looked up; of a spelling, what its rows are made by once."""
        if self.spelling is not None:
            return list(self.spelling.parameters())
        return [self.weight] if self.tables is None else self.tables.rows()

    def times(self, rows: Tensor) -> Tensor:
        """Rows of the matrix times ``multiplier``."""
        return rows if self.config.multiplier == 1.0 else rows * self.config.multiplier

    def _project(self, x: Tensor) -> Tensor:
        x = self.times(x)
        return glue_linear(x, self.projection, None, self.compute, "embedding") if self.config.project else x

    def extra_repr(self) -> str:
        if self.spelling is not None:
            return f"of {self.spelling.config.characters} numbers a byte, {self.out_width}"
        return ", ".join(f"{rows.shape[0]}, {rows.shape[1]}" for rows in self.looked_up())
