"""A fixed list of names as tokens."""

from collections.abc import Iterable
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field

from unrolled.core import config as core
from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.data.plain import BLANKS
from unrolled.data.tokens import Encoded
from unrolled.tokenizer.base import Tokenizer

__all__ = ["SymbolTokenizer"]

_TO_SPACE = bytes.maketrans(BLANKS, b" " * len(BLANKS))
_MOST = 1 << 20
# Names that a sentence about an unknown one may list.
_SHOWN = 200


class SymbolTokenizer(Tokenizer):
    """Names with blanks between them, of a fixed list; the first one stands for a line end, and begins a text.

    Nothing is unknown: a name outside the list is an error. Decoding gives the names with single spaces. Rows of
    synthetic problems are lines so, each behind the start symbol.
    """

    kind = "symbols"

    class Config(core.Config):
        """Settings of the symbol tokenizer."""

        name: Literal["symbols"] = Field(default="symbols", description="tokenizer")
        names: tuple[str, ...] = Field(
            default=(),
            max_length=_MOST,
            description="in order of id, that of the line end first (absent: > and those of the training text, sorted)",
        )

    def __init__(self, config: Any, names: list[str]):
        if not names or len(set(names)) != len(names) or any(name.split() != [name] for name in names):
            raise UsageError("symbols are different names without blanks in them, one at least; set tokenizer.names.")
        self.names = names
        super().__init__(
            config, [b"\n", *(name.encode() for name in names[1:])], [False, *[True] * (len(names) - 1)], 0
        )
        self._ids = {b"\n": 0, **{name.encode(): index for index, name in enumerate(names) if index}}

    @classmethod
    def of(cls, names: Iterable[str]) -> Self:
        """The tokenizer of a list of names."""
        listed = list(names)
        return cls(cls.Config(names=tuple(listed)), listed)

    @classmethod
    def train(cls, config: Any, blocks: Iterable[bytes]) -> Self:
        """Take the list of the configuration, or every name of the text."""
        if config.names:
            return cls(config, list(config.names))
        found = {name for block in blocks for name in block.decode().split()}
        return cls(config, [">", *sorted(found - {">"})])

    @classmethod
    def needs_training(cls, config: Any) -> bool:
        """Only without a list."""
        return not config.names

    def encode_block(self, block: bytes) -> Encoded:
        """One token per name and per line end. Raises UsageError with the nearest name for one outside the list."""
        names = block.translate(_TO_SPACE).replace(b"\n", b" \n ").split(b" ")
        names = [name for name in names if name]
        if odd := next((name for name in names if name not in self._ids), None):
            raise unknown_name("symbol", odd.decode(), self.names[1:_SHOWN])
        return Encoded.exact(np.array([self._ids[name] for name in names], np.int64))

    def token(self, index: int) -> str:
        """The name."""
        return self.names[index]

    def find(self, text: str) -> int | None:
        """The id of a name; the line end answers to its name too."""
        return 0 if text == self.names[0] else super().find(text)

    def to_json(self) -> dict[str, Any]:
        """The names, in order of id."""
        return {"names": self.names}

    @classmethod
    def from_json(cls, config: Any, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        names = state["names"]
        if not isinstance(names, list) or len(names) > _MOST or not all(isinstance(name, str) for name in names):
            raise ValueError("names are a list of texts")
        return cls(config, names)
