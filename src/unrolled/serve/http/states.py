"""``/v1/state``: states that clients own."""

import contextlib
import time
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from unrolled.core.errors import UsageError
from unrolled.predict import KeptState
from unrolled.predict.kept import norms
from unrolled.serve.engine.jobs import Ended, Reading
from unrolled.serve.engine.served import Served
from unrolled.serve.http.bodies import AdvanceBody, ForkBody, InspectBody, StateBody, parsed
from unrolled.serve.http.events import unless_gone
from unrolled.serve.http.service import Service

__all__ = ["advance", "download", "drop", "fork", "inspect", "new", "upload"]


async def new(request: Request, service: Service) -> Response:
    """The state after a text."""
    body = await parsed(request, StateBody)
    served = service.model(body.model)
    return await _after(request, service, served, served.begun, body.text, body.state_format)


async def advance(request: Request, service: Service) -> Response:
    """The state after more text."""
    body = await parsed(request, AdvanceBody)
    served, kept = service.state(body.state, body.model)
    assert kept is not None
    return await _after(request, service, served, kept, body.text, body.state_format)


async def _after(
    request: Request, service: Service, served: Served, before: KeptState, text: str, kind: str
) -> Response:
    service.check_format(served, kind)
    ids, _ = service.tokens(served, text)

    async def read() -> KeptState:
        job = Reading(served, before, service.deadline(), ids)
        async with contextlib.aclosing(service.engine.submit(job).events()) as stream:
            async for events in stream:
                for event in events:
                    if isinstance(event, Ended) and event.state is not None:
                        return event.state
        raise AssertionError("reading ends with a state")

    kept = before if not ids else await unless_gone(request, read())
    return JSONResponse({**_described(served, kept), "state": service.given(served, kept, kind), "read": len(ids)})


async def fork(request: Request, service: Service) -> Response:
    """Further handles of a state."""
    body = await parsed(request, ForkBody)
    served, kept = service.state(body.state, body.model)
    assert kept is not None
    handles = [service.handles.put(served, kept) for _ in range(body.n)]
    return JSONResponse({**_described(served, kept), "states": handles})


async def inspect(request: Request, service: Service) -> Response:
    """What can be told of a state."""
    body = await parsed(request, InspectBody)
    served, kept = service.state(body.state, body.model)
    assert kept is not None
    told = {"pending_bytes": len(kept.pending), "held": kept.held, "norms": norms(kept)}
    return JSONResponse({**_described(served, kept), **told})


async def download(request: Request, service: Service) -> Response:
    """The state of a handle as a safetensors file, or signed, as it can be sent back."""
    served, kept = service.handles.get(request.path_params["handle"])
    service.check_client_state()
    service.blobs.check(kept)
    signed = request.query_params.get("signed", "false")
    if signed not in ("true", "false"):
        raise UsageError("the parameter 'signed' is true or false.")
    data = service.blobs.signed(kept, served.form) if signed == "true" else served.form.pack(kept)
    name = "state.signed" if signed == "true" else "state.safetensors"
    return Response(
        data, media_type="application/octet-stream", headers={"Content-Disposition": f'attachment; filename="{name}"'}
    )


async def upload(request: Request, service: Service) -> Response:
    """A handle for a signed state."""
    service.check_client_state()
    served = service.model(request.query_params.get("model"))
    kept = service.blobs.read(await request.body(), served.form)
    return JSONResponse({**_described(served, kept), "state": service.handles.put(served, kept)})


async def drop(request: Request, service: Service) -> Response:
    """Forget a handle."""
    service.handles.drop(request.path_params["handle"])
    return JSONResponse({"object": "state.deleted", "deleted": True})


def _described(served: Served, kept: KeptState) -> dict[str, Any]:
    age = max(0.0, time.time() - kept.issued)
    return {"object": "state", "model": served.id, "tokens": kept.tokens, "bytes": kept.size(), "age": round(age, 3)}
