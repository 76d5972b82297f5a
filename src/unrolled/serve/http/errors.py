"""What went wrong, in OpenAI's form, with one sentence of ours as the message."""

import json
import logging
import re
from collections.abc import Mapping
from typing import Any

from starlette.responses import Response

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.predict import OtherModelError
from unrolled.serve.engine.jobs import TookTooLongError
from unrolled.serve.engine.pool import BusyError
from unrolled.serve.engine.threads import ShutDownError
from unrolled.serve.states.store import GoneError

__all__ = ["NoSuchError", "problem", "problem_of", "value_of"]

_LOG = logging.getLogger("unrolled.serve")
_KINDS = {
    400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
    405: "invalid_request_error", 408: "timeout_error", 409: "conflict_error", 410: "not_found_error",
    413: "invalid_request_error", 415: "invalid_request_error", 429: "rate_limit_error", 500: "server_error",
    503: "server_error",
}  # fmt: skip
_FIELD = re.compile(r"field '([^']{1,64})'")


class NoSuchError(UsageError):
    """What a request names is not here."""


def value_of(status: int, message: str, code: str | None = None) -> dict[str, Any]:
    """The body of an answer."""
    found = _FIELD.search(message)
    kind = _KINDS[status]
    return {"error": {"message": message, "type": kind, "param": found and found[1], "code": code}}


def problem(status: int, message: str, code: str | None = None, headers: Mapping[str, str] | None = None) -> Response:
    """An answer that says what is wrong."""
    content = json.dumps(value_of(status, message, code), ensure_ascii=False)
    return Response(content, status, headers, media_type="application/json")


def status_of(error: Exception) -> tuple[int, str | None]:
    """Status and code of an error."""
    rows: tuple[tuple[type[Exception], int, str | None], ...] = (
        (OtherModelError, 409, "other_model"), (NoSuchError, 404, "not_found"), (GoneError, 410, "gone"),
        (BusyError, 429, "busy"), (ShutDownError, 503, "shutting_down"), (TookTooLongError, 408, "timeout"),
        (UsageError, 400, None),
    )  # fmt: skip
    return next(((status, code) for kind, status, code in rows if isinstance(error, kind)), (500, None))


def problem_of(error: Exception) -> Response:
    """The answer to a request that failed. What is no error of ours is logged, and not told."""
    status, code = status_of(error)
    headers = {"Retry-After": str(error.seconds)} if isinstance(error, BusyError) else {}
    headers |= {"Retry-After": "1"} if status == 503 else {}
    return problem(status, message_of(error), code, headers)


def message_of(error: Exception) -> str:
    """One sentence, without anything of the server's inside."""
    if isinstance(error, UnrolledError):
        return str(error)
    _LOG.error("a request failed", exc_info=error)
    return "the server failed to answer this request; its log says more."
