"""A server that runs until it is told to stop, and then ends its streams with their states."""

import asyncio
import contextlib
import socket
from collections.abc import Callable
from typing import Any

import uvicorn

from unrolled.core.errors import UnrolledError
from unrolled.serve.config import ServeConfig
from unrolled.serve.engine.pool import Engine
from unrolled.serve.http import build_app
from unrolled.serve.http.protocol import TimedProtocol
from unrolled.serve.states.keys import StateKeys

__all__ = ["run_server"]

# for answers under way once the engine has ended everything; streams have ended by then
_LAST = 5


class _Server(uvicorn.Server):
    """uvicorn's server, which on the first signal drains the engine, and on the second stops at once."""

    def __init__(self, config: uvicorn.Config, engine: Engine, drain: float, tell: Callable[[str], None]):
        super().__init__(config)
        self._engine, self._drain, self._tell = engine, drain, tell
        self._loop: asyncio.AbstractEventLoop | None = None
        self._draining: asyncio.Task[None] | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)

    def handle_exit(self, sig: int, frame: Any) -> None:
        """A signal."""
        if self._loop is None or self._draining is not None:
            super().handle_exit(sig, frame)
        else:
            self.end()

    def end(self) -> None:
        """Begin to end; from any thread, and without effect once it has ended."""
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin_to_end)

    def _begin_to_end(self) -> None:
        if self._draining is None:
            self._draining = asyncio.ensure_future(self._end())

    async def _end(self) -> None:
        if self._engine.used or self._engine.waiting:
            self._tell(f"stopping: {self._engine.used} texts may go on for {self._drain:g} s.")
        await self._engine.drain(self._drain)
        await asyncio.sleep(0.1)  # what was said last is sent
        self.should_exit = True


def run_server(
    engine: Engine,
    config: ServeConfig,
    keys: StateKeys | None = None,
    tell: Callable[[str], None] = lambda sentence: None,
    listening: Callable[[str, int, Callable[[], None]], None] = lambda host, port, stop: None,
) -> None:
    """Serve until a signal (SIGINT, SIGTERM) comes.

    Args:
        tell: hears sentences for whoever started the server.
        listening: called once with address, port, and what any thread may call to end the server as a signal would.
    Raises:
        UnrolledError: the address is taken, or not ours.
    """
    app = build_app(engine, config, keys)
    sock = _socket(config)
    host, port = sock.getsockname()[:2]
    settings = uvicorn.Config(
        app, http=TimedProtocol, ws="none", lifespan="on", access_log=False, log_config=None, server_header=False,
        timeout_keep_alive=60, timeout_graceful_shutdown=_LAST,
    )  # fmt: skip
    server = _Server(settings, engine, config.drain, tell)

    async def serve() -> None:
        task = asyncio.ensure_future(server.serve([sock]))
        while not server.started and not task.done():
            await asyncio.sleep(0.01)
        if server.started:
            listening(host, port, server.end)
        await task

    with contextlib.closing(sock):
        asyncio.run(serve())


def _socket(config: ServeConfig) -> socket.socket:
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        # by its protocol asyncio knows a socket whose small packets are not to wait for each other, which costs 40 ms
        sock = socket.socket(found[0], socket.SOCK_STREAM, socket.IPPROTO_TCP)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(found[4])
        sock.listen(2048)
    except OSError as error:
        raise UnrolledError(
            f"cannot listen at {config.host}:{config.port}: {error.strerror or error}; choose another --port."
        ) from error
    sock.setblocking(False)
    return sock
