"""What the machine can do at most, measured beside what is timed, and the memory of one call."""

import ctypes
import sys
from collections.abc import Callable
from pathlib import Path

import torch

from unrolled.bench.config import SCAN, BenchConfig
from unrolled.bench.measure import timed
from unrolled.bench.plan import Row

__all__ = ["KINDS", "Peaks", "kind_of", "peak_memory", "peak_speed"]

KINDS = {"float32": "GFLOP/s", "bf16": "GFLOP/s", "copy": "GB/s", "read": "GB/s"}
"""The kinds of peak and the units in which they are shown."""


def kind_of(row: Row) -> str:
    """The peak that bounds a row: products of its precision, for a scan the copying of memory, for decoding the reading
    of weights."""
    if row.mode == "decode":
        return "read"
    return "copy" if row.subject == SCAN else row.precision


class Peaks:
    """One call of each kind, and how much it does: operations of a square matrix product, or bytes read and written."""

    def __init__(self, config: BenchConfig):
        self._config = config
        self._calls: dict[str, tuple[Callable[[], object], float]] = {}

    def call(self, kind: str) -> tuple[Callable[[], object], float]:
        """What is timed for a kind, and its amount; the tensors are made at the first call."""
        if kind not in self._calls:
            self._calls[kind] = self._make(kind)
        return self._calls[kind]

    def _make(self, kind: str) -> tuple[Callable[[], object], float]:
        if kind == "copy":
            count = self._config.copy_bytes // 4
            source, target = torch.ones(count), torch.zeros(count)
            return lambda: target.copy_(source), 2.0 * 4 * count
        if kind == "read":
            numbers = torch.ones(self._config.read_bytes // 4)
            return numbers.sum, 4.0 * len(numbers)
        size = self._config.peak_size
        dtype = torch.bfloat16 if kind == "bf16" else torch.float32
        generator = torch.Generator().manual_seed(0)
        a, b = (torch.randn(size, size, generator=generator).to(dtype) for _ in range(2))
        result = torch.zeros(size, size, dtype=dtype)
        return lambda: torch.mm(a, b, out=result), 2.0 * size**3


def peak_speed(config: BenchConfig, kind: str) -> float:
    """What the machine reaches of a kind now, a second: the best of three calls."""
    call, amount = Peaks(config).call(kind)
    call()
    return amount / min(timed(call, config.least_seconds) for _ in range(3))


# What the kernel is told to set the peak of the resident set back to its present size.
_FORGET_PEAK = "5"


def peak_memory(call: Callable[[], object], process: Path = Path("/proc/self")) -> int | None:
    """By how many bytes the process grows at most during one call; None where the system does not say.

    What is alive before the call (weights, input, state) is not in it. Freed memory that the C library keeps is given
    back first, so that using it again counts.
    """
    if sys.platform.startswith("linux"):
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        if trim is not None:
            trim(0)
    try:
        (process / "clear_refs").write_text(_FORGET_PEAK, encoding="ascii")
        before = _high_water(process)
    except (OSError, ValueError):
        return None
    call()
    return max(0, _high_water(process) - before)


def _high_water(process: Path) -> int:
    """The peak of the resident set, in bytes. Raises ValueError where the system does not tell it."""
    for line in (process / "status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ValueError("no VmHWM")
