"""Freed memory stays with the process where the C library can be asked."""

import subprocess
import sys
from pathlib import Path

import pytest

from unrolled.core import memory

PROGRAM = """
import resource, sys
from unrolled.core.memory import keep_freed_memory
if sys.argv[1] == "keep" and not keep_freed_memory():
    sys.exit(3)
import numpy as np
for _ in range(3):
    np.ones(64_000_000, np.uint8)
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(4):
    np.ones(64_000_000, np.uint8)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, how], capture_output=True, text=True)
    if done.returncode == 3:
        pytest.skip("the C library has no mallopt")
    return int(done.stdout)


def test_pages_are_not_mapped_anew():
    assert faults("keep") < 1000 < faults("leave")


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(memory.sys, "platform", "win32")
    assert memory.keep_freed_memory() is False


def test_free_memory(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    found = memory.free_memory()
    if Path("/proc/meminfo").exists():
        assert found is not None
        assert 1 << 20 < found < 1 << 50
    monkeypatch.setattr(memory, "Path", lambda name: tmp_path / "absent")
    assert memory.free_memory() is None
