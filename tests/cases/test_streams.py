"""Standard streams: encodings of locales, readers that leave, what is full or closed, Ctrl-C."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cases.conftest import MakeRun
from cases.material import NATS, SENTENCES, total
from cases.process import Process, forked

ODD = "the naïve 猫 saw the dog \U0001f600 .\n"
ENCODINGS = ["cp1252", "ascii", "latin-1", "utf-8"]


@pytest.fixture
def long(tmp_path: Path) -> Path:
    """A text whose rows fill a pipe several times."""
    path = tmp_path / "long.txt"
    path.write_text(SENTENCES * 2000)
    return path


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_rows_are_utf_8_in_any_locale(encoding: str, arpa: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(ODD, encoding="utf-8")
    code, out, err = forked("score", arpa, "a.txt", encoding=encoding)
    assert code == 0
    assert [line.split("\t")[3] for line in out.decode().splitlines()[1:]] == [*ODD.split(), "\\n"]
    assert b"Traceback" not in err
    assert forked("score", arpa, "a.txt", "-o", "o.tsv", encoding=encoding).code == 0
    assert (tmp_path / "o.tsv").read_bytes() == out


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_standard_input_is_utf_8_in_any_locale(encoding: str, arpa: Path, count: MakeRun, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(ODD, encoding="utf-8")
    plain = forked("score", arpa, "a.txt")
    assert forked("score", arpa, data=ODD.encode(), encoding=encoding).out == plain.out
    run = count(ODD * 5, "char")
    code, out, _ = forked("generate", run, "--prompt", "-", "-n", 3, data="naïve 猫".encode(), encoding=encoding)
    assert (code, out.startswith("naïve 猫".encode())) == (0, True)
    assert forked("generate", run, "-p", "猫", "-n", 3, encoding=encoding).out.startswith("猫".encode())
    code, _, err = forked("generate", run, "--prompt", "-", data="na\xefve".encode("latin-1"), encoding=encoding)
    assert (code, err) == (2, b"unrolled: standard input is not UTF-8 at byte 2, in line 1; convert it to UTF-8.\n")


def test_the_locale_of_the_process(arpa: Path, tmp_path: Path) -> None:
    """The real thing once: Python's own start in another locale."""
    (tmp_path / "a.txt").write_text(ODD, encoding="utf-8")
    environment = {**os.environ, "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    environment["PYTHONIOENCODING"] = "cp1252"
    command = [sys.executable, "-m", "unrolled", "score", str(arpa), "a.txt"]
    done = subprocess.run(command, capture_output=True, env=environment, check=False)
    assert done.returncode == 0
    assert done.stdout.decode().splitlines()[3].startswith("1\t3\t10\t猫\t")


def test_errors_in_any_locale(arpa: Path) -> None:
    code, out, err = forked("score", arpa, "猫.txt", encoding="cp1252")
    assert (code, out, err.decode()) == (2, b"", "unrolled: 猫.txt does not exist.\n")


def test_names_that_are_no_text(arpa: Path, tmp_path: Path) -> None:
    """A file's name may hold bytes that are not UTF-8."""
    name = os.fsdecode(b"a\xff.txt")
    for each in (name, "b.txt"):
        (tmp_path / each).write_text(SENTENCES)
    code, out, _ = forked("score", arpa, name, "b.txt")
    assert (code, out.splitlines()[1].split(b"\t")[0]) == (0, b"a\\udcff.txt")
    assert forked("score", arpa, name, "b.txt", "-o", "o.tsv").code == 0
    assert Path("o.tsv").read_bytes() == out
    code, _, err = forked("train", "--set", f"corpus.train={name}", "--out", "r")
    assert (code, err.count(b"\n"), Path("r").exists()) == (2, 1, False)


@pytest.mark.parametrize("to", ["standard output", "file"])
def test_a_reader_that_leaves(to: str, arpa: Path, long: Path, tmp_path: Path) -> None:
    out, into = os.pipe()
    errors = os.open(tmp_path / "err", os.O_CREAT | os.O_WRONLY)
    arguments = ["score", arpa, long]
    null = os.open(os.devnull, os.O_RDWR)
    if to == "file":
        os.mkfifo("p")
        arguments += ["-o", "p"]
        process = Process(arguments, null, null, errors)
        os.close(out)
        out = os.open("p", os.O_RDONLY)
    else:
        process = Process(arguments, null, into, errors)
    os.close(into)
    assert os.read(out, 4) == b"line"
    os.close(out)
    assert process.wait() == 141
    assert (tmp_path / "err").read_bytes() == b""


def test_a_full_standard_output(arpa: Path, long: Path) -> None:
    full, null, (out, into) = os.open("/dev/full", os.O_WRONLY), os.open(os.devnull, os.O_RDWR), os.pipe()
    code = Process(["score", arpa, long], null, full, into).wait()
    os.close(into)
    assert (code, os.read(out, 999)) == (1, b"unrolled: cannot write to standard output: No space left on device.\n")
    assert Process(["score", arpa, long], null, null, full).wait() == 0  # what cannot be said is not said


@pytest.mark.parametrize("closed", ["stdin", "stdout", "stderr"])
def test_closed_streams(closed: str, arpa: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(SENTENCES)
    null = os.open(os.devnull, os.O_RDWR)
    given, out, err = (None if name == closed else null for name in ("stdin", "stdout", "stderr"))
    arguments = ["score", arpa, *(() if closed == "stdin" else ("a.txt",))]
    assert Process(arguments, given, out, err).wait() == {"stdin": 2, "stdout": 1, "stderr": 0}[closed]
    assert Process(["score", arpa, "a.txt", "-o", "o.tsv"], given, out, err).wait() == 0
    assert len((tmp_path / "o.tsv").read_text().splitlines()) == 14


def test_rows_come_as_the_text_does(arpa: Path) -> None:
    """Line for line, so that a program may answer what it reads."""
    (given, feed), (out, into) = os.pipe(), os.pipe()
    null = os.open(os.devnull, os.O_RDWR)
    process = Process(["score", arpa], given, into, null)
    os.close(into)
    with os.fdopen(out, "rb") as rows:
        for line in (b"the dog .\n", b"cat\n"):
            os.write(feed, line)
            assert line == b"cat\n" or rows.readline().startswith(b"line\t")
            assert [rows.readline().split(b"\t")[3] for _ in line.split()] == line.split()
            assert rows.readline().split(b"\t")[3] == b"\\n"
        os.close(feed)
        assert rows.readline() == b""
    os.close(given)
    assert process.wait() == 0


@pytest.mark.parametrize("verb", ["score", "generate", "eval"])
def test_ctrl_c(verb: str, trained: Path, tmp_path: Path) -> None:
    """130 and a word, whatever is under way."""
    (tmp_path / "long.txt").write_text("the cat sleeps\n" * 100_000)
    arguments: list[object] = {
        "score": ["score", trained, "long.txt"],
        "generate": ["generate", trained, "-n", 1_000_000],
        "eval": ["eval", trained, "--corpus", "long.txt", "--split", "whole"],
    }[verb]
    out = os.open(tmp_path / "out", os.O_CREAT | os.O_WRONLY)
    null, (errors, into) = os.open(os.devnull, os.O_RDWR), os.pipe()
    process = Process(arguments, null, out, into)
    os.close(into)
    assert process.interrupt() == 130
    assert os.read(errors, 9999) == b"unrolled: interrupted.\n"


def test_ctrl_c_at_the_start(arpa: Path) -> None:
    """While everything is being imported nothing is begun, and nothing is said."""
    process = subprocess.Popen(
        [sys.executable, "-m", "unrolled", "score", str(arpa)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        # a shell lets what runs in its background ignore the signal, and that is inherited
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode in (-signal.SIGINT, 130)
    assert b"Traceback" not in err


def test_an_output_that_is_full(arpa: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(SENTENCES)
    code, out, err = forked("score", arpa, "a.txt", "-o", "/dev/full")
    assert (code, out) == (1, b"")
    assert err.startswith(b"unrolled: no space left while writing /dev/full")


def test_process_substitution(arpa: Path, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text(SENTENCES)
    command = f'"{sys.executable}" -m unrolled score "{arpa}" <(gzip -c a.txt) -o >(cat > got)'
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")
    assert total(done.stderr) == pytest.approx(NATS, abs=1e-6)
    for _ in range(100):  # the shell does not wait for it
        if len(Path("got").read_text().splitlines()) == 14:
            break
        time.sleep(0.02)
    else:
        raise AssertionError(Path("got").read_text())
