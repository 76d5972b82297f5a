"""What all endpoints share: the engine, states as clients name them, and limits."""

import secrets
import time
from collections.abc import Sequence
from typing import Any

from unrolled.core.errors import UsageError
from unrolled.core.registry import nearest, shown
from unrolled.predict import KeptState
from unrolled.serve.config import ServeConfig
from unrolled.serve.engine.pool import Engine
from unrolled.serve.engine.served import Served
from unrolled.serve.http.errors import NoSuchError
from unrolled.serve.http.metrics import Metrics
from unrolled.serve.states.blobs import Blobs
from unrolled.serve.states.keys import StateKeys
from unrolled.serve.states.store import PREFIX, Handles

__all__ = ["Service"]


class Service:
    """The server behind its endpoints.

    Args:
        keys: that sign states; absent: random ones, which end with this process.
    """

    def __init__(self, engine: Engine, config: ServeConfig, keys: StateKeys | None = None):
        self.engine, self.config = engine, config
        signed = (keys or StateKeys.random()) if config.signature else None
        self.blobs = Blobs(signed, config.state_bytes, config.state_max_age)
        self.handles = Handles(config.state_memory, config.state_ttl)
        self.metrics = Metrics(engine, self.handles)
        self.begun = int(time.time())

    def model(self, name: str | None) -> Served:
        """The model of a name or id. Raises UsageError where none is named among several, NoSuchError for another."""
        try:
            return self.engine.model(name)
        except UsageError as error:
            if name is None:
                raise
            raise NoSuchError(str(error)) from error

    def state(self, text: str | None, model: str | None) -> tuple[Served, KeptState | None]:
        """The model of a request, and the state that it goes on from. text: a blob or a handle, None: no state.

        Raises:
            UsageError: no state of ours. OtherModelError: of another model. GoneError: a handle without a state.
        """
        if text is None:
            return self.model(model), None
        if text.startswith(PREFIX):
            served, kept = self.handles.get(text)
            if model is not None and self.model(model) is not served:
                raise UsageError(f"the handle is that of a state of {served.name}; name that model.")
            return served, kept
        self.check_client_state()
        served = self.model(model)
        return served, self.blobs.decode(text, served.form)

    def check_client_state(self) -> None:
        """Raises UsageError where states do not leave the server."""
        if not self.config.client_state:
            raise UsageError("this server gives no states out and takes none; use handles (state_format = handle).")

    def check_format(self, served: Served, kind: str) -> None:
        """Raises UsageError where a state of the model is not given out so; before any work is done for it."""
        if kind == "blob":
            self.check_client_state()
            self.blobs.check(served.begun)

    def given(self, served: Served, kept: KeptState, kind: str) -> str:
        """A state for a client, as a blob or a handle."""
        return self.handles.put(served, kept) if kind == "handle" else self.blobs.encode(kept, served.form)

    def at_the_end(self, served: Served, kept: KeptState | None) -> str | None:
        """The blob of a text that the server ended, so that it can go on elsewhere; None where none is given out."""
        if kept is None or not self.config.client_state or not self.blobs.allowed(kept):
            return None
        return self.blobs.encode(kept, served.form)

    def deadline(self) -> float:
        """When a request that begins now must be done."""
        return time.monotonic() + self.config.max_seconds

    def tokens(self, served: Served, prompt: str | Sequence[int]) -> tuple[list[int], bool]:
        """The ids of a prompt, and whether the first of them was the start symbol, which is not among them.

        Raises:
            UsageError: a text that the vocabulary does not have; ids that it does not have; too many.
        """
        tokenizer, config, start = served.tokenizer, self.config, False
        if isinstance(prompt, str):
            if len(prompt) > 8 * config.max_prompt:  # no tokenizer here has tokens of more characters on average
                raise UsageError(f"field 'prompt' may have {config.max_prompt:,} tokens; shorten it.")
            ids = tokenizer.encode(prompt)
        else:
            start = bool(prompt) and prompt[0] == served.exported_start
            ids = list(prompt[1:] if start else prompt)
            odd = next((one for one in ids if not 0 <= one < tokenizer.vocab_size), None)
            if odd is not None:
                raise UsageError(
                    f"the id {odd} lies outside of the vocabulary of {tokenizer.vocab_size:,}; leave it out."
                )
        if len(ids) > config.max_prompt:
            raise UsageError(
                f"field 'prompt' may have {config.max_prompt:,} tokens, and this has {len(ids):,}; shorten it."
            )
        return ids, start

    def models(self) -> list[dict[str, Any]]:
        """What ``/v1/models`` lists."""
        config = self.config
        limits = {
            "max_tokens": config.max_tokens, "max_prompt": config.max_prompt, "max_samples": config.max_samples,
            "max_body": config.max_body, "max_seconds": config.max_seconds, "state_bytes": config.state_bytes,
        }  # fmt: skip
        return [
            {
                "id": one.id, "object": "model", "created": self.begun, "owned_by": "unrolled", "name": one.name,
                **one.described(), "limits": limits,
                "capabilities": {
                    "completions": True, "score": True, "states": True, "client_states": config.client_state,
                },
            }
            for one in self.engine.models.values()
        ]  # fmt: skip

    def find(self, path: str) -> str:
        """A sentence for a path that there is not."""
        if "chat" in path:
            return "there is no chat endpoint: these models continue texts; use /v1/completions."
        if path == "/" and not self.config.page:
            return "this server has no page; start it without --no-page, or ask /v1/models."
        if path in ("/runs", "/runs/events") and self.config.runs_folder is None:
            return "this server shows no runs; start it with --runs FOLDER."
        known = ("/v1/models", "/v1/completions", "/v1/score", "/v1/state", "/healthz", "/readyz", "/metrics")
        hint = nearest(path, known)
        return f"there is no {shown(path)} here" + (
            f"; did you mean {hint}?" if hint else "; /openapi.json lists what is."
        )


def new_id() -> str:
    """An id for an answer."""
    return "cmpl-" + secrets.token_hex(12)
