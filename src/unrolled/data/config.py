"""The settings of a corpus: which text to read, and how."""

import glob
from datetime import date
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, model_validator

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.data.built import built_index
from unrolled.data.slices import check_slices
from unrolled.data.spec import SPLITS
from unrolled.data.table import CORPORA

__all__ = ["CorpusConfig"]


def _text(value: Any) -> Any:
    """A year or a day as it is written."""
    return value.isoformat() if isinstance(value, date) else str(value) if type(value) is int else value


_Name = Annotated[str, BeforeValidator(_text)]


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
    time: str | None = Field(
        default=None,
        min_length=1,
        description="when each document of your own text was written: a field of JSON lines (date), or, with a %, a "
        "part of file names (%Y-%m); documents are then cut into slices in time",
    )
    field: str = Field(default="text", min_length=1, description="with JSON lines: the field of the text")
    slices: Literal["year", "quarter", "month"] | tuple[_Name, ...] = Field(
        default="year",
        description="slices in time, or days that they are cut at, as [2019-07-01, 2020-01-01]; such a day is of the "
        "later",
    )
    slice: Annotated[str | None, BeforeValidator(_text)] = Field(
        default=None, description="the slice in time whose documents there are, such as 2019 (absent: all)"
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
        check_slices(self)
        return self

    @property
    def label(self) -> str:
        """The corpus's name in records and messages."""
        name = self.name or Path(self.path or self.train or "pydoc").name
        return name if self.slice is None else f"{name} {self.slice}"

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
