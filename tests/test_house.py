"""Rules of the house that can be counted."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LONGEST = 300
KINDS = {".py", ".cpp", ".h", ".js", ".css", ".html", ".toml"}


def written() -> list[Path]:
    """The files of code that belong to the project."""
    try:
        listed = subprocess.run(
            ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.splitlines()  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("this is no clone of the repository")
    return [ROOT / name for name in listed if Path(name).suffix in KINDS and (ROOT / name).is_file()]


def test_no_file_is_too_long() -> None:
    files = written()
    assert len(files) > 300
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in files}
    long = {str(path.relative_to(ROOT)): length for path, length in lengths.items() if length > LONGEST}
    assert not long, f"longer than {LONGEST} lines: {long}"


def test_only_the_table_of_tasks_knows_count_models() -> None:
    """Everybody else asks the task."""
    found = [
        f"{path.relative_to(ROOT)}: {line.strip()}"
        for path in written()
        if path.is_relative_to(ROOT / "src") and not path.is_relative_to(ROOT / "src" / "unrolled" / "tasks")
        for line in path.read_text(encoding="utf-8").splitlines()
        if "counts is None" in line or "counts is not None" in line
    ]
    assert not found
