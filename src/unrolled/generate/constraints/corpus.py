"""Texts that occur word for word in documents."""

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.counts.suffix import SuffixIndex
from unrolled.data.reading import read_plain
from unrolled.generate.constraints.base import Constraint, ConstraintConfig
from unrolled.tokenizer import Tokenizer

__all__ = ["Corpus", "CorpusConfig", "Passage", "index_of", "read_documents"]


class CorpusConfig(ConstraintConfig):
    """Options of passages of documents."""

    short: ClassVar[str | None] = "path"
    reads_files: ClassVar[bool] = True

    name: Literal["corpus"] = "corpus"
    path: str = Field(default="", description="a file with a document a line, or a folder of .txt files")
    texts: tuple[str, ...] = Field(default=(), description="documents in place of a file")


class Passage(NamedTuple):
    """What was generated occurs at the suffixes from low to high. depth: its tokens."""

    low: int
    high: int
    depth: int


class Corpus(Constraint):
    """Passages of documents, of up to 64 tokens. Any of them may end anywhere.

    Tokens count: a passage that a tokenizer divides in another way where it stands in a document is not found.

    Args:
        index: of the documents, where it was made already.
    """

    Config = CorpusConfig
    EXAMPLES = (CorpusConfig(texts=("the cat sat", "a dog sat on the mat", "no")),)

    def __init__(self, config: CorpusConfig, tokenizer: Tokenizer, index: SuffixIndex | None = None):
        super().__init__(config, tokenizer)
        if index is None:
            if bool(config.path) == bool(config.texts):
                raise UsageError("the constraint corpus needs a path; write --constrain corpus=documents.txt.")
            index = index_of(read_documents(Path(config.path)) if config.path else config.texts, tokenizer)
        self.index = index
        self._first = Passage(*index.whole, 0)
        self._begins = self._mask(self._first)

    def begin(self, prompt: Sequence[int]) -> Passage:
        """See :meth:`Constraint.begin`."""
        return self._first

    def _mask(self, value: Passage) -> Tensor:
        mask = torch.zeros(self.index.vocab_size, dtype=torch.bool)
        mask[torch.from_numpy(self.index.following(value[:2], value.depth).astype(np.int64))] = True
        return mask

    def allowed(self, value: Passage) -> Tensor:
        """See :meth:`Constraint.allowed`."""
        return self._begins if value.depth == 0 else self._mask(value)

    def advance(self, value: Passage, token: int) -> Passage:
        """See :meth:`Constraint.advance`."""
        return Passage(*self.index.extend(value[:2], value.depth, token), value.depth + 1)

    def complete(self, value: Passage) -> bool:
        """See :meth:`Constraint.complete`."""
        return value.depth > 0


def read_documents(path: Path) -> list[str]:
    """The documents of a file, one a line, or of a folder, one a .txt file; empty ones are left out.

    Raises:
        UsageError: there is none.
    """
    parts = sorted(path.glob("*.txt")) if path.is_dir() else []
    found = [read_plain(one) for one in parts] if path.is_dir() else read_plain(path).splitlines()
    kept = [one.strip() for one in found if one.strip()]
    if not kept:
        raise UsageError(f"{path} holds no documents; give a file with one a line, or a folder of .txt files.")
    return kept


def index_of(texts: Sequence[str], tokenizer: Tokenizer) -> SuffixIndex:
    """The index of documents by a tokenizer."""
    return SuffixIndex([np.array(tokenizer.encode(one), np.int64) for one in texts], tokenizer.vocab_size)
