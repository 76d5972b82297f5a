"""A text in splits, read as a stream."""

import hashlib
import json
from collections.abc import Iterator
from typing import Literal, Self

from unrolled.core.errors import UsageError
from unrolled.data.plain import Reading
from unrolled.data.reading import Part, Piece, read_parts
from unrolled.data.spec import SPLITS, WHOLE, CorpusSpec

__all__ = ["Corpus"]

# Mikolov's character files: one space between symbols, "_" for the space of the text.
_SYMBOLS = bytes.maketrans(b"_", b" ")


class Corpus:
    """A text in splits, read as a stream.

    Args:
        name: its name.
        parts: split -> documents.
        spec: its row of the table, or None for a user's text.
        reset: where the recurrent state restarts: "none", "document" or "line".
        layout, reading: see :class:`unrolled.data.CorpusConfig`.

    Attributes:
        limit_tokens: of the training split, once it is encoded; None for all.
    """

    limit_tokens: int | None = None

    def __init__(
        self,
        name: str,
        parts: dict[str, list[Part]],
        spec: CorpusSpec | None = None,
        reset: Literal["none", "document", "line"] = "none",
        layout: Literal["text", "symbols"] = "text",
        reading: Reading = "exact",
    ):
        self.name = name
        self.spec = spec
        self.reset = reset
        self.layout = layout
        self.reading: Reading = reading
        self._parts = parts
        self._scans: dict[str, tuple[str, str, int, int]] = {}

    def limited(self, tokens: int | None) -> Self:
        """This corpus, with so many tokens of its training split."""
        self.limit_tokens = tokens
        return self

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that this corpus has, in the order train, valid, test; or ``whole`` alone."""
        return tuple(split for split in (*SPLITS, WHOLE) if split in self._parts)

    @property
    def cut(self) -> bool:
        """Whether splits are parts of files."""
        return any(part.start or part.stop is not None for parts in self._parts.values() for part in parts)

    @property
    def default_tokenizer(self) -> str:
        """Name of the tokenizer that figures for this corpus use; byte for a user's text."""
        return self.spec.tokenizer if self.spec else "byte"

    def parts(self, split: str) -> list[Part]:
        """The documents of a split. Raises UsageError when the corpus has no such split."""
        if split not in self._parts:
            raise UsageError(f"corpus {self.name} has no split {split!r}; it has: {', '.join(self.splits)}.")
        return self._parts[split]

    def periods(self, split: str) -> list[int] | None:
        """The slice in time of each document of a split, from 0; None for a text without dates."""
        found = [part.period for part in self._parts.get(split, ()) if part.period is not None]
        return found or None

    def pieces(self, split: str, text: bool = False) -> Iterator[Piece]:
        """The split block by block, about 1 MiB each, cut at line ends (in longer lines at spaces).

        Args:
            text: demand UTF-8.
        Raises:
            UsageError: with ``text``, bytes that are not UTF-8 (names file and offset); a file that is no text, unless
                it is read to the byte; or the split is empty.
        """
        empty = True
        for piece in read_parts(self.parts(split), self.reading, text, "corpus.reading=exact"):
            empty = False
            if self.layout == "symbols":
                piece = piece._replace(data=piece.data.translate(_SYMBOLS, b" "))
            if piece.data:
                yield piece
        if empty:
            where = self.parts(split)[0].name if self.parts(split) else self.name
            raise UsageError(
                f"the {split} text of corpus {self.name} ({where}) is empty; give a text with words in it."
            )

    def blocks(self, split: str, text: bool = False) -> Iterator[bytes]:
        """The bytes of :meth:`pieces`."""
        return (piece.data for piece in self.pieces(split, text))

    def scan(self, split: str) -> tuple[str, str, int, int]:
        """sha256 of the text, digest of text and document borders, bytes, documents."""
        if split not in self._scans:
            text, borders, size, documents = hashlib.sha256(), hashlib.sha256(), 0, 0
            for piece in self.pieces(split):
                if piece.begins:
                    borders.update(b"%d " % size)
                    documents += 1
                text.update(piece.data)
                size += len(piece.data)
            borders.update(text.digest())
            self._scans[split] = (text.hexdigest(), borders.hexdigest(), size, documents)
        return self._scans[split]

    def checksum(self, split: str) -> str:
        """sha256 of the split's text as read (documents joined; symbols turned into text)."""
        return self.scan(split)[0]

    def size(self, split: str) -> int:
        """Bytes of the split's text as read."""
        return self.scan(split)[2]

    def documents(self, split: str) -> int:
        """Number of documents in the split."""
        return self.scan(split)[3]

    def fingerprint(self) -> str:
        """sha256 of everything that decides the token streams: text, borders of documents, resets."""
        parts = {split: self.scan(split)[1] for split in self.splits}
        return hashlib.sha256(json.dumps([parts, self.reset]).encode()).hexdigest()
