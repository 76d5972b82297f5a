"""The connections of the server: as uvicorn's, with an end for those that send nothing."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

__all__ = ["HEADER_SECONDS", "TimedProtocol"]

HEADER_SECONDS = 15.0
"""Within which the headers of a request must be there once the connection, or the request, has begun."""
# bytes that may wait for a reader before the writer waits
_WAITING = 256 << 10


class TimedProtocol(HttpToolsProtocol):
    """A connection whose headers must come within :data:`HEADER_SECONDS`."""

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        """A connection begins, and with it the time for its first headers."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(high=_WAITING)
        self._begin()

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._begin()

    def on_headers_complete(self) -> None:
        """Its headers are there."""
        self._end()
        super().on_headers_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection has ended."""
        self._end()
        super().connection_lost(exc)

    def _begin(self) -> None:
        self._end()
        self._timer = self.loop.call_later(HEADER_SECONDS, self._late)

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        if self.transport is not None and not self.transport.is_closing():
            self.transport.close()
