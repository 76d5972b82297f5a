"""A tiny trained run that tests copy, and the command as a function."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest

from train.runs import experiment, write_text
from unrolled.cli import main
from unrolled.train import train


class Outcome(NamedTuple):
    """Exit code, standard output, standard error."""

    code: int
    out: str
    err: str


Command = Callable[..., Outcome]


@pytest.fixture(autouse=True)
def _private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UNROLLED_DATA", raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def unrolled(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Run the command with arguments."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        monkeypatch.setattr(sys, "argv", ["unrolled", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capfd.readouterr()
        return Outcome(int(ended.value.code or 0), out, err)

    return run


@pytest.fixture
def refused(unrolled: Command) -> Callable[..., str]:
    """Run the command, demand one plain sentence and an exit code, and return the sentence."""

    def run(*arguments: object, code: int = 2) -> str:
        outcome = unrolled(*arguments)
        assert outcome.code == code, outcome
        assert "Traceback" not in outcome.err
        assert outcome.out == ""
        lines = [line for line in outcome.err.splitlines() if line.startswith("unrolled: ")]
        assert len(lines) == 1, outcome.err
        assert outcome.err.splitlines()[-1] == lines[0]
        assert lines[0].endswith((".", "?", ".toml")), lines[0]
        return lines[0].removeprefix("unrolled: ")

    return run


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A folder with train.txt, valid.txt and test.txt."""
    return write_text(tmp_path / "text")


@pytest.fixture(scope="session")
def _trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("trained")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(home / "cache"))
        config = experiment(write_text(home / "text"), train={"steps": 12, "validations": 2, "save_minutes": 9.0})
        return train(config, home / "run", "cpu")


@pytest.fixture
def trained(_trained: Path, tmp_path: Path) -> Path:
    """A finished run of its own for each test, as new as the test: `watch` calls old ones silent."""
    return Path(shutil.copytree(_trained, tmp_path / "trained", copy_function=shutil.copyfile))


@pytest.fixture
def begun(trained: Path) -> Path:
    """A run that was killed: it can be resumed."""
    (trained / "record.json").unlink()
    return trained
