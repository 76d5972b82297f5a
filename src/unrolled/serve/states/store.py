"""States that stay with the server, by handles that nobody can guess."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import NamedTuple

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.predict import KeptState
from unrolled.serve.engine.served import Served

__all__ = ["PREFIX", "GoneError", "Handles"]

PREFIX = "st-"
# kept beside the tensors: names, the entry itself
_OVERHEAD = 2048


class GoneError(UnrolledError):
    """There is no state of that handle any more."""

    def __init__(self) -> None:
        super().__init__("there is no such state here any more; send the text again, or keep the blob.")


class _Held(NamedTuple):
    served: Served
    kept: KeptState
    used: float


class Handles:
    """States by handle; the one that was used longest ago goes first when memory is short.

    A fork is another handle of the same value: states are never changed.

    Args:
        memory: bytes for all of them. lifetime: seconds after the last use. clock: seconds.
    """

    def __init__(self, memory: int, lifetime: float, clock: Callable[[], float] = time.monotonic):
        self._memory, self._lifetime, self._clock = memory, lifetime, clock
        self._held: OrderedDict[str, _Held] = OrderedDict()
        self._owners: dict[int, int] = {}  # handles of each value, by its identity
        self.bytes, self.evicted = 0, 0

    def __len__(self) -> int:
        return len(self._held)

    def put(self, served: Served, kept: KeptState) -> str:
        """Keep a state. Raises UsageError for one that is larger than all the memory."""
        if kept.size() + _OVERHEAD > self._memory:
            raise UsageError("a state of this model is larger than the memory that this server has for handles.")
        handle = PREFIX + secrets.token_urlsafe(16)
        self._held[handle] = _Held(served, kept, self._clock())
        shared = self._owners.get(id(kept), 0)
        self._owners[id(kept)] = shared + 1
        self.bytes += _OVERHEAD + (0 if shared else kept.size())
        self.tidy()
        while self.bytes > self._memory:
            self._forget(next(iter(self._held)))
            self.evicted += 1
        return handle

    def get(self, handle: str) -> tuple[Served, KeptState]:
        """The state of a handle. Raises GoneError."""
        self.tidy()
        held = self._held.get(handle)
        if held is None:
            raise GoneError
        self._held[handle] = held._replace(used=self._clock())
        self._held.move_to_end(handle)
        return held.served, held.kept

    def drop(self, handle: str) -> None:
        """Forget a handle. Raises GoneError."""
        self.get(handle)
        self._forget(handle)

    def tidy(self) -> None:
        """Forget what has not been used for its lifetime."""
        least = self._clock() - self._lifetime
        while self._held:
            handle = next(iter(self._held))
            if self._held[handle].used >= least:
                return
            self._forget(handle)
            self.evicted += 1

    def _forget(self, handle: str) -> None:
        kept = self._held.pop(handle).kept
        left = self._owners.pop(id(kept)) - 1
        if left:
            self._owners[id(kept)] = left
        self.bytes -= _OVERHEAD + (0 if left else kept.size())
