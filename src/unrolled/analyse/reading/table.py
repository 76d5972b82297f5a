"""A table of the words of some texts, with a measure of each: what is read, and what is refused."""

import csv
import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

import numpy as np
from pydantic import Field

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.data.fields import Fields, column_of
from unrolled.data.reading import read_plain

__all__ = ["ReadingColumns", "ReadingText", "read_measures"]

_ABSENT = ("", "NA", "NaN", "nan", "NULL")


class ReadingColumns(Config):
    """The columns of a table of words, and how it is written."""

    word: str = Field(default="word", description="column with the words")
    measure: str = Field(description="column with the measure of a word, a number; empty or NA where there is none")
    text: str = Field(default="item", description="column that says which text a word is of")
    order: str | None = Field(
        default=None,
        description="column with the place of a word in its text: 1, 2, 3, ... (or from 0 on); absent: texts and words "
        "are in the order of the rows",
    )
    quotes: Literal["plain", "fields"] | None = Field(
        default=None,
        description="quotation marks around a field: characters of it (plain), or put there by the program that wrote "
        "the table (fields); absent: refused in a tab-separated table, and fields in a CSV",
    )


class ReadingText(NamedTuple):
    """One text. words: in their order. measures: (n,) float64, nan where a word has none."""

    name: str
    words: tuple[str, ...]
    measures: np.ndarray


class _Row(NamedTuple):
    """A row of a table. line: its number. order: the place of the word in its text, or None."""

    line: int
    text: str
    word: str
    order: int | None
    measure: float


def read_measures(name: str, columns: ReadingColumns, words_of: str | None = None) -> list[ReadingText]:
    """Read a table, tab-separated or CSV (told apart by its header), compressed or not.

    Args:
        name: file with one word a row.
        words_of: another table with all words of the same texts, under the same names of columns but the measure; words
            that ``name`` lacks are read there and have no measure. It needs ``columns.order``. Absent: the words of
            ``name`` are the texts.
    Returns:
        The texts, in the order of their first rows.
    Raises:
        UsageError: an unknown column; a measure that is no number; a word that is missing, twice there, or not that of
            the text; a text in two parts.
    """
    rows = _rows(name, columns, True)
    if columns.order is None:
        if words_of is not None:
            raise UsageError(
                "words are found in another table by their places; name the column of places with --order."
            )
        return [_text(text, part) for text, part in _in_order(rows, name).items()]
    measured = _by_place(rows, name)
    if words_of is None:
        for text, places in measured.items():
            low = min(places)
            gap = next((at for at in range(low, low + len(places)) if at not in places), None)
            gap = 1 if low > 1 else gap
            if gap is not None:
                raise UsageError(
                    f"{name} lacks word {gap} of text {text}; surprisal needs all words: put it there with an empty "
                    "measure, or name a table of all words with --words-of."
                )
        return [_text(text, [places[at] for at in sorted(places)]) for text, places in measured.items()]
    return list(_matched(measured, name, _read_all(words_of, columns), words_of))


def _read_all(name: str, columns: ReadingColumns) -> dict[str, dict[int, _Row]]:
    """All words of some texts: text -> place -> row. Raises UsageError where a place has no word."""
    found = _by_place(_rows(name, columns, False), name)
    for text, places in found.items():
        low = min(places)
        gap = 1 if low > 1 else next((at for at in range(low, low + len(places)) if at not in places), None)
        if gap is not None:
            raise UsageError(f"{name} lacks word {gap} of text {text}; a table of all words has no gaps.")
    return found


def _matched(
    measured: dict[str, dict[int, _Row]], name: str, whole: dict[str, dict[int, _Row]], words_of: str
) -> Iterator[ReadingText]:
    for text, places in measured.items():
        for at, row in places.items():
            known = whole.get(text, {}).get(at)
            if known is None or known.word != row.word:
                there = f"has no word there ({row.word!r} here)" if known is None else f"has {known.word!r} there"
                here = "" if known is None else f" is {row.word!r}, and"
                raise UsageError(
                    f"word {at} of text {text} in line {row.line} of {name}{here} {words_of} {there}; the two tables "
                    "are not of the same text: correct the words or their places."
                )
    for text, places in whole.items():
        rows = [places[at] for at in sorted(places)]
        own = measured.get(text, {})
        yield _text(
            text, [row._replace(measure=own[at].measure if (at := row.order) in own else math.nan) for row in rows]
        )


