"""The application: every endpoint, and what guards them."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp

from unrolled import __version__
from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError
from unrolled.serve.config import ServeConfig
from unrolled.serve.engine.pool import Engine
from unrolled.serve.http import states
from unrolled.serve.http.bodies import AdvanceBody, CompletionBody, ForkBody, InspectBody, ScoreBody, StateBody
from unrolled.serve.http.completions import complete
from unrolled.serve.http.errors import problem, problem_of
from unrolled.serve.http.events import GoneAwayError
from unrolled.serve.http.guard import Guard, SlowBodyError, TooLongError, read_api_keys
from unrolled.serve.http.page import add_pages
from unrolled.serve.http.scores import score
from unrolled.serve.http.service import Service
from unrolled.serve.states.keys import StateKeys, read_state_keys

__all__ = ["build_app"]

Endpoint = Callable[[Request, Service], Awaitable[Any]]

_ROUTES: tuple[tuple[str, str, Endpoint, type[Config] | None], ...] = (
    ("POST", "/v1/completions", complete, CompletionBody),
    ("POST", "/v1/score", score, ScoreBody),
    ("POST", "/v1/state", states.new, StateBody),
    ("PUT", "/v1/state", states.upload, None),
    ("POST", "/v1/state/advance", states.advance, AdvanceBody),
    ("POST", "/v1/state/fork", states.fork, ForkBody),
    ("POST", "/v1/state/inspect", states.inspect, InspectBody),
    ("GET", "/v1/state/{handle}", states.download, None),
    ("DELETE", "/v1/state/{handle}", states.drop, None),
)


def build_app(engine: Engine, config: ServeConfig | None = None, keys: StateKeys | None = None) -> ASGIApp:
    """The ASGI application over an engine, which it starts and stops.

    Args:
        keys: that sign states; absent: those of ``config.state_key``, or random ones.
    Raises:
        UsageError: files of keys that hold none; a folder of runs that is not there.
    """
    config = config or ServeConfig()
    if keys is None and config.state_key is not None:
        keys = read_state_keys(config.state_key)
    service = Service(engine, config, keys)

    @contextlib.asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        engine.stop()

    app = FastAPI(title="unrolled", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    app.state.service = service
    for method, path, endpoint, body in _ROUTES:
        app.add_api_route(
            path, _guarded(endpoint, service), methods=[method], response_model=None, name=f"{method} {path}",
            summary=(endpoint.__doc__ or "").strip(), openapi_extra=_schema(body, path),
        )  # fmt: skip
    _plain_routes(app, service)
    add_pages(app, service)
    app.add_exception_handler(HTTPException, _not_found(service))
    inner: ASGIApp = Guard(
        app, config, service.metrics, () if config.api_key_file is None else read_api_keys(config.api_key_file)
    )
    if config.cors:
        allowed = ["Authorization", "Content-Type"]
        inner = CORSMiddleware(
            inner, config.cors, allow_methods=["GET", "POST", "PUT", "DELETE"], allow_headers=allowed
        )
    return inner


def _guarded(endpoint: Endpoint, service: Service) -> Callable[[Request], Awaitable[Any]]:
    """The endpoint, whose errors become answers."""

    async def answer(request: Request) -> Any:
        try:
            return await endpoint(request, service)
        except (TooLongError, SlowBodyError) as error:
            # what is still to come of the body is not read
            return problem(413 if isinstance(error, TooLongError) else 408, str(error), headers={"Connection": "close"})
        except (GoneAwayError, ClientDisconnect):
            return Response(status_code=499)  # nobody reads it
        except Exception as error:
            return problem_of(error)

    return answer


def _plain_routes(app: FastAPI, service: Service) -> None:
    engine = service.engine

    @app.get("/v1/models", summary="The models, what they can do, and the limits of the server.", response_model=None)
    async def models() -> Any:
        return JSONResponse({"object": "list", "data": service.models()})

    @app.get("/v1/models/{name:path}", summary="One model.", response_model=None)
    async def model(name: str) -> Any:
        try:
            served = service.model(name)
        except UnrolledError as error:
            return problem_of(error)
        return JSONResponse(next(one for one in service.models() if one["id"] == served.id))

    @app.get("/healthz", summary="Whether the server lives.", response_model=None)
    async def healthz() -> Any:
        return JSONResponse({"status": "ok"})

    @app.get("/readyz", summary="Whether another request is taken.", response_model=None)
    async def readyz() -> Any:
        if engine.ready:
            return JSONResponse({"status": "ready", "streams": engine.used, "queue": engine.waiting})
        why = "the server is being shut down." if engine.draining else "the server is busy."
        return problem(503, why, headers={"Retry-After": "1"})

    if service.config.metrics:

        @app.get("/metrics", summary="Figures for Prometheus.", response_model=None)
        async def metrics() -> Any:
            return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")


def _not_found(service: Service) -> Any:
    async def answer(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        if error.status_code == 404:
            return problem(404, service.find(request.url.path), "not_found")
        if error.status_code == 405:
            return problem(405, "this path takes another method; /openapi.json says which.", headers=error.headers)
        return problem(400, "the request cannot be read; send it again.")

    return answer


def _schema(body: type[Config] | None, path: str) -> dict[str, Any]:
    """The body of a request for the OpenAPI document."""
    if body is not None:
        schema = body.model_json_schema()
        return {"requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(schema)}}}}
    if path == "/v1/state":
        binary = {"type": "string", "format": "binary"}
        named = {"name": "model", "in": "query", "required": False, "schema": {"type": "string"}}
        content = {"application/octet-stream": {"schema": binary}}
        return {"parameters": [named], "requestBody": {"required": True, "content": content}}
    return {"parameters": [{"name": "handle", "in": "path", "required": True, "schema": {"type": "string"}}]}


def _inlined(schema: dict[str, Any]) -> dict[str, Any]:
    """The schema with its definitions in their places, since those of the document lie elsewhere."""
    known = schema.pop("$defs", {})

    def walk(value: Any) -> Any:
        if isinstance(value, dict):
            if "$ref" in value:
                return walk(known[value["$ref"].rpartition("/")[2]])
            return {name: walk(inner) for name, inner in value.items()}
        return [walk(inner) for inner in value] if isinstance(value, list) else value

    return walk(schema)
