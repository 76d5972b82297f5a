"""Opening corpora: by name from the table, or a user's own text."""

import hashlib
import json
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.data.embedded import embedded_parts
from unrolled.data.places import corpus_folders
from unrolled.data.reading import Part, Piece, check_utf8, read_parts
from unrolled.data.spec import SPLITS, WHOLE, CorpusSpec, FileSpec
from unrolled.data.table import CORPORA
from unrolled.data.user import cut_parts, files_at, user_parts

__all__ = ["Corpus", "CorpusConfig", "MissingCorpusError", "find_files", "list_corpora", "open_corpus", "show_corpus"]

# Mikolov's character files: one space between symbols, "_" for the space of the text.
_SYMBOLS = bytes.maketrans(b"_", b" ")
_SHOWN = 1000


class MissingCorpusError(UsageError):
    """A known corpus that is not on this machine."""


class CorpusConfig(Config):
    """Which text to read, and how."""

    name: str | None = Field(
        default=None,
        description="a corpus of the table, or a label for your own text; default pydoc, or the file's name",
    )
    path: str | None = Field(
        default=None,
        description="your own text: file, folder or glob pattern (.gz and .xz too); with a name of the "
        "table, the folder that holds its files",
    )
    train: str | None = Field(default=None, description="path of the training text, instead of path")
    valid: str | None = Field(default=None, description="path of the validation text, instead of path")
    test: str | None = Field(default=None, description="path of the test text, instead of path")
    fractions: tuple[float, float, float] = Field(
        default=(0.9, 0.05, 0.05),
        description="shares of train, valid and test by bytes when your own text is cut",
    )
    reset: Literal["none", "document", "line"] | None = Field(
        default=None,
        description="where the recurrent state restarts; default: the corpus's convention, none for your own text",
    )
    layout: Literal["text", "symbols"] | None = Field(
        default=None,
        description="symbols: characters separated by spaces, '_' for a space; default: as the corpus is known",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "CorpusConfig":
        given = [split for split in SPLITS if getattr(self, split)]
        if given and self.path:
            raise UsageError(f"give the corpus either path or {given[0]}, not both.")
        if given and not self.train:
            raise UsageError(f"the corpus has a path for {given[0]} but none for train; give train too.")
        if min(self.fractions) < 0 or sum(self.fractions) > 1 + 1e-9 or not self.fractions[0]:
            raise UsageError(
                "fractions are shares of train, valid and test: none negative, train above 0, sum at most 1."
            )
        if not given and not self.path and self.name is not None and self.name not in CORPORA:
            head, _, tail = str(unknown_name("corpus", self.name, CORPORA)).partition(";")
            raise UsageError(f"{head} (a text of your own needs its path);{tail}")
        return self

    @property
    def label(self) -> str:
        """The corpus's name in records and messages."""
        return self.name or Path(self.path or self.train or "pydoc").name


class Corpus:
    """A text in splits, read as a stream.

    Args:
        name: its name.
        parts: split -> documents.
        spec: its row of the table, or None for a user's text.
        reset: where the recurrent state restarts: "none", "document" or "line".
        layout: see :class:`CorpusConfig`.
    """

    def __init__(
        self,
        name: str,
        parts: dict[str, list[Part]],
        spec: CorpusSpec | None = None,
        reset: Literal["none", "document", "line"] = "none",
        layout: Literal["text", "symbols"] = "text",
    ):
        self.name = name
        self.spec = spec
        self.reset = reset
        self.layout = layout
        self._parts = parts
        self._scans: dict[str, tuple[str, str, int, int]] = {}

    @property
    def splits(self) -> tuple[str, ...]:
        """The splits that this corpus has, in the order train, valid, test; or ``whole`` alone."""
        return tuple(split for split in (*SPLITS, WHOLE) if split in self._parts)

    @property
    def default_tokenizer(self) -> str:
        """Name of the tokenizer that figures for this corpus use; byte for a user's text."""
        return self.spec.tokenizer if self.spec else "byte"

    def parts(self, split: str) -> list[Part]:
        """The documents of a split. Raises UsageError when the corpus has no such split."""
        if split not in self._parts:
            raise UsageError(f"corpus {self.name} has no split {split!r}; it has: {', '.join(self.splits)}.")
        return self._parts[split]

    def pieces(self, split: str, text: bool = False) -> Iterator[Piece]:
        """The split block by block, about 1 MiB each, cut at line ends (in longer lines at spaces).

        Args:
            text: demand UTF-8.
        Raises:
            UsageError: with ``text``, bytes that are not UTF-8 (names file and offset); or the split is
                empty.
        """
        empty = True
        for piece in read_parts(self.parts(split)):
            empty = False
            if text:
                check_utf8(piece)
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

    def _scan(self, split: str) -> tuple[str, str, int, int]:
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
        return self._scan(split)[0]

    def size(self, split: str) -> int:
        """Bytes of the split's text as read."""
        return self._scan(split)[2]

    def documents(self, split: str) -> int:
        """Number of documents in the split."""
        return self._scan(split)[3]

    def fingerprint(self) -> str:
        """sha256 of everything that decides the token streams: text, borders of documents, resets."""
        parts = {split: self._scan(split)[1] for split in self.splits}
        return hashlib.sha256(json.dumps([parts, self.reset]).encode()).hexdigest()


def _match(folder: Path, spec: FileSpec) -> list[Path]:
    """Files of a spec in a folder, sorted; empty if there is none."""
    for name in spec.names:
        if "*" in name:
            found = [
                p
                for p in folder.glob(name + "*")
                if fnmatch(p.name.removesuffix(".gz").removesuffix(".xz"), Path(name).name)
            ]
            found = [p for p in found if not any(p.name.startswith(x) for x in spec.exclude)]
            if found:
                return sorted(found)
        else:
            for ending in ("", ".gz", ".xz"):
                path = folder / (name + ending)
                if path.is_file():
                    return [path]
    return []


def find_files(spec: CorpusSpec, folder: str | None = None) -> dict[str, list[Path]] | None:
    """Key of ``spec.files`` -> files found in ``folder`` or the usual places.

    None unless all of them are in one place.
    """
    places = [Path(folder).expanduser()] if folder else [root / spec.folder for root in corpus_folders()]
    for place in places:
        found = {key: _match(place, file) for key, file in spec.files.items()}
        if all(found.values()):
            return found
    return None


def missing_message(spec: CorpusSpec, folder: str | None = None) -> str:
    """What a user must do to get a corpus that was not found."""
    names = ", ".join(file.names[0] for file in spec.files.values())
    if folder:
        return f"corpus {spec.name} is not in {folder}; put there {names} (or the same with .gz or .xz)."
    root = corpus_folders()[0]
    by_hand = f"put {names} (or the same with .gz or .xz) into {root / spec.folder}"
    if spec.downloads:
        return f"corpus {spec.name} is not on this machine; run: unrolled corpora get {spec.name}, or {by_hand}."
    return f"corpus {spec.name} is not on this machine and has no address it could be verified from; {by_hand}."


def open_corpus(config: CorpusConfig | str, whole: bool = False) -> Corpus:
    """Open a corpus.

    Args:
        config: a configuration, or a name of the table.
        whole: take all of your own text at ``path`` as one split of that name, to be measured on.
    Raises:
        UsageError: unknown, not found, or too short to cut; the sentence names the remedy.
    """
    if isinstance(config, str):
        config = CorpusConfig.parse({"name": config})
    explicit = {split: path for split in SPLITS if (path := getattr(config, split))}
    own = bool(explicit or config.path)
    spec = CORPORA.get(config.name or ("" if own else config.label))
    if whole:
        if spec is not None or not config.path:
            raise UsageError(f"split {WHOLE!r} is all of a text of your own; name its path with --corpus.")
        parts = {WHOLE: [Part(str(file), file) for file in files_at(config.path)]}
    elif spec is None or explicit:
        parts = user_parts(config.path, explicit, config.fractions)
    elif spec.embedded:
        parts = embedded_parts(spec.embedded)
    else:
        parts = _table_parts(spec, config.path)
    reset = config.reset or (spec.reset if spec else "none")
    layout = config.layout or (spec.layout if spec else "text")
    return Corpus(config.label, parts, spec, reset, layout)


def _table_parts(spec: CorpusSpec, folder: str | None) -> dict[str, list[Part]]:
    found = find_files(spec, folder)
    if found is None:
        raise MissingCorpusError(missing_message(spec, folder))
    parts = {key: [Part(str(path), path) for path in paths] for key, paths in found.items()}
    for key, file in spec.files.items():
        size = parts[key][0].size() if file.size is not None else None
        # Cheaper than a checksum, and enough to catch a cut-off file and the WikiText-2 without <unk>.
        if size != file.size:
            raise UsageError(
                f"{parts[key][0].name} has {size:,} bytes where {spec.name} has {file.size:,}: it is cut off or "
                "another version; replace it, or read it as a text of your own under another name."
            )
    return cut_parts(parts["all"], spec.cut, spec.name) if spec.cut else parts


def list_corpora() -> list[dict[str, Any]]:
    """Every named corpus: name, description, licence, tokenizer, splits, where it was found, stored bytes."""
    rows: list[dict[str, Any]] = []
    for spec in CORPORA.values():
        files = None if spec.embedded else find_files(spec)
        paths = [path for group in (files or {}).values() for path in group]
        rows.append(
            {
                "name": spec.name,
                "description": spec.description,
                "licence": spec.licence,
                "tokenizer": spec.tokenizer,
                "splits": list(spec.splits),
                "embedded": spec.embedded is not None,
                "found": "with Python" if spec.embedded else str(paths[0].parent) if paths else None,
                "bytes": sum(path.stat().st_size for path in paths) if paths else None,
                "downloadable": bool(spec.downloads),
            }
        )
    return rows


def show_corpus(config: CorpusConfig | str, split: str = "train", n: int = 10) -> list[str]:
    """The first ``n`` lines of a split, without line ends.

    Bytes that are not UTF-8 appear as U+FFFD; of each line at most 1,000 characters are shown.
    """
    lines: list[str] = []
    for block in open_corpus(config).blocks(split):
        lines += block.decode("utf-8", errors="replace").removesuffix("\n").split("\n", n)[:n]
        if len(lines) >= n:
            break
    return [line[:_SHOWN] for line in lines[:n]]
