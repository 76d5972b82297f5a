"""Tables of words as R, spreadsheets and people write them: every row is scored as itself, or refused."""

from pathlib import Path

import pytest

from cases.material import bits, by_hand, rows
from cli.conftest import Command

WORDS = ["the", "cat", "saw", "the", "dog", "."]
ITEMS = [1, 1, 1, 2, 2, 2]
LINES = "the cat saw\nthe dog .\n"
READ = ["--column", "word", "--keep", "item", "--break", "item"]

PLAIN = "item\tword\n" + "".join(f"{item}\t{word}\n" for item, word in zip(ITEMS, WORDS, strict=True))
NAMED = "item\tword\n" + "".join(f"{i}\t{item}\t{w}\n" for i, (item, w) in enumerate(zip(ITEMS, WORDS, strict=True), 1))
QUOTED = '"item"\t"word"\n' + "".join(f'"{item}"\t"{word}"\n' for item, word in zip(ITEMS, WORDS, strict=True))
TABLES = {
    "plain": PLAIN,
    "crlf": PLAIN.replace("\n", "\r\n"),
    "cr": PLAIN.replace("\n", "\r"),
    "mark": "\ufeff" + PLAIN,
    "no last line end": PLAIN.rstrip("\n"),
    "R, names of rows": NAMED,
    "R, quoted": QUOTED,
    "R, quoted words": '"item"\t"word"\n' + PLAIN.partition("\n")[2],
    "R, names of rows, quoted": '"item"\t"word"\n'
    + "".join(f'"{i}"\t{item}\t"{w}"\n' for i, (item, w) in enumerate(zip(ITEMS, WORDS, strict=True), 1)),
    "Excel, empty cells": "".join(f"{line}\t\t\n" for line in PLAIN.splitlines()),
    "Excel, empty cells beyond the header": "item\tword\n"
    + "".join(f"{line}\t\t\n" for line in PLAIN.splitlines()[1:]),
    "blanks around words": PLAIN.replace("cat", " cat "),
    "an empty first column of the header": "\titem\tword\n" + NAMED.partition("\n")[2],
}


