"""``unrolled score``: columns, formats, tables, standard input, and what is refused."""

import gzip
import io
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command
from train.runs import experiment, write_text
from unrolled.data import CorpusConfig
from unrolled.train import train

TEXT = "the cat sleeps\nunder the hill\n"
STORIES = Path(os.environ.get("UNROLLED_DATA", "")) / "natural-stories" / "all_stories.tok.gz"


def table(text: str) -> list[dict[str, str]]:
    header, *rows = (line.split("\t") for line in text.splitlines())
    return [dict(zip(header, row, strict=True)) for row in rows]


def nats(err: str) -> float:
    return float(err.split(": ")[1].split()[0])


def test_rows_and_formats(unrolled: Command, trained: Path, tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    code, out, err = unrolled("score", trained, "text.txt", "--entropy", "--rank", "--top-k", 2)
    assert code == 0
    rows = table(out)
    assert [row["word"] for row in rows] == ["the", "cat", "sleeps", "\\n", "under", "the", "hill", "\\n"]
    assert [row["offset"] for row in rows[:3]] == ["0", "4", "8"]
    assert [row["tokens"] for row in rows[:4]] == ["3", "4", "7", "1"]
    assert err.startswith("6 words (")
    assert err.endswith(" 2 line ends, 30 tokens: " + err.split(": ")[1])
    code, lines, _ = unrolled("score", trained, "text.txt", "--entropy", "--rank", "--top-k", 2, "--json")
    found = [json.loads(line) for line in lines.splitlines()]
    assert list(found[0]) == list(rows[0])
    for row, one in zip(rows, found, strict=True):
        for name in ("surprisal_bits", "entropy_bits"):
            assert float(row[name]) == pytest.approx(one[name], abs=1e-6)
        assert json.loads(row["top"]) == one["top"]
        assert (int(row["rank"]), bool(int(row["unknown"]))) == (one["rank"], one["unknown"])
    assert [one["word"] for one in found if one["word"].strip()] == TEXT.split()
    assert unrolled("score", trained, "text.txt", "--format", "jsonl", "--out", "new/rows.jsonl").out == ""
    plain = [json.loads(line) for line in Path("new/rows.jsonl").read_text().splitlines()]
    for one, other in zip(plain, found, strict=True):
        assert one.pop("surprisal_bits") == pytest.approx(other["surprisal_bits"], rel=1e-5)
        assert one == {key: other[key] for key in one}
    assert not {"entropy_bits", "rank", "top"} & set(plain[0])
    tokens = table(unrolled("score", trained, "text.txt", "--unit", "token", "--no-ends").out)
    assert "".join(row["token"] for row in tokens) == TEXT.replace("\n", "")
    assert [row["word"] for row in tokens[:4]] == ["the", "the", "the", "cat"]


def test_standard_input_and_several_files(
    unrolled: Command, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text(TEXT)
    (tmp_path / "b.txt.gz").write_bytes(gzip.compress(TEXT.encode()))
    alone = table(unrolled("score", trained, "a.txt", "--dynamic", "sgd", "--set", "dynamic.lr=1").out)
    static = table(unrolled("score", trained, "a.txt").out)
    assert alone != static
    both = table(unrolled("score", trained, "a.txt", "b.txt.gz", "--dynamic", "sgd", "--set", "dynamic.lr=1").out)
    assert [row.pop("file") for row in both] == ["a.txt"] * 8 + ["b.txt.gz"] * 8
    assert both == [*alone, *alone], "a text does not depend on those before it"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TEXT.encode())))
    assert table(unrolled("score", trained, "-").out) == static
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert table(unrolled("score", trained).out) == []


def bits(rows: list[dict[str, str]]) -> list[float]:
    return [float(row["surprisal_bits"]) for row in rows]


