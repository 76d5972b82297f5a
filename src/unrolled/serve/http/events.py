"""Server-sent events, and answers to clients that may leave before they come."""

import asyncio
import contextlib
import json
import time
from collections.abc import AsyncGenerator, Awaitable
from typing import Any, TypeVar

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from unrolled.serve.http.errors import message_of, status_of, value_of

__all__ = ["DONE", "EventStream", "GoneAwayError", "event", "unless_gone"]

DONE = b"data: [DONE]\n\n"
_BEAT, _SLOW, _LOOK = 15.0, 10.0, 2.5

T = TypeVar("T")


class GoneAwayError(Exception):
    """The client does not wait for the answer any more."""


def event(value: Any, name: str | None = None) -> bytes:
    """One event of JSON."""
    head = b"" if name is None else f"event: {name}\n".encode()
    return head + b"data: " + json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode() + b"\n\n"


async def unless_gone(request: Request, work: Awaitable[T]) -> T:
    """The result of some work, which ends when the client goes. Raises GoneAwayError then."""
    task = asyncio.ensure_future(work)
    gone = asyncio.ensure_future(_gone(request.receive))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise GoneAwayError
    finally:
        for one in (task, gone):
            one.cancel()
        await asyncio.gather(task, gone, return_exceptions=True)


async def _gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class EventStream(Response):
    """An answer of events.

    It ends when the client goes, or reads so slowly that nothing could be sent for ten seconds; a comment every fifteen
    seconds keeps what is between from closing a quiet connection. An error after the first event is an event.

    Args:
        parts: bytes of whole events.
    """

    def __init__(self, parts: AsyncGenerator[bytes, None]):
        self.status_code, self.background, self.media_type = 200, None, "text/event-stream"
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})
        self._parts = parts
        self._sending: float | None = None
        self._sent = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        self._sent = time.monotonic()
        writer = asyncio.ensure_future(self._write(send))
        others = [asyncio.ensure_future(_gone(receive)), asyncio.ensure_future(self._watch(send))]
        try:
            await asyncio.wait({writer, *others}, return_when=asyncio.FIRST_COMPLETED)
            if writer.done():
                writer.result()
        finally:
            for one in (writer, *others):
                one.cancel()
            await asyncio.gather(writer, *others, return_exceptions=True)

    async def _write(self, send: Send) -> None:
        async with contextlib.aclosing(self._parts) as parts:
            try:
                async for part in parts:
                    await self._send(send, part)
            except Exception as error:
                status, code = status_of(error)
                await self._send(send, event(value_of(status, message_of(error), code), "error"))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, part: bytes) -> None:
        self._sending = time.monotonic()
        await send({"type": "http.response.body", "body": part, "more_body": True})
        self._sending, self._sent = None, time.monotonic()

    async def _watch(self, send: Send) -> None:
        """Ends when the client is too slow."""
        while True:
            await asyncio.sleep(_LOOK)
            now = time.monotonic()
            if self._sending is not None:
                if now - self._sending > _SLOW:
                    return
            elif now - self._sent > _BEAT:
                self._sent = now
                await send({"type": "http.response.body", "body": b": still here\n\n", "more_body": True})
