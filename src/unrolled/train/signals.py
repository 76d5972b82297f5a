"""Ctrl-C and SIGTERM as a request to save and exit."""

import contextlib
import signal
from typing import Any, Self

__all__ = ["StopRequest"]


class StopRequest:
    """A context manager that notes the first SIGINT or SIGTERM; the second one raises KeyboardInterrupt.

    Attributes:
        name, number: of the signal that came, or None and 0.
    """

    def __init__(self) -> None:
        self.name: str | None = None
        self.number = 0
        self._old: dict[int, Any] = {}

    def __bool__(self) -> bool:
        return self.name is not None

    def __enter__(self) -> Self:
        with contextlib.suppress(ValueError):  # not the main thread: the caller's signals stay
            for number in (signal.SIGINT, signal.SIGTERM):
                self._old[number] = signal.signal(number, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: Any) -> None:
        if self.name is not None:
            raise KeyboardInterrupt
        self.name, self.number = signal.Signals(number).name, number
