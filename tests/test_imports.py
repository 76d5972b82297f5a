"""Imports run downward only: the order of the parts, held on the syntax trees of the source."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "unrolled"

ORDER = (
    "core",
    "kernels",
    "data",
    "tokenizer",
    "optim",
    "counts",
    "cells",
    "model",
    "predict",
    "task",
    "runs",
    "evaluate",
    "generate",
    "tasks",
    "compress",
    "analyse",
    "train",
    "compare",
    "bench",
    "serve",
    "hf",
    "api",
    "cli",
)
"""Each part may import those before it, and itself."""

ONLY = {
    "core": set(),
    "kernels": {"core"},
    "data": {"core"},
    "tokenizer": {"core", "data"},
    "optim": {"core"},
    "counts": {"core"},
    "cells": {"core", "kernels"},
    "model": {"core", "kernels", "cells"},
    "predict": {"core", "kernels", "data", "tokenizer", "optim", "counts", "cells", "model"},
    "task": {"core", "data", "tokenizer", "model", "predict", "search"},
}
"""The lower parts are held closer: nothing but these."""


def part_of(path: Path, source: Path = SOURCE) -> str:
    """``core`` for unrolled/core/config.py, ``runs`` for unrolled/runs.py."""
    return path.relative_to(source).parts[0].removesuffix(".py")


def imported_parts(tree: ast.AST) -> set[str]:
    """The parts that a module imports, at its top or inside functions; importing ``unrolled`` itself is free."""
    names: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    parts = [name.split(".") for name in names]
    return {part[1] for part in parts if part[0] == "unrolled" and len(part) > 1 and part[1] != "__version__"}


def faults(part: str, imported: set[str]) -> set[str]:
    """What ``part`` imports and may not."""
    allowed = ONLY.get(part, set(ORDER[: ORDER.index(part)]))
    return imported - allowed - {part}


FILES = [
    path
    for path in sorted(SOURCE.rglob("*.py"))
    if path.parent != SOURCE or path.name not in ("__init__.py", "__main__.py")
]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_imports_run_downward(path: Path) -> None:
    part = part_of(path)
    assert part in ORDER, "a new part takes its place in the order"
    wrong = faults(part, imported_parts(ast.parse(path.read_text(encoding="utf-8"))))
    assert not wrong, f"{part} imports {', '.join(sorted(wrong))}"


@pytest.mark.parametrize(
    ("part", "code", "wrong"),
    [
        ("core", "from unrolled.data import Stream", {"data"}),
        ("core", "import unrolled\nfrom unrolled import __version__", set()),
        ("kernels", "from unrolled.cells.base import Cell", {"cells"}),
        ("kernels", "import unrolled.core.tree", set()),
        ("data", "from unrolled import kernels", {"kernels"}),
        ("model", "def f():\n    import unrolled.train.loop as x", {"train"}),
        ("model", "if True:\n    from unrolled.evaluate import static", {"evaluate"}),
        ("model", "from unrolled.data import Stream", {"data"}),
        ("evaluate", "from unrolled.data import Stream\nfrom unrolled.train import resume", {"train"}),
        ("train", "from unrolled.evaluate import evaluate\nimport torch", set()),
    ],
)
def test_an_upward_import_is_noticed(part: str, code: str, wrong: set[str]) -> None:
    assert faults(part, imported_parts(ast.parse(code))) == wrong


def test_relative_imports_are_refused() -> None:
    with pytest.raises(AssertionError, match="absolute"):
        imported_parts(ast.parse("from . import x"))


def test_the_files_are_found() -> None:
    assert {"core", "kernels", "cells", "model", "train", "cli"} <= {part_of(path) for path in FILES}


def test_import_is_light() -> None:
    """``import unrolled`` loads neither torch nor anything else that takes time."""
    code = "import sys, unrolled; print(sorted({'torch', 'numpy', 'pydantic', 'typer'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
