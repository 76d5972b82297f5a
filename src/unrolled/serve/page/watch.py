"""One reader of the learning curves for all clients that look at them."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

from unrolled.core.errors import UnrolledError
from unrolled.serve.http.events import event
from unrolled.serve.page.curves import Curves

__all__ = ["Watch"]

_LOG = logging.getLogger("unrolled.serve")
_CHECK = 0.5  # seconds between two looks at whether the server ends


class Watch:
    """Reads a folder every so often as long as anybody looks, and tells all of them.

    Args:
        folder: of the runs. seconds: between two readings.
    Raises:
        UsageError: there is no such folder.
    """

    def __init__(self, folder: Path, seconds: float = 1.0):
        self.curves, self._seconds = Curves(folder), seconds
        self._event, self._number, self._failed = b"", 0, False
        self._clients = 0
        self._task: asyncio.Task[None] | None = None
        self._news = asyncio.Condition()

    async def events(self, ended: Callable[[], bool]) -> AsyncGenerator[bytes, None]:
        """The curves as they are, and again whenever they have changed, until ``ended`` says so."""
        self._clients += 1
        if self._task is None:
            self._task = asyncio.ensure_future(self._run())
        seen = 0
        try:
            while not ended():
                if self._number != seen:
                    seen = self._number
                    yield self._event
                    continue
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_CHECK), self._news:
                        await self._news.wait()
        finally:
            self._clients -= 1
            if not self._clients and self._task is not None:
                self._task.cancel()
                self._task = None

    async def _run(self) -> None:
        while True:
            value = await asyncio.to_thread(self._look)
            if value is not None and event(value) != self._event:
                async with self._news:
                    self._event, self._number = event(value), self._number + 1
                    self._news.notify_all()
            await asyncio.sleep(self._seconds)

    def _look(self) -> dict[str, Any] | None:
        try:
            found = self.curves.look(anew=self._failed)
            self._failed = False
            return found
        except Exception as error:
            if not isinstance(error, UnrolledError) and not self._failed:
                _LOG.error("the runs cannot be read", exc_info=error)
            self._failed = True
            sentence = "the server failed to read the runs; its log says more."
            return {"trouble": str(error) if isinstance(error, UnrolledError) else sentence}