@pytest.mark.parametrize("content", TABLES.values(), ids=TABLES)
def test_same_rows_whoever_wrote_them(content: str, arpa: Path, unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(content, newline="", encoding="utf-8")
    code, out, _ = unrolled("score", arpa, "t.tsv", *READ)
    assert code == 0
    assert [(row["item"], row["word"]) for row in rows(out)] == [(str(i), w) for i, w in zip(ITEMS, WORDS, strict=True)]
    assert bits(out) == pytest.approx(by_hand(LINES, ends=False), abs=2e-6)


def test_names_of_rows_are_told(arpa: Path, unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(NAMED)
    assert (
        "note: t.tsv: its rows have one field more than its header, as R writes them"
        in unrolled("score", arpa, "t.tsv", *READ).err
    )


@pytest.mark.parametrize("blank", ["\n", "\t\n", " \t \n", "\t\t\t\n", "\v\n"])
def test_blank_rows_end_lines(blank: str, arpa: Path, unrolled: Command, tmp_path: Path) -> None:
    content = f"item\tword\n1\tthe\n1\tcat\n1\tsaw\n{blank}2\tthe\n2\tdog\n2\t.\n{blank}"
    (tmp_path / "t.tsv").write_text(content, newline="")
    out = unrolled("score", arpa, "t.tsv", "--column", "word").out
    assert bits(out) == pytest.approx(by_hand(LINES, ends=False), abs=2e-6)


@pytest.mark.parametrize(
    ("content", "sentence"),
    [
        ("item\tword\n1\tthe\n2\n", "line 3 of t.tsv has 1 field(s), fewer than the header (2)"),
        ("item\tword\n1\tthe\n2\tcat\tx\n", "line 3 of t.tsv has 3 field(s), more than the header (2)"),
        ("item\tword\n1\t1\tthe\n2\tcat\n", "line 3 of t.tsv has 2 field(s), fewer than the header (3)"),
        ("item\tword\n1\tthe\n2\t\n", "line 3 of t.tsv has no word"),
        ("item\tword\tword\n1\tthe\tcat\n", "t.tsv has several columns named 'word'; rename all but one"),
        ("item\titem\tword\n1\t2\tthe\n", "t.tsv has several columns named 'item'; rename all but one"),
        ("item,word\n1,the\n", "t.tsv is not separated by tabs; save it as tab-separated text"),
        ('"item";"word"\n1;"the"\n', "t.tsv is not separated by tabs; save it as tab-separated text"),
        ("item\tWord\n1\tthe\n", "unknown column of t.tsv: 'word'; did you mean 'Word'?"),
        ('item\tword\n1\t"the"\n', "line 2 of t.tsv has a field in quotation marks; say what they are"),
        ('"item"\t"word"\n1\t"the\n', "line 2 of t.tsv opens quotation marks that it does not close"),
    ],
)
def test_refused(content: str, sentence: str, arpa: Path, unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(content)
    code, _, err = unrolled("score", arpa, "t.tsv", *READ)
    assert code == 2
    assert err.splitlines()[-1].startswith(f"unrolled: {sentence}")


@pytest.mark.parametrize(
    ("field", "word"),
    [
        ('"the"', "the"),
        ('""""', '"'),
        ('"\\""', '"'),
        ('"say ""it"""', 'say "it"'),
        ('"say \\"it\\""', 'say "it"'),
        ('"\\"the"', '"the'),
        ('"the\\""', 'the"'),
        ('"a""b"', 'a"b'),
        ('"C:\\"', "C:\\"),
        ('"a\tb"', "a\\tb"),
        ('5"', '5"'),
    ],
)
def test_quotes_of_programs(field: str, word: str, arpa: Path, unrolled: Command, tmp_path: Path) -> None:
    """Doubled as in CSV or after a backslash as in R, with tabs inside; the fields after it stay where they are."""
    (tmp_path / "t.tsv").write_text(f'"word"\t"item"\n{field}\t7\n')
    (found,) = rows(unrolled("score", arpa, "t.tsv", "--column", "word", "--keep", "item").out)
    assert (found["word"], found["item"]) == (word, "7")


def test_quotes_of_the_text(arpa: Path, unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text('item\tword\n1\t"the"\n1\t"\n1\tcat"\n')
    plain = rows(unrolled("score", arpa, "t.tsv", *READ, "--quotes", "plain").out)
    assert [row["word"] for row in plain] == ['"the"', '"', 'cat"']
    assert [row["unknown"] for row in plain] == ["1", "1", "1"]


def test_a_column_that_is_kept_twice_is_one(arpa: Path, unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / "t.tsv").write_text(PLAIN)
    once, twice = (unrolled("score", arpa, "t.tsv", *READ, *["--keep", "item"] * n).out for n in (0, 1))
    assert once == twice


def test_words_of_several_tokens(arpa: Path, unrolled: Command, tmp_path: Path) -> None:
    """A cell with a blank in it is one row, the sum of its words."""
    (tmp_path / "t.tsv").write_text("word\nthe cat\nsaw\n")
    found, each = rows(unrolled("score", arpa, "t.tsv", "--column", "word").out), by_hand("the cat saw\n")
    assert [row["tokens"] for row in found] == ["2", "1"]
    assert float(found[0]["surprisal_bits"]) == pytest.approx(each[0] + each[1], abs=2e-6)


def test_one_word_a_line(arpa: Path, unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / "w.txt").write_text("\ufeffthe\r\ncat\r\nsaw\r\n\r\nthe\r\ndog\r\n.\r\n", newline="", encoding="utf-8")
    out = unrolled("score", arpa, "w.txt", "--words").out
    assert bits(out) == pytest.approx(by_hand(LINES, ends=False), abs=2e-6)
    (tmp_path / "w.txt").write_text("the\tx\n")
    assert unrolled("score", arpa, "w.txt", "--words").code == 2


def test_utf_16_as_excel_saves_it(arpa: Path, unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / "t.txt").write_bytes(PLAIN.encode("utf-16"))
    code, _, err = unrolled("score", arpa, "t.txt", *READ)
    assert code == 2
    assert err.splitlines()[-1] == (
        "unrolled: t.txt is UTF-16 (it begins with the mark of that encoding, as what Excel calls Unicode text); save "
        "it as plain text in UTF-8."
    )


def test_tables_of_labelled_sentences_and_of_properties() -> None:
    """The other tables that people give are held to their headers as well."""
    from unrolled.analyse import read_labelled
    from unrolled.core.errors import UsageError

    Path("r.tsv").write_text("sentence\tlabel\n1\tgood one\t1\n2\tbad one\t0\n")
    found = read_labelled("r.tsv")
    assert (found.texts, found.positive.tolist()) == (("good one", "bad one"), [True, False])
    Path("e.csv").write_text("sentence,label,,\ngood one,1,,\n,,,\nbad one,0,,\n")
    assert read_labelled("e.csv").texts == ("good one", "bad one")
    for name, content, sentence in (
        ("a.csv", "sentence,label\na,1\nb,0,1\n", "3 field"),
        ("b.csv", "sentence,label,label\na,1,0\nb,0,1\n", "several columns named 'label'"),
    ):
        Path(name).write_text(content)
        with pytest.raises(UsageError, match=sentence):
            read_labelled(name)
