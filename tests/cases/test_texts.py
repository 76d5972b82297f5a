"""One content, however its bytes were written: marks, line ends, blanks, encodings, compression."""

import bz2
import gzip
import io
import lzma
import os
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cases.conftest import MakeRun
from cases.material import NATS, SENTENCES, bits, by_hand, rows, total
from cli.conftest import Command

MARK = "\ufeff"
PACK = {"gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
SAME = {
    "plain": SENTENCES,
    "mark": MARK + SENTENCES,
    "marks inside": SENTENCES.replace("the", MARK + "the").replace("\n", MARK + "\n"),
    "crlf": SENTENCES.replace("\n", "\r\n"),
    "cr": SENTENCES.replace("\n", "\r"),
    "crlf without the last": SENTENCES.replace("\n", "\r\n").rstrip(),
    "lf without the last": SENTENCES.rstrip(),
    "tabs": SENTENCES.replace(" ", "\t"),
    "vertical tabs and form feeds": SENTENCES.replace(" ", "\v").replace("cat", "cat\f"),
    "many blanks": SENTENCES.replace(" ", " \t  "),
    "blanks around lines": "".join(f"  {line}\t\r\n" for line in SENTENCES.splitlines()),
    "mark and crlf": MARK + SENTENCES.replace("\n", "\r\n"),
}


@pytest.mark.parametrize("content", SAME.values(), ids=SAME)
def test_same_words_whatever_bytes(content: str, arpa: Path, unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(content.encode())
    code, out, err = unrolled("score", arpa, "a.txt")
    assert code == 0
    assert [row["word"] for row in rows(out)][:8] == ["the", "cat", "saw", "the", "dog", ".", "\\n", "the"]
    assert bits(out) == pytest.approx(by_hand(SENTENCES), abs=2e-6)
    assert total(err) == pytest.approx(NATS, abs=1e-6)
    assert unrolled("score", arpa, "a.txt", "--exact").code == 0


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (MARK + "the\n", "a.txt holds a byte-order mark, which is no part of a text and is left out"),
        ("the\r\ndog\r\n", "a.txt has lines that end with CR LF, which is read as LF (--exact keeps every byte)"),
        ("the\rdog\r", "a.txt has lines that end with CR, which is read as LF (--exact keeps every byte)"),
        ("the\u00a0dog\n", "a.txt holds no-break spaces or other white space beyond ASCII"),
        ("the\u3000dog\n", "a.txt holds no-break spaces or other white space beyond ASCII"),
        ("the\u2028dog\n", "a.txt holds no-break spaces or other white space beyond ASCII"),
    ],
)
def test_what_was_changed_is_told_once(content: str, note: str, arpa: Path, unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(content * 3, newline="")
    notes = [line for line in unrolled("score", arpa, "a.txt").err.splitlines() if line.startswith("note: ")]
    assert len(notes) == 1
    assert notes[0].startswith(f"note: {note}")


def test_a_no_break_space_divides_no_words(arpa: Path, unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("the\u00a0dog\u0085saw\n")
    found = rows(unrolled("score", arpa, "a.txt").out)
    assert [(row["tokens"], row["unknown"]) for row in found] == [("1", "1"), ("1", "0")]


@pytest.mark.parametrize(
    "data",
    [
        SENTENCES.encode("utf-16"),
        SENTENCES.encode("utf-32"),
        MARK.encode("utf-16-be") + SENTENCES.encode("utf-16-be"),
        b"PK\x03\x04" + bytes(30),
        b"%PDF-1.7\n",
        b"{\\rtf1 the cat}\n",
        b"\x28\xb5\x2f\xfd" + bytes(20),
    ],
    ids=["utf-16", "utf-32", "utf-16-be", "zip", "pdf", "rtf", "zstd"],
)
def test_other_kinds_are_refused_by_words_and_bytes(
    data: bytes, arpa: Path, byte_run: Path, unrolled: Command, tmp_path: Path
) -> None:
    (tmp_path / "a.txt").write_bytes(data)
    for run in (arpa, byte_run):
        code, out, err = unrolled("score", run, "a.txt")
        assert (code, len(out.splitlines())) == (2, 1)
        assert "save it as plain text in UTF-8" in err.splitlines()[-1]
    assert unrolled("score", byte_run, "a.txt", "--exact").code == 0


def test_nul_is_refused_or_told(arpa: Path, byte_run: Path, unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(SENTENCES.encode("utf-16-le"))
    code, _, err = unrolled("score", arpa, "a.txt")
    assert code == 2
    assert err.splitlines()[-1].startswith("unrolled: a.txt holds a NUL byte at 1, so it is no text in UTF-8;")
    code, _, err = unrolled("score", byte_run, "a.txt")
    assert code == 0
    assert "note: a.txt holds NUL bytes, as no text does; is it one?" in err


def test_latin_1_is_refused_with_its_place(arpa: Path, unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes("the cat\nna\xefve\n".encode("latin-1"))
    code, _, err = unrolled("score", arpa, "a.txt")
    assert code == 2
    assert "a.txt is not UTF-8 at byte 10" in err
    (tmp_path / "t.tsv").write_bytes("word\nna\xefve\n".encode("latin-1"))
    code, _, err = unrolled("score", arpa, "t.tsv", "--column", "word")
    assert code == 2
    assert err.splitlines()[-1] == "unrolled: t.tsv is not UTF-8 at byte 7; convert it to UTF-8."


@pytest.mark.parametrize("end", ["\r\n", "\r"], ids=["crlf", "cr"])
@pytest.mark.parametrize("shift", range(4))
def test_line_ends_at_the_borders_of_blocks(
    end: str, shift: int, arpa: Path, unrolled: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unrolled.data.reading.BLOCK", 7 + shift)
    monkeypatch.setattr("unrolled.data.reading._READ", 5 + shift)
    (tmp_path / "a.txt").write_bytes((MARK + SENTENCES).replace("\n", end).encode())
    out = unrolled("score", arpa, "a.txt").out
    assert bits(out) == pytest.approx(by_hand(SENTENCES), abs=2e-6)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO((tmp_path / "a.txt").read_bytes())))
    assert unrolled("score", arpa).out == out


@pytest.mark.parametrize("name", ["a.txt", "a.gz", "a.bz2", "a.xz"])
@pytest.mark.parametrize("kind", PACK)
def test_compression_is_known_by_content(kind: str, name: str, arpa: Path, unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(PACK[kind](SENTENCES.encode()))
    assert total(unrolled("score", arpa, name).err) == pytest.approx(NATS, abs=1e-6)


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_compressed_text_on_standard_input_and_in_a_pipe(
    pack: Callable[[bytes], bytes], byte_run: Path, unrolled: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A model of bytes would read the compressed ones without complaint."""
    (tmp_path / "a.txt").write_text(SENTENCES)
    data, plain = pack(SENTENCES.encode()), unrolled("score", byte_run, "a.txt")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data)))
    assert unrolled("score", byte_run) == plain
    os.mkfifo("p")
    writer = threading.Thread(target=lambda: Path("p").write_bytes(data))
    writer.start()
    assert unrolled("score", byte_run, "p") == plain
    writer.join()
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(data[:-9])))
    code, _, err = unrolled("score", byte_run)
    assert code == 1
    assert err.splitlines()[-1].startswith("unrolled: standard input is damaged (its compression is broken)")


@pytest.mark.parametrize("content", [b"B", b"BZ", b"BZh", b"BZh9", b"\x1f", b"\x1f\x8b", b"\xfd7zXZ", b"x"])
def test_short_text_on_standard_input(
    content: bytes, byte_run: Path, unrolled: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content + b"\n")))
    code, out, _ = unrolled("score", byte_run, "--unit", "token")
    assert (code, len(rows(out))) == (0, len(content) + 1)


def test_a_name_that_promises_compression(arpa: Path, refused: Callable[..., str], tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_text(SENTENCES)
    assert "is named .gz and is not compressed so" in refused("train", "--corpus", "a.gz", "--dry-run", code=1)


def test_training_and_scoring_read_alike(count: MakeRun, unrolled: Command, tmp_path: Path) -> None:
    """A text with marks and CR LF gives the model of the same text without."""
    plain = count(SENTENCES * 5, "char", "plain")
    odd = count(MARK + SENTENCES.replace("\n", "\r\n") * 5, "char", "odd")
    (tmp_path / "a.txt").write_text(SENTENCES)
    assert unrolled("score", plain, "a.txt").out == unrolled("score", odd, "a.txt").out


@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_nothing_compressed(pack: Callable[[bytes], bytes], byte_run: Path, unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(pack(b""))
    assert rows(unrolled("score", byte_run, "a.txt").out) == []
