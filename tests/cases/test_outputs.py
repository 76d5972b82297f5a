"""What an output leaves as it was: other files, links, pipes, modes, and the text that is read."""

import gzip
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cases.material import SENTENCES, counted, rows
from cases.process import Process
from cli.conftest import Command

ROWS = 14


@pytest.fixture(autouse=True)
def _text(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(SENTENCES)


def lines(path: str | Path) -> int:
    return len(Path(path).read_text().splitlines())


def test_a_pipe_stays_a_pipe(arpa: Path, unrolled: Command) -> None:
    os.mkfifo("p")
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(Path("p").read_bytes()))
    reader.start()
    assert unrolled("score", arpa, "a.txt", "-o", "p").code == 0
    reader.join()
    assert got[0].count(b"\n") == ROWS
    assert stat.S_ISFIFO(Path("p").stat().st_mode)


@pytest.mark.parametrize("there", [True, False], ids=["to a file", "to nothing"])
def test_a_link_stays_a_link(there: bool, arpa: Path, unrolled: Command) -> None:
    Path("share").mkdir()
    if there:
        Path("share/r.tsv").write_text("old\n")
    Path("r.tsv").symlink_to("share/r.tsv")
    assert unrolled("score", arpa, "a.txt", "-o", "r.tsv").code == 0
    assert (Path("r.tsv").is_symlink(), lines("share/r.tsv")) == (True, ROWS)
    assert [path.name for path in Path("share").iterdir()] == ["r.tsv"]


def test_links_that_lead_to_each_other(arpa: Path, unrolled: Command) -> None:
    Path("a").symlink_to("b")
    Path("b").symlink_to("a")
    code, out, err = unrolled("score", arpa, "a.txt", "-o", "a")
    assert (code in (1, 2), out, err.count("\n"), Path("a").is_symlink()) == (True, "", 1, True)
    assert unrolled("score", arpa, "a").code == 2


def test_all_names_of_a_file_have_the_new_content(arpa: Path, unrolled: Command) -> None:
    Path("one.tsv").write_text("old and longer than what will be there\n" * 99)
    os.link("one.tsv", "two.tsv")
    assert unrolled("score", arpa, "a.txt", "-o", "one.tsv").code == 0
    assert (lines("two.tsv"), Path("one.tsv").samefile("two.tsv")) == (ROWS, True)


@pytest.mark.parametrize("mode", [0o600, 0o640, 0o664, 0o755])
def test_modes_are_kept(mode: int, arpa: Path, unrolled: Command) -> None:
    Path("r.tsv").touch()
    Path("r.tsv").chmod(mode)
    assert unrolled("score", arpa, "a.txt", "-o", "r.tsv").code == 0
    assert (stat.S_IMODE(Path("r.tsv").stat().st_mode), lines("r.tsv")) == (mode, ROWS)


def test_a_new_file_has_the_mode_of_new_files(arpa: Path, unrolled: Command) -> None:
    mask = os.umask(0o027)
    try:
        assert unrolled("score", arpa, "a.txt", "-o", "new/r.tsv").code == 0
    finally:
        os.umask(mask)
    assert stat.S_IMODE(Path("new/r.tsv").stat().st_mode) == 0o640


def test_a_file_that_may_not_be_written(arpa: Path, unrolled: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("r.tsv").write_text("old\n")
    Path("r.tsv").chmod(0o444)
    real = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK and real(path, mode))
    code, _, err = unrolled("score", arpa, "a.txt", "-o", "r.tsv")
    assert (code, err) == (2, "unrolled: cannot write r.tsv: permission denied; choose another folder.\n")
    assert Path("r.tsv").read_text() == "old\n"


@pytest.mark.skipif(not Path("/dev/shm").is_dir(), reason="no folder of files below /dev")
def test_files_below_dev_are_files(arpa: Path, unrolled: Command) -> None:
    """A folder in memory lies there; what is in it is replaced like any file, and holds whole runs."""
    import tempfile

    with tempfile.TemporaryDirectory(dir="/dev/shm") as name:
        for _ in range(2):
            assert unrolled("score", arpa, "a.txt", "-o", f"{name}/r.tsv").code == 0
        assert lines(f"{name}/r.tsv") == ROWS
        assert unrolled("eval", counted(Path(name), SENTENCES), "--split", "train", "--json").code == 0


@pytest.mark.parametrize("name", ["/dev/stdout", "/dev/fd/1", "/proc/self/fd/1", "link"])
def test_standard_output_by_its_name(name: str, arpa: Path, tmp_path: Path) -> None:
    """What a shell has put there already stays, as it does with a redirection to append."""
    Path("link").symlink_to("/dev/stdout")
    Path("got").write_text("before\n")
    out, null = os.open("got", os.O_WRONLY | os.O_APPEND), os.open(os.devnull, os.O_RDWR)
    assert Process(["score", arpa, "a.txt", "-o", name], null, out, null).wait() == 0
    assert lines("got") == 1 + ROWS
    assert Path("link").is_symlink()