def test_rows_line_up_with_a_table(unrolled: Command, trained: Path, tmp_path: Path) -> None:
    words = TEXT.split()
    rows = "".join(f'{n // 3}\t{word}\t"x{n}\n' for n, word in enumerate(words))
    (tmp_path / "rows.tsv").write_text("line\tword\tcode\n".replace("line", "item") + rows)
    (tmp_path / "text.txt").write_text(TEXT)
    arguments = ["--column", "word", "--keep", "code", "--keep", "item"]
    code, out, err = unrolled("score", trained, "rows.tsv", *arguments, "--break", "item")
    assert code == 0
    found = table(out)
    assert [(row["item"], row["word"], row["code"]) for row in found] == [
        (str(n // 3), word, f'"x{n}') for n, word in enumerate(words)
    ]
    text = unrolled("score", trained, "text.txt", "--no-ends")
    assert bits(table(text.out)) == pytest.approx(bits(found), rel=1e-6)
    assert nats(text.err) == pytest.approx(nats(err), rel=1e-6), "line ends count whether or not they have rows"
    assert len(table(unrolled("score", trained, "rows.tsv", *arguments, "--ends").out)) == len(words) + 1
    reset = unrolled("score", trained, "rows.tsv", *arguments, "--break", "item", "--reset", "line")
    assert bits(table(reset.out))[:3] == pytest.approx(bits(found)[:3], rel=1e-6)
    assert nats(reset.err) != nats(err)
    (tmp_path / "words.txt").write_text(TEXT.replace(" ", "\n").replace("sleeps\n", "sleeps\n\n"))
    alone = table(unrolled("score", trained, "words.txt", "--words").out)
    assert bits(alone) == pytest.approx(bits(table(text.out)), rel=1e-6)
    assert [row["word"] for row in alone] == [row["word"] for row in table(text.out)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["text.txt", "--unit", "wort"], "config key 'unit': input should be 'word' or 'token' (got 'wort')."),
        (["text.txt", "--reset", "lines"], "config key 'reset'"),
        (["text.txt", "--unit", "token", "--boundary", "trailing"], "it does not go with rows for tokens."),
        (["text.txt", "--format", "cvs"], "unknown format 'cvs'; known: jsonl, tsv."),
        (["text.txt", "--dtype", "float23"], "did you mean 'float32'?"),
        (["absent.txt"], "absent.txt does not exist."),
        (["."], ". is a folder, not a file."),
        (["text.txt", "--keep", "x"], "name its words with --column."),
        (["text.txt", "--column", "x"], "unknown column of text.txt: 'x'; known: the cat sleeps."),
        (["odd.txt"], "is not UTF-8 at byte 1;"),
        (["text.txt", "--dynamic", "kruase"], "did you mean 'krause'?"),
        (["text.txt", "--set", "cache.thta=1"], "unknown config key 'cache.thta'"),
    ],
    ids=range(12),
)
def test_refusals(refused: Callable[..., str], trained: Path, arguments: list[str], sentence: str) -> None:
    Path("text.txt").write_text(TEXT)
    Path("odd.txt").write_bytes(b"a\xff")
    assert sentence in refused("score", trained, *arguments, "--out", "rows.tsv")
    assert not Path("rows.tsv").exists()


@pytest.mark.skipif(not STORIES.is_file(), reason="natural-stories is not below $UNROLLED_DATA")
@pytest.mark.parametrize("rows_read", [1500, pytest.param(None, marks=pytest.mark.slow)], ids=["beginning", "whole"])
@pytest.mark.parametrize(
    "tokenizer", [{"name": "word"}, {"name": "bpe", "size": 400}, {"name": "byte"}], ids=["word", "bpe", "byte"]
)
def test_natural_stories(
    unrolled: Command, tmp_path: Path, tokenizer: dict[str, object], rows_read: int | None
) -> None:
    """One row a word, and the evaluation's total, for every kind of tokenizer."""
    head, *lines = gzip.decompress(STORIES.read_bytes()).decode().splitlines()
    lines = lines[:rows_read]
    stories = tmp_path / "stories.tsv"
    stories.write_text("\n".join([head, *lines]) + "\n")
    words = [line.split("\t")[0] for line in lines]
    folder = tmp_path / "stories"
    folder.mkdir()
    for split in ("train", "valid", "test"):
        (folder / f"{split}.txt").write_text(" ".join(words) + "\n")
    config = experiment(write_text(tmp_path / "text"), train={"steps": 3, "validations": 1}).model_copy(
        update={"corpus": CorpusConfig(path=str(folder))}
    )
    values = {**config.model_dump(), "tokenizer": tokenizer}
    run = train(type(config).parse(values), tmp_path / "run", "cpu")
    wanted = json.loads(unrolled("eval", run, "--json").out)
    code, out, err = unrolled("score", run, stories, "--column", "word", "--keep", "item")
    assert code == 0
    rows = table(out)
    assert [row["word"] for row in rows] == words
    assert rows[-1]["item"] == ("10" if rows_read is None else "2")
    assert nats(err) == pytest.approx(wanted["nats"], rel=1e-6)
    assert wanted["words"] == len(words) + 1
    out = unrolled("score", run, stories, "--column", "word", "--ends").out
    total = sum(float(row["surprisal_bits"]) for row in table(out)) * 0.6931471805599453
    assert total == pytest.approx(wanted["nats"], rel=1e-6)
