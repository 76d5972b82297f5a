"""What a report consists of, the same in Markdown and HTML."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

__all__ = ["Drawn", "Section", "Table"]


@dataclass(frozen=True)
class Table:
    """heads: of the columns. rows: of as many cells. words: how many of the first columns are text, not numbers."""

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    words: int = 1


@dataclass(frozen=True)
class Drawn:
    """A figure in the folder ``figures``. name: of its file, without ``.svg``. caption: what is to be seen."""

    name: str
    caption: str


@dataclass(frozen=True)
class Section:
    """A part of the report. figures: by name, shown after the table. points: a list after the paragraphs."""

    title: str
    paragraphs: Sequence[str] = ()
    points: Sequence[str] = ()
    table: Table | None = None
    figures: Sequence[str] = ()

    def also(self, paragraph: str) -> Self:
        """With a further paragraph, after the others."""
        return replace(self, paragraphs=[*self.paragraphs, paragraph])
