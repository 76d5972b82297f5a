"""What every tokenizer is: a fixed vocabulary of byte pieces, an encoder, and exact units."""

import codecs
import copy
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from functools import cached_property
from typing import Any, ClassVar, Self

import numpy as np

from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data.plain import BLANKS
from unrolled.data.tokens import Encoded
from unrolled.data.units import Units, UnitTables

__all__ = ["Decoder", "Tokenizer"]


class Tokenizer(ABC):
    """Turns text into ids and back.

    Every id stands for a *piece*: UTF-8 bytes, empty for a mark without text. ``implied`` ids (words) are
    written with a space before them unless they begin a line.

    Args:
        config: the tokenizer's own configuration.
        pieces: bytes of each id.
        implied: which ids have a space before them; None for none.
        end: id of the end symbol (end of a line or document), or None.
    """

    kind: ClassVar[str]
    version: int = 1
    """Of the format and of how text is encoded."""
    Config: ClassVar[type[Config]]
    reads_bytes: ClassVar[bool] = False
    blanks: bytes = BLANKS
    """What stands between words, beside line ends."""

    def __init__(
        self,
        config: Any,
        pieces: Sequence[bytes],
        implied: Sequence[bool] | None = None,
        end: int | None = None,
    ):
        self.config = config
        self.pieces = list(pieces)
        self.end_id = end
        self._implied = implied

    @classmethod
    @abstractmethod
    def train(cls, config: Any, blocks: Iterable[bytes]) -> Self:
        """Make the vocabulary.

        Args:
            config: this class's ``Config``.
            blocks: the training text in blocks that end at line ends (or, in long lines, at spaces).
        Raises:
            UsageError: the text and the configuration do not fit; the sentence says why.
        """

    @classmethod
    def needs_training(cls, config: Any) -> bool:
        """Whether :meth:`train` reads the text; true for most."""
        return True

    @abstractmethod
    def encode_block(self, block: bytes) -> Encoded:
        """Tokens of one block of a longer text, a block as :meth:`train` takes them."""

    def end_document(self, last: bytes) -> Encoded:
        """Tokens that close a document whose text ended with ``last`` (its last block); none by default."""
        return Encoded.exact(np.zeros(0, np.int64))

    @abstractmethod
    def to_json(self) -> dict[str, Any]:
        """The state beside the configuration, as plain JSON values."""

    @classmethod
    @abstractmethod
    def from_json(cls, config: Any, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_json`. Raises KeyError, TypeError, ValueError or UsageError for anything else."""

    @property
    def vocab_size(self) -> int:
        """Number of ids."""
        return len(self.pieces)

    @cached_property
    def tables(self) -> UnitTables:
        """Units of each id."""
        return UnitTables.from_pieces(self.pieces, self._implied)

    @cached_property
    def _index(self) -> dict[bytes, int]:
        return {piece: index for index, piece in reversed(list(enumerate(self.pieces)))}

    def find(self, text: str) -> int | None:
        """The id whose piece is exactly ``text``, or None."""
        return self._index.get(text.encode("utf-8", errors="replace"))

    @property
    def start_id(self) -> int:
        """The id fed before the first token: the end symbol, else newline, else space, else 0."""
        candidates = (self.end_id, self.find("\n"), self.find(" "), 0)
        return next(found for found in candidates if found is not None)

    def encode_exact(self, text: str, end: bool = False) -> Encoded:
        """Tokens of a text and what their ids lose.

        Args:
            text: any text.
            end: close it as a document of a corpus is closed (a word tokenizer ends an open last line, a
                subword tokenizer adds its end symbol; byte and char add nothing).
        Raises:
            UsageError: a symbol is not in the vocabulary and the tokenizer has no unknown symbol.
        """
        try:
            data = text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(f"the text is not valid Unicode at character {error.start}; remove it.") from error
        body = self.encode_block(data)
        if not end or not data:
            return body
        tail = self.end_document(data)
        joined = [np.concatenate([a, b]) for a, b in zip(body, tail, strict=True)]
        joined[1][len(body.positions) :] += len(body.ids)
        return Encoded(*joined)

    def encode(self, text: str, end: bool = False) -> list[int]:
        """Ids of a text, see :meth:`encode_exact`."""
        return self.encode_exact(text, end).ids.tolist()

    def units_of(self, encoded: Encoded, previous: int | None = None) -> Units:
        """Exact units of an encoded text that follows the id ``previous`` (None: begins a text)."""
        counted = self.tables.count(encoded.ids, previous)
        return counted + Units(0, 0, int(encoded.characters.sum()), int(encoded.bytes.sum()))

    def decode_bytes(self, ids: Iterable[int]) -> bytes:
        """The bytes of a sequence that begins a text."""
        decoder = Decoder(self)
        return b"".join(decoder.bytes_of(index) for index in ids)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of a sequence; bytes that are not UTF-8 become U+FFFD."""
        return self.decode_bytes(ids).decode("utf-8", errors="replace")

    def decoder(self, previous: int | None = None, pending: bytes = b"") -> "Decoder":
        """A decoder for tokens that arrive one by one.

        Args:
            previous: the id before the first, None at the start of a text.
            pending: bytes before the first that begin a character.
        """
        return Decoder(self, previous, pending)

    def token(self, index: int) -> str:
        """A readable name of an id: its text, with control characters and stray bytes escaped."""
        name = self.pieces[index].decode("utf-8", errors="backslashreplace")
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in name)

    def symbols_checksum(self) -> str:
        """sha256 of the symbols and how text is divided into them: that of the file's content without its options."""
        value = [self.kind, self.version, self.to_json()]
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()

    def fingerprint(self) -> str:
        """sha256 of configuration and vocabulary: equal for tokenizers that encode alike."""
        value = [self.kind, self.version, self.config.model_dump(mode="json"), self.to_json()]
        return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class Decoder:
    """Text of tokens that arrive one by one; never emits part of a UTF-8 character."""

    def __init__(self, tokenizer: Tokenizer, previous: int | None = None, pending: bytes = b""):
        self._pieces = tokenizer.pieces
        self._tables = tokenizer.tables
        self._closed = previous is None or bool(self._tables.closes[previous])
        self._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._utf8.decode(pending)

    @property
    def pending(self) -> bytes:
        """Bytes that begin a character which is not whole yet."""
        return self._utf8.getstate()[0]

    def fork(self) -> "Decoder":
        """The same place of the text, to be gone on from in another way."""
        made = copy.copy(self)
        made._utf8 = codecs.getincrementaldecoder("utf-8")(errors="replace")
        made._utf8.setstate(self._utf8.getstate())
        return made

    def bytes_of(self, index: int) -> bytes:
        """The bytes that the next token adds. Raises UnrolledError for an id outside the vocabulary."""
        if not 0 <= index < len(self._pieces):
            raise UnrolledError(
                f"token id {index} is outside the vocabulary of {len(self._pieces)}; another tokenizer?"
            )
        found = self.alternative(index)
        self._closed = bool(self._tables.closes[index])
        return found

    def alternative(self, index: int) -> bytes:
        """The bytes that a token of the vocabulary would add here, if it came next."""
        return (b" " if self._tables.implied[index] and not self._closed else b"") + self._pieces[index]

    def push(self, index: int) -> str:
        """The characters that this token completes, perhaps none."""
        return self._utf8.decode(self.bytes_of(int(index)))

    def finish(self) -> str:
        """What is left at the end: U+FFFD for an unfinished character, else nothing."""
        return self._utf8.decode(b"", final=True)
