"""The tokenizer tests use a private cache; those with real corpora skip where there are none."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from unrolled.data.corpora import find_files
from unrolled.data.table import CORPORA

_REAL = os.environ.get("UNROLLED_DATA")


@pytest.fixture(autouse=True)
def _private(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("UNROLLED_DATA", raising=False)


@pytest.fixture
def real(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Skips the test unless the named corpus is in ``$UNROLLED_DATA``."""

    def need(name: str) -> None:
        if not _REAL:
            pytest.skip("UNROLLED_DATA is not set")
        monkeypatch.setenv("UNROLLED_DATA", _REAL)
        if find_files(CORPORA[name]) is None:
            pytest.skip(f"{name} is not in UNROLLED_DATA")

    return need
