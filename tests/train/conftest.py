"""Training tests use a private cache, none of the corpora of this machine, and a generated text."""

from pathlib import Path

import pytest

from train.runs import write_text


@pytest.fixture(autouse=True)
def _private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UNROLLED_DATA", raising=False)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A folder with train.txt, valid.txt and test.txt."""
    return write_text(tmp_path / "text")
