"""``/`` and ``/runs``: pages that need nothing but this server."""

from typing import Any

from fastapi import FastAPI
from starlette.requests import Request
from starlette.responses import Response

from unrolled.serve.http.events import EventStream
from unrolled.serve.http.service import Service
from unrolled.serve.page import Shown, reader_page, runs_page

__all__ = ["add_pages"]


def add_pages(app: FastAPI, service: Service) -> None:
    """Add the pages that the configuration asks for.

    Raises:
        UsageError: the folder of the runs is not there.
    """
    config, engine = service.config, service.engine
    if config.page:
        _add(app, "/", reader_page(config.runs_folder is not None))
    if config.runs_folder is None:
        return
    from unrolled.serve.page.watch import Watch  # comparisons are read by it, which nothing else of a server needs

    watch = Watch(config.runs_folder)
    _add(app, "/runs", runs_page(config.page))

    @app.get("/runs/events", include_in_schema=False)
    async def events(request: Request) -> Any:
        return EventStream(watch.events(lambda: engine.draining))


def _add(app: FastAPI, path: str, shown: Shown) -> None:
    headers = {"Content-Security-Policy": shown.policy, "Cache-Control": "no-cache"}

    @app.get(path, include_in_schema=False)
    async def page() -> Any:
        return Response(shown.content, media_type="text/html", headers=headers)
