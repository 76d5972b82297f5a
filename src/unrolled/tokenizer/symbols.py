"""A fixed list of names as tokens."""

from collections.abc import Iterable
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field

from unrolled.core import config as core
from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.data.tokens import Encoded
from unrolled.tokenizer.base import Tokenizer

__all__ = ["SymbolTokenizer"]

_MOST = 1 << 20
# Names that a sentence about an unknown one may list.
_SHOWN = 200


class SymbolTokenizer(Tokenizer):
    """Names with blanks or line ends between them, of a fixed list; the first one begins a text.

    Nothing is unknown and nothing ends a text: a name outside the list is an error. Decoding gives the names with
    single spaces. Synthetic problems are read so.
    """

    kind = "symbols"

    class Config(core.Config):
        """Settings of the symbol tokenizer."""

        name: Literal["symbols"] = Field(default="symbols", description="tokenizer")
        names: tuple[str, ...] = Field(
            default=(), max_length=_MOST, description="in order of id (absent: those of the training text, sorted)"
        )

    def __init__(self, config: Any, names: list[str]):
        if not names or len(set(names)) != len(names) or any(name.split() != [name] for name in names):
            raise UsageError("symbols are different names without blanks in them, one at least; set tokenizer.names.")
        self.names = names
        super().__init__(config, [name.encode() for name in names], [True] * len(names))
        self._ids = {name: index for index, name in enumerate(names)}

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
        return cls(config, sorted({name for block in blocks for name in block.decode().split()}))

    @classmethod
    def needs_training(cls, config: Any) -> bool:
        """Only without a list."""
        return not config.names

    def encode_block(self, block: bytes) -> Encoded:
        """One token per name. Raises UsageError with the nearest name for one that is not in the list."""
        names = block.decode().split()
        if odd := next((name for name in names if name not in self._ids), None):
            raise unknown_name("symbol", odd, self.names[:_SHOWN])
        return Encoded.exact(np.array([self._ids[name] for name in names], np.int64))

    @property
    def start_id(self) -> int:
        """The first name."""
        return 0

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