def _text(name: str, rows: Sequence[_Row]) -> ReadingText:
    return ReadingText(name, tuple(row.word for row in rows), np.array([row.measure for row in rows]))


def _in_order(rows: Sequence[_Row], name: str) -> dict[str, list[_Row]]:
    """The rows of each text. Raises UsageError where a text goes on after another one."""
    found: dict[str, list[_Row]] = {}
    last = None
    for row in rows:
        if row.text != last and row.text in found:
            raise UsageError(
                f"line {row.line} of {name} goes back to text {row.text}, so its rows are in no order of reading; name "
                "the column with the places of words with --order."
            )
        found.setdefault(row.text, []).append(row)
        last = row.text
    return found


def _by_place(rows: Sequence[_Row], name: str) -> dict[str, dict[int, _Row]]:
    """Text -> place -> row. Raises UsageError for two words at one place."""
    found: dict[str, dict[int, _Row]] = {}
    for row in rows:
        places = found.setdefault(row.text, {})
        assert row.order is not None
        if row.order in places:
            raise UsageError(
                f"lines {places[row.order].line} and {row.line} of {name} are both word {row.order} of text "
                f"{row.text}; leave one, such as the mean over readers."
            )
        places[row.order] = row
    # texts in the order of their names where these are numbers, since rows may be sorted by anything
    return dict(sorted(found.items(), key=_by_number))


def _by_number(item: tuple[str, object]) -> tuple[int, int, str]:
    plain = item[0].isascii() and item[0].isdigit()
    return (0, int(item[0]), item[0]) if plain else (1, 0, item[0])


def _rows(name: str, columns: ReadingColumns, measured: bool) -> list[_Row]:
    header, *rows = _records(name, columns.quotes) or [[]]
    if not rows:
        raise UsageError(f"{name} has no rows under a header; give a table with one word a row.")
    at = {key: column_of(header, getattr(columns, key), name) for key in ("word", "text")}
    order = None if columns.order is None else column_of(header, columns.order, name)
    measure = column_of(header, columns.measure, name) if measured else None
    fields, found = Fields(name, len(header)), []
    for line, row in enumerate(rows, 2):
        if not any(row):
            continue
        row, where = fields.of(row, f"line {line} of {name}"), f"line {line} of {name}"
        word = row[at["word"]].strip()
        if not word:
            raise UsageError(f"{where} has no word; every row needs one.")
        place = None if order is None else _place(row[order], where, columns.order or "")
        value = math.nan if measure is None else _number(row[measure], where, columns.measure)
        found.append(_Row(line, row[at["text"]], word, place, value))
    if not found:
        raise UsageError(f"{name} has no rows under its header; give a table with one word a row.")
    return found


def _place(value: str, where: str, column: str) -> int:
    try:
        place = int(value)
    except ValueError:
        place = -1
    if place < 0:
        raise UsageError(f"{where} has {value!r} as {column}; the place of a word is a whole number.")
    return place


def _number(value: str, where: str, column: str) -> float:
    if value.strip() in _ABSENT:
        return math.nan
    try:
        number = float(value)
    except ValueError:
        number = math.inf
    if not math.isfinite(number):
        raise UsageError(
            f"{where} has {value!r} as {column}, which is no number; name another column with --measure, or leave the "
            "field empty."
        )
    return number


def _records(name: str, quotes: str | None) -> list[list[str]]:
    """Fields of every line, the header first."""
    text = read_plain(name)
    first = text.split("\n", 1)[0]
    if "\t" not in first and "," not in first:
        raise UsageError(f"{name} is no table: its header has neither tabs nor commas; save it as TSV or CSV.")
    tabs = "\t" in first
    lines = text.split("\n")
    if quotes is None and tabs:
        for number, line in enumerate(lines, 1):
            if any(len(field) > 1 and field[0] == field[-1] == '"' for field in line.split("\t")):
                raise UsageError(
                    f"line {number} of {name} has a field in quotation marks; say what they are: --quotes plain "
                    "(characters of the word), or --quotes fields (put there by the program that wrote the table)."
                )
    if quotes == "plain" or (quotes is None and tabs):
        return list(csv.reader(lines, delimiter="\t" if tabs else ",", quoting=csv.QUOTE_NONE))
    try:
        return list(csv.reader(lines, delimiter="\t" if tabs else ",", strict=True))
    except csv.Error as error:
        raise UsageError(
            f"{name} opens quotation marks that it does not close; correct it, or say --quotes plain."
        ) from error
