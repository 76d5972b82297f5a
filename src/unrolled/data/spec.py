"""What a row of the table of corpora says."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

__all__ = ["LARGEST", "SPLITS", "WHOLE", "CorpusSpec", "Download", "FileSpec", "Published"]

SPLITS = ("train", "valid", "test")
WHOLE = "whole"

LARGEST = 1 << 30
"""Bytes that a fetched file may have where its size is not known: ten times the largest that is fetched."""

_ARCHIVE_SLACK = 1 << 20

Reset = Literal["none", "document", "line"]


@dataclass(frozen=True)
class FileSpec:
    """One file of a corpus.

    Args:
        names: accepted paths below the corpus folder, also with .gz, .bz2 or .xz added; the first is the canonical
            one. A name may hold ``*``: then all matching files belong to the split, in sorted order.
        sha256: of the uncompressed content, where known.
        md5: the same, for corpora published with an md5.
        size: uncompressed bytes, where known.
        exclude: names that ``*`` shall not take.
    """

    names: tuple[str, ...]
    sha256: str | None = None
    md5: str | None = None
    size: int | None = None
    exclude: tuple[str, ...] = ()

    @property
    def most(self) -> int:
        """Uncompressed bytes that a fetched copy has at most."""
        return LARGEST if self.size is None else self.size


@dataclass(frozen=True)
class Download:
    """Where a file may be fetched from; it is kept only if its content has the checksum of its FileSpec.

    Args:
        address: http or https address.
        file: canonical name of the file to make.
        member: the file's name inside the zip archive at the address, or None if the address is the file
            itself.
    """

    address: str
    file: str
    member: str | None = None

    def most(self, file: FileSpec) -> int:
        """Bytes that there are at the address at most: packing never makes a file much larger."""
        return file.most + (_ARCHIVE_SLACK if self.member else 0)


@dataclass(frozen=True)
class Published:
    """Counts of a split to check a copy against; None where no reliable figure is known.

    Args:
        lines: line ends.
        tokens: tokens of the default tokenizer, end symbols included.
        types: distinct tokens.
        unigram: figure of the unsmoothed unigram model of train over every token of this split: perplexity
            for words, bits per symbol for characters and bytes.
    """

    lines: int | None = None
    tokens: int | None = None
    types: int | None = None
    unigram: float | None = None


@dataclass(frozen=True)
class CorpusSpec:
    """A named corpus.

    Args:
        name: its name.
        description: one line.
        licence: terms of the text.
        folder: folder name below ``$UNROLLED_DATA`` or the cache; empty for an embedded corpus.
        files: split -> file; or ``{"all": file}`` for one file that is cut.
        cut: with one file: byte sizes of train, valid and test, or fractions, which are cut at line ends.
        tokenizer: default tokenizer.
        reset: where the recurrent state restarts by convention.
        layout: "symbols" for files that separate characters by spaces and write a space as ``_``.
        published: split -> counts to check against.
        downloads: verifiable addresses.
        extra_end: the unigram figures count one end symbol more per file (a last line without end).
        embedded: function name in ``unrolled.data.embedded`` for a corpus that comes with Python.
    """

    name: str
    description: str
    licence: str
    folder: str = ""
    files: Mapping[str, FileSpec] = field(default_factory=dict)
    cut: tuple[float, float, float] | None = None
    tokenizer: str = "byte"
    reset: Reset = "none"
    layout: Literal["text", "symbols"] = "text"
    published: Mapping[str, Published] = field(default_factory=dict)
    downloads: tuple[Download, ...] = ()
    extra_end: bool = False
    embedded: str | None = None

    @property
    def splits(self) -> tuple[str, ...]:
        """Split names in the order train, valid, test."""
        return tuple(s for s in SPLITS if self.cut is not None or self.embedded or s in self.files)
