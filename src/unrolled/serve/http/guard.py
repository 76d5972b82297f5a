"""What stands before every endpoint: who asks, from where, how much, and how long."""

import asyncio
import hashlib
import hmac
import time
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path

from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import read_bounded
from unrolled.serve.config import LOOPBACK, ServeConfig
from unrolled.serve.http.errors import problem
from unrolled.serve.http.metrics import Metrics

__all__ = ["Guard", "read_api_keys"]

_BODY_SECONDS = 20.0
_MOST_KEYS, _MOST_CLIENTS = 64 << 10, 10_000
# pages have nothing in them before a key is given
_OPEN = ("/", "/runs", "/healthz", "/readyz", "/openapi.json", "/favicon.ico")
_SAFE = (b"x-content-type-options", b"nosniff"), (b"referrer-policy", b"no-referrer")


class TooLongError(UnrolledError):
    """The body is larger than allowed."""

    def __init__(self, most: int):
        super().__init__(f"the body may have {most:,} bytes; send less.")


class SlowBodyError(UnrolledError):
    """The body does not come."""

    def __init__(self) -> None:
        super().__init__("the body did not come in time; send it again.")


def read_api_keys(path: Path) -> list[bytes]:
    """Digests of the keys of a file, one a line. Raises UsageError for a file without keys, or with short ones."""
    lines = [line.strip() for line in read_bounded(path, _MOST_KEYS).decode("utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines or any(len(line) < 16 for line in lines):
        raise UsageError(f"{path} needs a key of 16 characters or more on each line; make one: openssl rand -hex 24.")
    return [hashlib.sha256(line.encode()).digest() for line in lines]


class Guard:
    """Refuses, in this order: other hosts, other sites, bodies that are no JSON, strangers, too many requests, long
    bodies, slow ones. Counts what is answered.

    Args:
        keys: digests of API keys; empty: none is needed.
    """

    def __init__(self, app: ASGIApp, config: ServeConfig, metrics: Metrics, keys: Sequence[bytes] = ()):
        self._app, self._config, self._metrics, self._keys = app, config, metrics, tuple(keys)
        # a name for this machine is all that a page of another site lacks when its own name is made to point here
        self._hosts = {*LOOPBACK, "[::1]", config.host, *config.hosts}
        self._any_host = bool(keys) and not config.hosts and config.host not in LOOPBACK
        self._rates: OrderedDict[bytes, tuple[float, float]] = OrderedDict()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        size, most = 0, self._config.max_body
        end = time.monotonic() + _BODY_SECONDS

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self._metrics.requests.labels(_label(scope["path"]), str(message["status"])).inc()
                message = {**message, "headers": [*message.get("headers", ()), *_SAFE]}
            await send(message)

        async def limited() -> Message:
            nonlocal size, end
            try:
                async with asyncio.timeout_at(None if end is None else _at(end)):
                    message = await receive()
            except TimeoutError as error:
                raise SlowBodyError from error
            if message["type"] == "http.request":
                size += len(message.get("body", b""))
                if size > most:
                    raise TooLongError(most)
                if not message.get("more_body"):
                    end = None  # what comes now is that the client goes, whenever it does
            return message

        refusal = self._refusal(scope)
        if refusal is not None:
            await refusal(scope, receive, counted)
            return
        await self._app(scope, limited, counted)

    def _refusal(self, scope: Scope) -> Response | None:
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            if name in (b"host", b"origin", b"content-length", b"authorization") and name in headers:
                return problem(400, "a header occurs twice; send it once.")
            headers[name] = value
        host = headers.get(b"host", b"").decode("latin-1").lower()
        name = host.rpartition(":")[0] if host.rpartition(":")[2].isdigit() else host
        if not self._any_host and name not in self._hosts:
            return problem(
                403, "this server does not go by that name; ask it by its own, or start it with --allow-host."
            )
        origin = headers.get(b"origin")
        if origin is not None:
            said = origin.decode("latin-1").lower()
            if said not in self._config.cors and said.partition("://")[2] != host:
                return problem(
                    403, "requests from other sites are not answered; start the server with --cors for them."
                )
        path, method = scope["path"], scope["method"]
        if method == "POST" and _media(headers) != "application/json":
            return problem(415, "the body is JSON; send it with Content-Type: application/json.")
        if method == "PUT" and _media(headers) != "application/octet-stream":
            return problem(415, "the body is a state; send it with Content-Type: application/octet-stream.")
        client = self._client(scope, headers)
        if client is None and path not in _OPEN and method != "OPTIONS":
            return problem(401, "a key is needed that this server knows.", headers={"WWW-Authenticate": "Bearer"})
        length = headers.get(b"content-length", b"0")
        if not length.isdigit() or int(length) > self._config.max_body:
            return problem(413, str(TooLongError(self._config.max_body)), headers={"Connection": "close"})
        if path.startswith("/v1/") and method != "OPTIONS" and client is not None:
            seconds = self._over(client)
            if seconds:
                return problem(
                    429, f"too many requests; ask again in {seconds} seconds.", "rate", {"Retry-After": str(seconds)}
                )
        return None

    def _client(self, scope: Scope, headers: dict[bytes, bytes]) -> bytes | None:
        """Who asks: a key's digest, or the address where no keys are needed; None: a stranger."""
        if not self._keys:
            return str((scope.get("client") or ("",))[0]).encode()
        kind, _, key = headers.get(b"authorization", b"").partition(b" ")
        digest = hashlib.sha256(key.strip()).digest()
        known = False
        for one in self._keys:
            known |= hmac.compare_digest(one, digest)
        return digest if known and kind.lower() == b"bearer" else None

    def _over(self, client: bytes) -> int:
        """Seconds to wait until a request is within the rate; 0: it is."""
        rate = self._config.rate
        if rate is None:
            return 0
        now = time.monotonic()
        left, at = self._rates.pop(client, (float(rate), now))
        left = min(float(rate), left + (now - at) * rate / 60)
        ok = left >= 1
        self._rates[client] = (left - ok, now)
        if len(self._rates) > _MOST_CLIENTS:
            self._rates.popitem(last=False)
        return 0 if ok else int((1 - left) * 60 / rate) + 1


def _at(monotonic: float) -> float:
    return asyncio.get_running_loop().time() + monotonic - time.monotonic()


def _media(headers: dict[bytes, bytes]) -> str:
    return headers.get(b"content-type", b"").partition(b";")[0].strip().lower().decode("latin-1")


def _label(path: str) -> str:
    """The endpoint of a path, never anything of the path's own."""
    if path.startswith("/v1/state/") and path not in ("/v1/state/advance", "/v1/state/fork", "/v1/state/inspect"):
        return "/v1/state/{handle}"
    known = (*_OPEN, "/metrics", "/v1/models", "/v1/completions", "/v1/score", "/v1/state", "/v1/state/advance",
             "/v1/state/fork", "/v1/state/inspect", "/runs/events")  # fmt: skip
    return path if path in known else "other"
