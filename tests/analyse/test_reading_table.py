"""Tables of measured words: how they are read, and what is refused."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from unrolled.analyse import ReadingColumns, read_measures
from unrolled.core.errors import UsageError

COLUMNS = ReadingColumns(measure="rt")
PLACED = ReadingColumns(measure="rt", order="zone")
ROWS = [("a", "x", 1, 300.5), ("b", "x", 2, "NA"), ("c,", "y", 1, 410), ("d", "y", 2, "")]

Write = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    def made(
        rows: list[tuple[object, ...]], name: str = "t.tsv", sep: str = "\t", head: str = "word item zone rt"
    ) -> str:
        lines = [sep.join(head.split()), *(sep.join(map(str, row)) for row in rows)]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        return str(tmp_path / name)

    return made


def plain(texts: list) -> list[tuple[str, tuple[str, ...], list[float | None]]]:
    return [(t.name, t.words, [None if np.isnan(value) else value for value in t.measures.tolist()]) for t in texts]


EXPECTED = [("x", ("a", "b"), [300.5, None]), ("y", ("c,", "d"), [410.0, None])]


def test_rows_in_order_and_by_places(write: Write) -> None:
    assert plain(read_measures(write(ROWS), COLUMNS)) == EXPECTED
    assert plain(read_measures(write([ROWS[i] for i in (3, 1, 2, 0)]), PLACED)) == EXPECTED
    quoted = [("a", "x", 1, 300.5), ("b", "x", 2, "NA"), ('"c,"', "y", 1, 410), ("d", "y", 2, "")]
    assert plain(read_measures(write(quoted, "t.csv", ","), COLUMNS)) == EXPECTED
    numbers = [("a", 10, 1, 1), ("b", 9, 1, 2)]
    assert [text.name for text in read_measures(write(numbers), PLACED)] == ["9", "10"]


def test_quotes(write: Write) -> None:
    rows = [('"Hm"', "x", 1, 3), ("b", "x", 2, 4)]
    with pytest.raises(UsageError, match=r"line 2 .* in quotation marks; say what they are"):
        read_measures(write(rows), COLUMNS)
    for quotes, word in (("plain", '"Hm"'), ("fields", "Hm")):
        columns = COLUMNS.model_copy(update={"quotes": quotes})
        assert read_measures(write(rows), columns)[0].words[0] == word
    with pytest.raises(UsageError, match="opens quotation marks"):
        read_measures(write([('"Hm', "x", 1, 3)]), COLUMNS.model_copy(update={"quotes": "fields"}))


def test_words_of_another_table(write: Write) -> None:
    whole = write([row[:3] for row in ROWS], "whole.tsv", head="word item zone")
    measured = write([ROWS[2], ROWS[0]])
    assert plain(read_measures(measured, PLACED, whole)) == EXPECTED
    with pytest.raises(UsageError, match="name the column of places with --order"):
        read_measures(measured, COLUMNS, whole)
    with pytest.raises(UsageError, match=r"word 1 of text x in line 2 of .* is 'q', and .* has 'a' there"):
        read_measures(write([("q", "x", 1, 3)]), PLACED, whole)
    with pytest.raises(UsageError, match=r"word 7 of text x .* has no word there \('a' here\)"):
        read_measures(write([("a", "x", 7, 3)]), PLACED, whole)
    holes = write([("a", "x", 1), ("b", "x", 3)], "holes.tsv", head="word item zone")
    with pytest.raises(UsageError, match="lacks word 2 of text x; a table of all words has no gaps"):
        read_measures(measured, PLACED, holes)


@pytest.mark.parametrize(
    ("rows", "columns", "message"),
    [
        ([("a", "x", 1, 3), ("b", "x", 3, 4)], PLACED, "lacks word 2 of text x; surprisal needs all words"),
        ([("a", "x", 2, 3), ("b", "x", 3, 4)], PLACED, "lacks word 1 of text x"),
        ([("a", "x", 1, 3), ("b", "x", 1, 4)], PLACED, "lines 2 and 3 of .* are both word 1 of text x"),
        ([("a", "x", 1, 3), ("b", "y", 1, 4), ("c", "x", 2, 5)], COLUMNS, "line 4 of .* goes back to text x"),
        ([("a", "x", 1, "slow")], COLUMNS, "line 2 of .* has 'slow' as rt, which is no number"),
        ([("a", "x", 1, "inf")], COLUMNS, "has 'inf' as rt"),
        ([("a", "x", "one", 3)], PLACED, "has 'one' as zone; the place of a word is a whole number"),
        ([("", "x", 1, 3)], COLUMNS, "line 2 of .* has no word"),
        ([("a", "x", 1)], COLUMNS, r"has 3 field\(s\), fewer than the header"),
        ([], COLUMNS, "has no rows under"),
        ([("a", "x", 1, 3)], ReadingColumns(measure="rtt"), "unknown column of .* 'rtt'"),
    ],
)
def test_refusals(write: Write, rows: list[tuple[object, ...]], columns: ReadingColumns, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        read_measures(write(rows), columns)


def test_what_is_no_table(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("only words here\n")
    with pytest.raises(UsageError, match="neither tabs nor commas"):
        read_measures(str(tmp_path / "text"), COLUMNS)
