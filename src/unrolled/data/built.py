"""A corpus as tokens in files of a bounded size, made once by ``unrolled corpora build`` and then read from anywhere.

``index.json`` says what there is: counts, checksums of the text and of every file, the tokenizer. A process opens those
files alone that its columns lie in, and checks each when it does.
"""

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import read_json, sha256_file
from unrolled.data.corpus import Corpus
from unrolled.data.reading import Piece
from unrolled.data.shards import Shard
from unrolled.data.spec import SPLITS
from unrolled.data.tokens import TokenSplit, id_file, id_type, mapped
from unrolled.data.units import UnitTables

__all__ = ["BUILT_INDEX", "BuiltCorpus", "BuiltFile", "BuiltIndex", "BuiltSplit", "built_index"]

BUILT_INDEX = "index.json"
_KIND, _TOKENIZER = "unrolled tokens", "tokenizer.json"
_Count = Annotated[int, Field(ge=0, le=2**53)]
_Digest = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid")


class BuiltFile(_Part):
    """A file of ids: how many, and its checksum."""

    tokens: _Count
    sha256: _Digest


class BuiltSplit(_Part):
    """A split. sha256, bytes, documents: of its text. borders: digest of text and document borders. ids: its files in
    their order. others: checksums of the files beside them, by ending."""

    sha256: _Digest
    borders: _Digest
    bytes: _Count
    documents: _Count
    ids: list[BuiltFile]
    others: dict[Literal["starts", "lost"], _Digest]


class BuiltIndex(_Part):
    """The index of a built corpus; tokenizer: its config, fingerprint: what it does to a text."""

    kind: Literal["unrolled tokens"] = _KIND
    version: Literal[1] = 1
    name: str
    reset: Literal["none", "document", "line"]
    tokenizer: dict[str, Any]
    fingerprint: str
    splits: dict[Literal["train", "valid", "test"], BuiltSplit]


def built_index(folder: Path) -> BuiltIndex | None:
    """The index of a folder that holds a built corpus; None where it is another kind of folder.

    Raises:
        UnrolledError: it is damaged, or of another release.
    """
    path = folder / BUILT_INDEX
    value: Any = None
    with contextlib.suppress(UnrolledError):
        value = read_json(path) if path.is_file() else None
    if not isinstance(value, dict) or value.get("kind") != _KIND:
        return None
    try:
        return BuiltIndex.model_validate(value)
    except ValidationError as error:
        raise UnrolledError(f"{path} is damaged or of another release; build the corpus again.") from error


class BuiltCorpus(Corpus):
    """A built corpus in the place of its text.

    Args:
        folder: where it is. index: what :func:`built_index` found there. splits: those that are opened; absent: all.
    """

    def __init__(self, folder: Path, index: BuiltIndex, splits: tuple[str, ...] | None = None):
        super().__init__(index.name, {}, reset=index.reset)
        self.folder, self._index = folder, index
        self._wanted = tuple(split for split in SPLITS if split in index.splits and split in (splits or SPLITS))

    @property
    def splits(self) -> tuple[str, ...]:
        """See :class:`Corpus`."""
        return self._wanted

    @property
    def default_tokenizer(self) -> Any:
        """The configuration of the tokenizer that it was built with."""
        return self._index.tokenizer

    @property
    def tokenizer_file(self) -> Path:
        """Where that tokenizer is."""
        return self.folder / _TOKENIZER

    def pieces(self, split: str, text: bool = False) -> Iterator[Piece]:
        """Not to be had. Raises UsageError."""
        raise UsageError(
            f"{self.folder} holds the tokens of a text and not the text itself, which is wanted here; name the text "
            "that it was built from."
        )

    def scan(self, split: str) -> tuple[str, str, int, int]:
        """See :class:`Corpus`; as the index has it."""
        if split not in self._wanted:
            raise UsageError(f"corpus {self.name} has no split {split!r}; it has: {', '.join(self.splits)}.")
        found = self._index.splits[split]  # type: ignore[index]
        return found.sha256, found.borders, found.bytes, found.documents

    def tokens(self, tables: UnitTables, fingerprint: str) -> dict[str, TokenSplit]:
        """The splits.

        Args:
            tables, fingerprint: of the tokenizer that reads them.
        Raises:
            UsageError: another tokenizer than it was built with. UnrolledError: a damaged file.
        """
        if fingerprint != self._index.fingerprint:
            raise UsageError(
                f"{self.folder} holds tokens of another tokenizer; use the one beside them, {self.tokenizer_file}, or "
                "build the corpus with this one."
            )
        return {split: self._open(split, tables) for split in self._wanted}

    def _open(self, split: str, tables: UnitTables) -> TokenSplit:
        found = self._index.splits[split]  # type: ignore[index]
        paths = {ending: self.folder / f"{split}.{ending}" for ending in ("starts", "lost")}
        for ending, digest in found.others.items():
            if not paths[ending].is_file() or sha256_file(paths[ending]) != digest:
                raise UnrolledError(f"{paths[ending]} is damaged: it is not the file that was built; build it again.")
        shards = [Shard(self.folder / id_file(split, i), one.tokens, one.sha256) for i, one in enumerate(found.ids)]
        starts, lost = (mapped(paths[e], c) if e in found.others else None for e, c in (("starts", None), ("lost", 3)))
        return TokenSplit(shards, tables, id_type(len(tables.words)), starts, lost, found.sha256)

    def fingerprint(self) -> str:
        """See :class:`Corpus`."""
        digest = json.dumps([self._index.fingerprint, super().fingerprint()])
        return hashlib.sha256(digest.encode()).hexdigest()
