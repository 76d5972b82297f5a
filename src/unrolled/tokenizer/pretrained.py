"""The tokenizer of an imported model, by the library ``tokenizers``."""

import json
import re
from collections.abc import Iterable
from typing import Any, Literal, Self

import numpy as np
from pydantic import Field
from tokenizers import Tokenizer as Engine

from unrolled.core import config as core
from unrolled.core.errors import UsageError
from unrolled.data.tokens import Encoded
from unrolled.tokenizer.base import Tokenizer
from unrolled.tokenizer.subword import byte_letters

__all__ = ["PretrainedTokenizer"]

_MOST = 1 << 24
_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")
_BLANK = "\u2581"


class PretrainedTokenizer(Tokenizer):
    """What a ``tokenizer.json`` describes: subwords over bytes, or pieces whose spaces are written as U+2581.

    Ids are those of the published tokenizer for every text. A block of a longer text is encoded by itself, so that ids
    may depend on the cut where lines are joined in one subword; texts are cut in the same places every time. What the
    description changes in a text (a space put before it, another Unicode form) is counted to its first token, so that
    counts of characters and bytes stay those of the text.
    """

    kind = "pretrained"

    class Config(core.Config):
        """Settings of the tokenizer of an imported model."""

        name: Literal["pretrained"] = Field(default="pretrained", description="tokenizer")
        start: int = Field(default=0, ge=0, le=_MOST, description="id that a text begins with")
        end: int | None = Field(default=None, ge=0, le=_MOST, description="id that closes a document (absent: none)")
        size: int = Field(
            default=1, ge=1, le=_MOST, description="number of ids of the model; those without a piece have no text"
        )

    def __init__(self, config: Any, state: dict[str, Any]):
        self._state = state
        try:
            self._engine = Engine.from_str(json.dumps(state))
        except Exception as error:  # the package raises nothing more special
            raise ValueError("no description of an engine") from error
        self._engine.no_padding()
        self._engine.no_truncation()
        pieces = [b""] * config.size
        special = {token["id"] for token in state.get("added_tokens") or [] if token.get("special")}
        added = {token["id"] for token in state.get("added_tokens") or []}
        spell = _spelling(state.get("decoder"))
        for name, index in self._engine.get_vocab(with_added_tokens=True).items():
            if not 0 <= index < config.size:
                raise ValueError("an id that the model lacks")
            pieces[index] = b"" if index in special else name.encode() if index in added else spell(name)
        if max(config.start, config.end or 0) >= config.size:
            raise ValueError("no id of the model")
        super().__init__(config, pieces, end=config.end)

    @classmethod
    def train(cls, config: Any, blocks: Iterable[bytes]) -> Self:
        """Raises UsageError: it comes with a model."""
        raise UsageError("the tokenizer pretrained comes with a model that is imported; choose another to train one.")

    @property
    def start_id(self) -> int:
        """The id that the configuration names."""
        return self.config.start

    def encode_block(self, block: bytes) -> Encoded:
        """Tokens of a block, without special ones around."""
        ids = np.array(self._engine.encode(block.decode("utf-8"), add_special_tokens=False).ids, np.int64)
        if not len(ids):
            return Encoded.exact(ids)
        covered = b"".join(self.pieces[index] for index in ids.tolist())
        characters, size = (_characters(block) - _characters(covered), len(block) - len(covered))
        if not characters and not size:
            return Encoded.exact(ids)
        one = np.ones(1, np.int64)
        return Encoded(ids, one * 0, one * characters, one * size)

    def end_document(self, last: bytes) -> Encoded:
        """The end symbol, where there is one."""
        return Encoded.exact(np.array([] if self.end_id is None else [self.end_id], np.int64))

    def token(self, index: int) -> str:
        """The subword's text; of a symbol without text its name."""
        name = None if self.pieces[index] else self._engine.id_to_token(index)
        return super().token(index) if name is None else name

    def to_json(self) -> dict[str, Any]:
        """The description, as ``tokenizer.json`` has it."""
        return {"tokenizers": self._state}

    @classmethod
    def from_json(cls, config: Any, state: dict[str, Any]) -> Self:
        """The inverse of :meth:`to_json`."""
        return cls(config, state["tokenizers"])


def _characters(data: bytes) -> int:
    return sum(byte & 0xC0 != 0x80 for byte in data)


def _spelling(decoder: Any) -> Any:
    """What turns the name of a piece into its bytes. Raises ValueError for a decoder of another kind."""
    parts = decoder.get("decoders") if isinstance(decoder, dict) and decoder.get("type") == "Sequence" else [decoder]
    kinds = {part.get("type") for part in parts or [] if isinstance(part, dict)}
    letters = byte_letters()

    def bytes_of(name: str) -> bytes:
        return bytes(letters[sign] for sign in name) if all(sign in letters for sign in name) else name.encode()

    def blanks_of(name: str) -> bytes:
        found = _BYTE.fullmatch(name)
        return bytes([int(found[1], 16)]) if found else name.replace(_BLANK, " ").encode()

    if "ByteLevel" in kinds:
        return bytes_of
    if kinds & {"Metaspace", "ByteFallback"}:
        return blanks_of
    raise ValueError("pieces in a spelling that is not known")
