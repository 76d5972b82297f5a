"""Opening corpora: by name from the table, or a user's own text."""

import glob
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.packed import SUFFIXES
from unrolled.core.registry import unknown_name
from unrolled.data.built import BuiltCorpus, built_index
from unrolled.data.corpus import Corpus
from unrolled.data.embedded import embedded_parts
from unrolled.data.places import corpus_folders
from unrolled.data.reading import Part
from unrolled.data.spec import SPLITS, WHOLE, CorpusSpec, FileSpec
from unrolled.data.table import CORPORA
from unrolled.data.user import cut_parts, files_at, user_parts

__all__ = ["CorpusConfig", "MissingCorpusError", "find_files", "list_corpora", "open_corpus", "show_corpus"]

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
        description="your own text: file, folder or glob pattern (.gz, .bz2 and .xz too); with a name of the "
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
    reading: Literal["text", "exact"] | None = Field(
        default=None,
        description="text: a byte-order mark is left out, and CR LF and CR end a line as LF does; exact: every byte as "
        "it is; default: text for your own text, exact for a corpus of the table",
    )
    splits: tuple[Literal["train", "valid", "test"], ...] | None = Field(
        default=None,
        min_length=1,
        description="the splits that are opened; the texts of the others are never read (absent: all)",
    )
    limit_tokens: int | None = Field(
        default=None,
        ge=1,
        description="tokens from the beginning of the training split that there are (absent: all); the vocabulary is "
        "that of all of it",
    )
    base: str | None = Field(
        default=None,
        description="folder that relative paths begin at, where the text is still there; training notes it in the run",
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
        if self.splits is not None and "train" not in self.splits:
            raise UsageError("corpus.splits leaves out train, whose text decides the vocabulary; add it.")
        if not given and not self.path and self.name is not None and self.name not in CORPORA:
            head, _, tail = str(unknown_name("corpus", self.name, CORPORA)).partition(";")
            raise UsageError(f"{head} (a text of your own needs its path);{tail}")
        return self

    @property
    def label(self) -> str:
        """The corpus's name in records and messages."""
        return self.name or Path(self.path or self.train or "pydoc").name

    @property
    def own(self) -> bool:
        """Whether it is a text of your own, at a path, and not a corpus of the table."""
        return bool(self.train or (self.path and self.name not in CORPORA))

    @property
    def built(self) -> bool:
        """Whether its path is a folder that ``unrolled corpora build`` wrote."""
        return bool(self.path and not self.name and built_index(Path(self.place(self.path)).expanduser()))

    def based(self) -> "CorpusConfig":
        """With the folder that relative paths begin at now."""
        paths = [path for path in (self.path, *(getattr(self, split) for split in SPLITS)) if path]
        if self.base or all(Path(path).expanduser().is_absolute() for path in paths):
            return self
        return self.model_copy(update={"base": str(Path.cwd())})

    def places(self) -> dict[str, Path]:
        """Where its texts are, links followed: by split, or ``path`` for all."""
        named = {name: path for name in ("path", *SPLITS) if (path := getattr(self, name))}
        return {name: Path(self.place(path)).expanduser().resolve() for name, path in named.items()}

    def place(self, path: str) -> str:
        """Where a path of this config is: below ``base``, or, where only there is something, as it is written."""
        own = Path(path).expanduser()
        based = str(Path(self.base or "", own))
        if self.base and glob.has_magic(path) and not Path(based).exists():  # signs in the folder are no pattern
            based = str(own if own.is_absolute() else Path(glob.escape(self.base), own))
        there, here = (bool(glob.glob(one)) or Path(one).exists() for one in (based, path))  # noqa: PTH207
        return path if not self.base or (here and not there) else based


def _match(folder: Path, spec: FileSpec) -> list[Path]:
    """Files of a spec in a folder, sorted; empty if there is none."""
    for name in spec.names:
        if "*" in name:
            found = [
                p
                for p in folder.glob(name + "*")
                if fnmatch(p.stem if p.suffix in SUFFIXES else p.name, Path(name).name)
            ]
            found = [p for p in found if not any(p.name.startswith(x) for x in spec.exclude)]
            if found:
                return sorted(found)
        else:
            for ending in ("", *SUFFIXES):
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
    if folder and Path(folder).is_file():
        return (
            f"corpus {spec.name} is looked for in a folder, and {folder} is a file; to use it in place of that corpus, "
            f"say --corpus {folder}."
        )
    if folder:
        return f"corpus {spec.name} is not in {folder}; put there {names} (or the same with .gz, .bz2 or .xz)."
    root = corpus_folders()[0]
    by_hand = f"put {names} (or the same with .gz, .bz2 or .xz) into {root / spec.folder}"
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
    place = Path(config.place(config.path)).expanduser() if config.path and not config.name else None
    if place is not None and (index := built_index(place)) is not None:
        if whole:
            raise UsageError(f"{config.path} holds the tokens of a corpus in splits; name one of them with --split.")
        if config.reset not in (None, index.reset):
            raise UsageError(
                f"{config.path} was built with corpus.reset={index.reset}; leave that setting out, or build it again."
            )
        return BuiltCorpus(place, index, config.splits).limited(config.limit_tokens)
    explicit = {split: config.place(path) for split in SPLITS if (path := getattr(config, split))}
    place = config.place(config.path) if config.path else None
    own = bool(explicit or config.path)
    spec = CORPORA.get(config.name or ("" if own else config.label))
    if whole:
        if spec is not None or not place:
            raise UsageError(f"split {WHOLE!r} is all of a text of your own; name its path with --corpus.")
        parts = {WHOLE: [Part(str(file), file) for file in files_at(place)]}
    elif spec is None or explicit:
        parts = user_parts(place, explicit, config.fractions)
    elif spec.embedded:
        parts = embedded_parts(spec.embedded)
    else:
        parts = _table_parts(spec, place)
    if config.splits is not None and not whole:
        parts = {split: documents for split, documents in parts.items() if split in config.splits}
    reset = config.reset or (spec.reset if spec else "none")
    layout = config.layout or (spec.layout if spec else "text")
    reading = config.reading or ("text" if spec is None or explicit else "exact")
    return Corpus(config.label, parts, spec, reset, layout, reading).limited(config.limit_tokens)


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
