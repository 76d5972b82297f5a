"""One connection of the load: as little work as can be done for an event, since the server is on the same machine."""

import asyncio
import json
import time
from typing import Any

__all__ = ["Answer", "Connection", "LostError"]

_END = b"0\r\n\r\n"


class LostError(Exception):
    """The connection was lost before the answer was whole."""


class Answer:
    """An answer of events. times: when events came, seconds; data: its bytes; status: of HTTP."""

    def __init__(self) -> None:
        self.begun = time.perf_counter()
        self.times: list[float] = []
        self.parts: list[bytes] = []
        self.status = 0

    def events(self) -> list[dict[str, Any]]:
        """The values of all events; what frames them is left out."""
        text = _unchunked(b"".join(self.parts))
        return [json.loads(line[6:]) for line in text.split(b"\n") if line.startswith(b"data: {")]


class Connection(asyncio.BufferedProtocol):
    """A connection that asks one request after another. key: of the API, where one is needed."""

    def __init__(self, host: str, key: str | None = None):
        self._host, self._key = host, key
        self._transport: Any = None
        self._answer: Answer | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._tail, self._hang_up = b"", None
        # what asyncio reads itself keeps a page of memory, and a mapping of its own, for each event that is kept
        self._buffer = bytearray(64 << 10)
        self.lost = False

    def connection_made(self, transport: Any) -> None:
        """See asyncio."""
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self.lost = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(LostError())

    def get_buffer(self, sizehint: int) -> bytearray:
        """See asyncio."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """See asyncio."""
        data, answer = bytes(memoryview(self._buffer)[:nbytes]), self._answer
        if answer is None:
            return
        if not answer.parts:
            answer.status = int(data[9:12])
        answer.parts.append(data)
        if b"data: {" in data:
            answer.times.append(time.perf_counter())
            if self._hang_up is not None and len(answer.times) >= self._hang_up:
                self.close()
                return
        tail = self._tail + data[-8:]
        self._tail = tail[-8:]
        whole = tail.endswith(_END) if answer.status == 200 else _is_whole(b"".join(answer.parts))
        if whole and self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def ask(self, body: dict[str, Any], answer: Answer, hang_up_after: int | None = None) -> None:
        """Ask for a completion, whose events go into ``answer``; hang up when so many times something has come.

        Raises LostError where the connection ends before the answer, by either side.
        """
        data = json.dumps(body).encode()
        head = (
            f"POST /v1/completions HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            + (f"Authorization: Bearer {self._key}\r\n" if self._key else "")
            + f"Content-Length: {len(data)}\r\n\r\n"
        )
        self._answer, self._tail, self._hang_up = answer, b"", hang_up_after
        self._waiter = asyncio.get_running_loop().create_future()
        if self.lost:
            raise LostError
        self._transport.write(head.encode() + data)
        await self._waiter

    def close(self) -> None:
        """Hang up."""
        if self._transport is not None:
            self._transport.abort()


def _is_whole(data: bytes) -> bool:
    """Whether an answer with a length has come whole."""
    head, sign, rest = data.partition(b"\r\n\r\n")
    if not sign:
        return False
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-length":
            return len(rest) >= int(value)
    return data.endswith(_END)


def _unchunked(data: bytes) -> bytes:
    """The body of an answer in chunks."""
    _, _, rest = data.partition(b"\r\n\r\n")
    found = []
    while rest:
        line, _, rest = rest.partition(b"\r\n")
        size = int(line, 16)
        if not size:
            break
        found.append(rest[:size])
        rest = rest[size + 2 :]
    return b"".join(found)
