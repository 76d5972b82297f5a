"""Tables of words: one unit a row, the text that they make, and refusals."""

from typing import Any

import pytest

from unrolled.core.errors import UsageError
from unrolled.data.reading import Part
from unrolled.evaluate import TextBlock, WordTable, read_text, read_words

TABLE = 'word\tzone\titem\nIf\t1\t1\n"you\t2\t1\n\nNew York\t1\t2\r\nis\t2\t2\n\n\nthe end\t1\t3\n'


def blocks(data: str, *table: Any) -> list[TextBlock]:
    return list(read_words(Part("rows.tsv", make=data.encode), WordTable(*table)))


def text_of(found: list[TextBlock]) -> str:
    return b"".join(block.data for block in found).decode()


def test_one_word_a_line():
    found = blocks("If\nyou \n\n  were\n")
    assert text_of(found) == "If you\nwere\n"
    units = [unit for block in found for unit in block.units]
    assert [(unit.text, unit.line, unit.index) for unit in units] == [
        ("If", 1, 1), ("you", 1, 2), ("\n", 1, 3), ("were", 2, 1), ("\n", 2, 2)
    ]  # fmt: skip


def test_columns_are_kept_and_quotes_are_plain():
    found = blocks(TABLE, "word", ("item", "zone"))
    assert text_of(found) == 'If "you\nNew York is\n\nthe end\n'
    words = [unit for block in found for unit in block.units if unit.kind == "word"]
    assert [unit.text for unit in words] == ["If", '"you', "New York", "is", "the end"]
    assert [unit.kept for unit in words] == [("1", "1"), ("1", "2"), ("2", "1"), ("2", "2"), ("3", "1")]
    assert [unit.new_document for unit in words] == [False, False, False, False, True]
    assert [unit.new_line for unit in words] == [False, False, True, False, True]


def test_lines_end_where_a_column_changes():
    data = "item\tword\n1\ta\n1\tb\n2\tc\n\n2\td\n1\te\n"
    assert text_of(blocks(data, "word", (), "item")) == "a b\nc\nd\ne\n"
    assert text_of(blocks(data, "word")) == "a b c\nd e\n"


@pytest.mark.parametrize("data", [TABLE, TABLE.rstrip("\n"), TABLE + "\n\n"], ids=range(3))
def test_the_text_of_a_table_has_the_same_units(data):
    """Read as running text, its words, places and flags are those of the table (words without spaces)."""
    found = blocks(data.replace("New York", "York").replace("the end", "end"), "word")
    again = list(read_text(Part("text", make=text_of(found).encode)))
    assert [unit._replace(stop=0, kept=()) for block in found for unit in block.units] == [
        unit._replace(stop=0) for block in again for unit in block.units
    ]
    for block in found:
        assert [block.data[: unit.stop].decode().endswith(unit.text) for unit in block.units]


def test_places_in_many_blocks(monkeypatch: pytest.MonkeyPatch):
    """Offsets count characters over all blocks."""
    monkeypatch.setattr("unrolled.data.reading.BLOCK", 7)
    data = "word\tn\n" + "".join(f"wörd{n}\t{n}\n" for n in range(30))
    found = blocks(data, "word", ("n",))
    assert len(found) > 5
    text = text_of(found)
    for unit in (unit for block in found for unit in block.units):
        assert text[unit.offset : unit.offset + len(unit.text)] == unit.text
        if unit.kind == "word":
            assert unit.text == f"wörd{unit.kept[0]}"


@pytest.mark.parametrize(
    ("data", "table", "sentence"),
    [
        (TABLE, ("wrod",), "unknown column of rows.tsv: 'wrod'; did you mean 'word'?"),
        (TABLE, ("word", ("itme",)), "did you mean 'item'?"),
        (TABLE, ("word", (), "zonne"), "did you mean 'zone'?"),
        (TABLE, (None,), "line 1 of rows.tsv has several columns"),
        ("word\titem\na\n", ("word", ("item",)), "line 2 of rows.tsv has 1 field(s), fewer than the header"),
        ("word\titem\n\t3\n", ("word", ("item",)), "line 2 of rows.tsv has no word"),
        ("a\n", (None, ("item",)), "name its words with --column"),
        ("word\tline\na\t1\n", ("word", ("line",)), "a column named 'line' cannot be kept"),
    ],
    ids=range(8),
)
def test_refusals(data: str, table: tuple[Any, ...], sentence: str):
    with pytest.raises(UsageError) as error:
        blocks(data, *table)
    assert sentence in str(error.value)