@pytest.mark.parametrize("name", ["a.txt", "./a.txt", "hard", "soft"])
def test_a_text_is_not_written_over(name: str, arpa: Path, byte_run: Path, refused: Callable[..., str]) -> None:
    os.link("a.txt", "hard")
    Path("soft").symlink_to("a.txt")
    for arguments in (
        ["score", arpa, "a.txt", "-o", name],
        ["score", arpa, "a.txt", "a.txt", "--words", "--out", name],
        ["compress", byte_run, "a.txt", "-o", name],
    ):
        assert refused(*arguments).startswith(f"{Path(name)} is what is read, and would be lost")
    assert Path("a.txt").read_text() == SENTENCES


def test_names_as_long_as_the_system_allows(arpa: Path, unrolled: Command) -> None:
    name = "ä" * 125 + ".tsv"
    assert unrolled("score", arpa, "a.txt", "-o", name).code == 0
    assert lines(name) == ROWS


def test_gzipped_by_its_name(arpa: Path, unrolled: Command) -> None:
    assert unrolled("score", arpa, "a.txt", "-o", "r.tsv.gz").code == 0
    plain, packed = unrolled("score", arpa, "a.txt").out, Path("r.tsv.gz").read_bytes()
    assert gzip.decompress(packed).decode() == plain
    assert unrolled("score", arpa, "a.txt", "-o", "r.tsv.gz").code == 0
    assert Path("r.tsv.gz").read_bytes() == packed


def test_a_failure_leaves_what_was_there(arpa: Path, unrolled: Command) -> None:
    Path("r.tsv").write_text("old\n")
    Path("bad.txt").write_bytes(b"the cat\n" * 9 + b"\xff\n")
    code, out, err = unrolled("score", arpa, "bad.txt", "-o", "r.tsv")
    assert (code, out, Path("r.tsv").read_text()) == (2, "", "old\n")
    assert "is not UTF-8 at byte 72" in err
    assert not list(Path.cwd().glob(".*.part"))


@pytest.mark.parametrize("there", ["file", "link", "folder"])
def test_compress_writes_over_nothing(
    there: str, byte_run: Path, unrolled: Command, refused: Callable[..., str]
) -> None:
    path = Path("a.txt.unr")
    {"file": lambda: path.write_text("precious\n"), "link": lambda: path.symlink_to("nowhere"), "folder": path.mkdir}[
        there
    ]()
    assert refused("compress", byte_run, "a.txt").startswith("a.txt.unr exists; say with --out where")
    if there == "file":
        assert path.read_text() == "precious\n"
    assert unrolled("compress", byte_run, "a.txt", "--out", "other.unr").code == 0
    assert refused("decompress", byte_run, "other.unr", "--out", "other.unr").startswith("other.unr is what is read")
    assert unrolled("decompress", byte_run, "other.unr", "--out", "back.txt").code == 0
    assert Path("back.txt").read_text() == SENTENCES
    Path("other").write_text("precious\n")
    assert refused("decompress", byte_run, "other.unr").startswith("other exists; say with --out where")


def test_a_folder_of_figures_is_no_run(trained: Path, refused: Callable[..., str]) -> None:
    before = (trained / "record.json").read_bytes()
    said = refused("inspect", "gates", trained, "--limit", 20, "--out", trained)
    assert said.endswith("is a run, whose record would be lost; choose another --out.")
    assert (trained / "record.json").read_bytes() == before


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "record.json", "ngrams.safetensors"])
def test_training_writes_over_nothing(name: str, refused: Callable[..., str]) -> None:
    """A folder may hold a user's files, but none that a run would replace."""
    Path("out").mkdir()
    Path("out", name).write_text("precious\n")
    Path("text.txt").write_text(SENTENCES * 50)
    said = refused("train", "--corpus", "text.txt", "--set", "train.steps=1", "--out", "out", "--sample", 0)
    assert said.startswith(f"out holds {name}")
    assert [(path.name, path.read_text()) for path in Path("out").iterdir()] == [(name, "precious\n")]


def test_two_outputs_of_one_name(trained: Path, refused: Callable[..., str]) -> None:
    said = refused("eval", trained, "--per-token", "r", "--out", "r")
    assert "--per-token and --out" in said


def test_json_lines(arpa: Path, unrolled: Command) -> None:
    out = unrolled("score", arpa, "a.txt", "--json").out
    assert out.count("\n") == len(rows(unrolled("score", arpa, "a.txt").out)) == ROWS - 1
