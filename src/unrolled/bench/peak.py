"""What the machine can do at most, measured beside what is timed, and the memory of one call."""

import ctypes
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from unrolled.bench.config import BenchConfig
from unrolled.bench.measure import Clock, timed
from unrolled.bench.plan import Row
from unrolled.kernels.linear.bf16 import lowered

__all__ = ["KINDS", "Peaks", "kind_of", "peak_memory", "peak_speed"]

KINDS = {"float32": "GFLOP/s", "bf16": "GFLOP/s", "copy": "GB/s", "read": "GB/s"}
"""The kinds of peak and the units in which they are shown."""


def kind_of(row: Row) -> str:
    """The peak that bounds a row: products of its precision, for an operation without any the copying of memory, for
    decoding the reading of weights."""
    if row.mode == "decode":
        return "read"
    operation = row.operation()
    return "copy" if operation is not None and operation.bound == "bytes" else row.precision


class Peaks:
    """One call of each kind, and how much it does: operations of a square matrix product, or bytes read and written.

    Args:
        config: the largest sizes.
        limit: seconds that one call may take: the sizes grow up to the largest as long as a call takes less, so that
            a slow machine measures a small product and no machine waits for a large one.
    """

    def __init__(self, config: BenchConfig, limit: float, clock: Clock = time.perf_counter):
        self._most = {"copy": config.copy_bytes, "read": config.read_bytes}
        self._products, self._least = config.peak_size, config.least_seconds
        self._limit, self._clock = limit, clock
        self._calls: dict[str, tuple[Callable[[], object], float]] = {}
        self.sizes: dict[str, int] = {}
        """Of each kind that was asked for: rows and columns of the matrices, or bytes."""

    def call(self, kind: str) -> tuple[Callable[[], object], float]:
        """What is timed for a kind, and its amount; fitted to the machine at the first call."""
        if kind not in self._calls:
            self._calls[kind] = self._fit(kind)
        return self._calls[kind]

    def speed(self, kind: str) -> float:
        """What the machine reaches of a kind now, a second."""
        call, amount = self.call(kind)
        return amount / timed(call, self._least, self._clock)

    def _fit(self, kind: str) -> tuple[Callable[[], object], float]:
        most = self._most.get(kind, self._products)
        size = min(most, _SMALLEST[kind])
        while True:
            call, amount = make_peak(kind, size)
            call()  # the first one also starts threads and makes code
            taken, larger = timed(call, 0.0, self._clock), min(most, 2 * size)
            if size == most or taken * amount_of_peak(kind, larger) / amount > self._limit:
                self.sizes[kind] = size
                return call, amount
            size = larger
            del call  # its numbers go before those of the next


_SMALLEST = {"float32": 256, "bf16": 256, "copy": 16_000_000, "read": 1_000_000}


def amount_of_peak(kind: str, size: int) -> float:
    """Operations of the product of two square matrices, or bytes read and written."""
    if kind in ("copy", "read"):
        return 4.0 * (size // 4) * (2 if kind == "copy" else 1)
    return 2.0 * size**3


def make_peak(kind: str, size: int) -> tuple[Callable[[], object], float]:
    """One call of a kind at a size, and its amount."""
    amount = amount_of_peak(kind, size)
    if kind == "copy":
        source, target = torch.ones(size // 4), torch.zeros(size // 4)
        return lambda: target.copy_(source), amount
    if kind == "read":
        return torch.ones(size // 4).sum, amount
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(size, size, generator=generator) for _ in range(2))
    if kind == "bf16":  # as every backend multiplies: where torch would emulate bf16, the rounded factors in float32
        a, b = lowered(a), lowered(b)
    result = torch.zeros(size, size, dtype=a.dtype)
    return lambda: torch.mm(a, b, out=result), amount


def peak_speed(config: BenchConfig, kind: str, seconds: float = 2.0, clock: Clock = time.perf_counter) -> float:
    """What the machine reaches of a kind now, a second: the best of three calls, at a size for which they and finding
    it take about ``seconds`` at most."""
    peaks = Peaks(config, seconds / 6, clock)
    return max(peaks.speed(kind) for _ in range(3))


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
