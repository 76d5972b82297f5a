"""Registries: one table, rows loaded on first use."""

import sys
from pathlib import Path
from typing import Any

import pytest

from unrolled.core.errors import UsageError
from unrolled.core.registry import Registry, nearest


def test_rows_are_loaded_when_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "late_module.py").write_text("class Late: pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    table: Registry[Any] = Registry("thing", {"late": "late_module:Late", "gone": "no_such_module_at_all:X"})
    assert list(table) == ["late", "gone"]
    assert "late" in table
    assert "late_module" not in sys.modules
    late = table["late"]
    assert late.__name__ == "Late"
    assert table["late"] is late
    with pytest.raises(ModuleNotFoundError, match="no_such_module_at_all"):
        _ = table["gone"]


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    table: Registry[Any] = Registry("thing", {"alpha": "a:A", "beta": "b:B"})
    with pytest.raises(UsageError, match=r"^unknown thing 'alpa'; did you mean 'alpha'\?$"):
        _ = table["alpa"]
    with pytest.raises(UsageError, match=r"^unknown thing 'qq'; known: alpha, beta\.$"):
        _ = table["qq"]


def test_names_are_not_taken_over() -> None:
    table: Registry[Any] = Registry("thing", {"alpha": "a:A"})
    table.add("beta", int)
    assert table["beta"] is int
    for name in ("alpha", "beta"):
        with pytest.raises(UsageError, match="already registered"):
            table.add(name, str)
    assert table["beta"] is int
    table.remove("beta")
    assert "beta" not in table
    table.remove("beta")


def test_nearest() -> None:
    assert nearest("mlsm", ["lstm", "mlstm", "gru"]) == "mlstm"
    assert nearest("q", ["lstm", "mlstm"]) is None
