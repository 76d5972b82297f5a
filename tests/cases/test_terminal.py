"""Text of strangers on a terminal: shown, and not obeyed."""

import json
import os
import pty
import threading
from collections.abc import Sequence
from pathlib import Path

import pytest

from cases.process import Process, forked
from cli.conftest import Command

HOSTILE = "ok \x1b]0;owned\x07\x1b[2J\x1b[8m hidden\x1b[0m \x9b31m text\n"
SHOWN = "ok \\x1b]0;owned\\x07\\x1b[2J\\x1b[8m hidden\\x1b[0m \\x9b31m text"
# what our own tables and bars may send: colours, weights and the cursor
FORBIDDEN = ("\x1b]", "\x1b[2J", "\x1b[8m", "\x07", "\x9b")


def on_terminal(*arguments: object) -> tuple[int, str]:
    """Exit code and all that reaches a terminal."""
    ours, theirs = pty.openpty()
    process, found = Process(arguments, theirs, theirs, theirs), bytearray()
    os.close(theirs)

    def read() -> None:
        try:
            while data := os.read(ours, 1 << 16):
                found.extend(data)
        except OSError:  # how a terminal without a writer ends
            pass

    reader = threading.Thread(target=read)
    reader.start()
    code = process.wait()
    reader.join()
    os.close(ours)
    return code, found.decode("utf-8", errors="replace").replace("\r\n", "\n")


@pytest.fixture(autouse=True)
def _hostile(tmp_path: Path) -> None:
    (tmp_path / "e.txt").write_text(HOSTILE * 60, encoding="utf-8")


def test_lines_of_a_corpus() -> None:
    code, seen = on_terminal("corpora", "show", "e.txt", "-n", 2)
    assert (code, seen) == (0, f"{SHOWN}\n{SHOWN}\n")
    assert forked("corpora", "show", "e.txt", "-n", 2).out.decode() == HOSTILE * 2


@pytest.mark.parametrize("options", [[], ["--json"], ["--unit", "token"], ["--top-k", "2"]])
def test_words(options: Sequence[str], byte_run: Path) -> None:
    Path("e.txt").write_text(HOSTILE * 2, encoding="utf-8")
    code, seen = on_terminal("score", byte_run, "e.txt", *options)
    assert code == 0
    assert not [sign for sign in FORBIDDEN if sign in seen]
    plain = forked("score", byte_run, "e.txt").out.decode()
    assert "\x1b]0;owned\x07" in plain


def test_what_a_strangers_run_names(byte_run: Path, unrolled: Command, tmp_path: Path) -> None:
    import shutil

    run = shutil.copytree(byte_run, tmp_path / "run")
    config = json.loads((run / "config.json").read_text())
    config["corpus"] = {"path": "/nowhere\x1b[2J\x9b8m"}
    (run / "config.json").write_text(json.dumps(config))
    code, seen = on_terminal("eval", run, "--split", "test")
    assert code == 2
    assert "unrolled: /nowhere\\x1b[2J\\x9b8m does not exist" in seen
    assert not [sign for sign in FORBIDDEN if sign in seen]
    assert "\x1b[2J" in unrolled("eval", run, "--split", "test").err


def test_training_on_a_strangers_text(trained: Path) -> None:
    """Names in reports and bars, and a sample."""
    config = {"name": "own \x1b[2J", "path": "e.txt"}
    settings = [f"corpus.{key}={json.dumps(value)}" for key, value in config.items()]
    settings += ["model.width=8", "model.layers=1", "tokenizer.name=byte", "stream.columns=4", "stream.window=8"]
    settings += ["train.steps=2", "train.final_eval=false"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    code, seen = on_terminal("train", *arguments, "--out", "own-\x1b[2J-run", "--sample", 20)
    assert code == 0
    assert "own \\x1b[2J: " in seen
    assert not [sign for sign in FORBIDDEN if sign in seen]


def test_names_with_markup(trained: Path, tmp_path: Path) -> None:
    run = trained.rename(tmp_path / "[red]x[")
    code, seen = on_terminal("inspect", "gates", run, "--text", "plain.txt", "--limit", 10)
    assert code == 2
    Path("plain.txt").write_text("the cat sleeps\n")
    code, seen = on_terminal("inspect", "gates", run, "--text", "plain.txt", "--limit", 10)
    assert code == 0
    assert "[red]x[" in seen


def test_generated_text(byte_run: Path) -> None:
    """A model that learned escape sequences writes them."""
    code, seen = on_terminal("generate", byte_run, "--prompt", "ok \x1b[2J", "-n", 20)
    assert code == 0
    assert seen.startswith("ok \\x1b[2J")
