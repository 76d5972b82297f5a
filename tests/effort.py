"""The rule on slow tests: who takes more than two CPU seconds fails, unless marked ``slow``.

CPU seconds, so that waiting for other processes does not count. They too grow on a slower processor, and on a busy one
whose caches and hyperthreads are shared. So a test above the limit is judged by a fixed piece of work done right after
it: as much as that takes longer than on the machine of the limit when quiet, the limit is higher.
"""

import json
import os
import time
from collections.abc import Callable, Generator

import pytest
import torch

__all__ = ["LIMIT", "Rule", "piece"]

LIMIT = 2.0
# CPU seconds of the piece on the machine of the limit (AMD EPYC, Zen 4) when quiet: the least of 400
_QUIET = 0.0473
# One run of a test is no measurement: what starts a process costs more than twice as much in one minute as in another.
_GRACE = 2.5


def piece() -> float:
    """CPU seconds of a fixed piece of work in one thread: arithmetic, objects all over the memory, torch's products."""
    matrix = torch.full((384, 384), 0.5)
    began, total = time.process_time(), 0
    for i in range(400_000):
        total += i & 7
    json.loads(json.dumps([{"number": i, "text": [str(i)]} for i in range(5000)]))
    for _ in range(20):
        _ = matrix @ matrix
    return time.process_time() - began


def _spent() -> float:
    """CPU seconds so far, of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


class Rule:
    """A plugin of pytest. measure: CPU seconds of the piece, see :func:`piece`."""

    def __init__(self, limit: float = LIMIT, measure: Callable[[], float] = piece):
        self.limit, self._measure, self._slowness = limit, measure, 1.0

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """A test that fails keeps its own failure."""
        began = _spent()
        result = yield
        seconds = _spent() - began
        if seconds > self.limit and item.get_closest_marker("slow") is None:
            self._slowness = max(self._slowness, *(self._measure() / _QUIET for _ in range(3)))
            if seconds > self.limit * self._slowness * _GRACE:
                pytest.fail(self._sentence(seconds), pytrace=False)
        return result

    def _sentence(self, seconds: float) -> str:
        scaled = f" x {self._slowness:.2f} on this machine" if self._slowness > 1 else ""
        took = f"took {seconds:.1f} CPU seconds, and the limit is {self.limit:g}{scaled}"
        return f"{took}: make it smaller, or mark it slow."
