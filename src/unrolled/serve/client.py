"""A small client of the server: texts, scores, and states as values. The standard library is enough for it."""

import base64
import contextlib
import http.client
import json
import os
import urllib.parse
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_write, read_bounded

__all__ = ["Client", "Completion", "RemoteError", "Score", "State"]

_MOST_STATE = 1 << 30


class RemoteError(UnrolledError):
    """What the server answered in place of a result. status: of HTTP; code: its short name, or None."""

    def __init__(self, sentence: str, status: int, code: str | None = None):
        super().__init__(sentence)
        self.status, self.code = status, code


class State(NamedTuple):
    """The state of a text: a value that can be kept, sent, saved and gone on from any number of times.

    blob: signed by the server, for it or another with its key. tokens: read so far. model: the id of the model.
    """

    blob: str
    tokens: int
    model: str

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write it to a file, which ``unrolled generate --state`` reads too."""
        atomic_write(path, self.blob + "\n")

    def safetensors(self) -> bytes:
        """Its tensors as a safetensors file."""
        return base64.urlsafe_b64decode(self.blob + "=" * (-len(self.blob) % 4))[32:]


class Completion(NamedTuple):
    """A text. state: after it. reason: why it ended: length, stop, time or shutdown. seed: that repeats it. logprobs:
    in OpenAI's form, or None. held: what the state keeps back of the text, since it may begin a stop string."""

    text: str
    state: State | None
    reason: str | None
    seed: int
    logprobs: dict[str, Any] | None
    held: str


class Score(NamedTuple):
    """A text that was scored. rows: one mapping a word or token. total: bits, nats, tokens, words. state: after it."""

    rows: list[dict[str, Any]]
    total: dict[str, float]
    state: State | None


class Client:
    """A server, asked from Python.

        client = ur.Client("http://127.0.0.1:8000")
        chapter = client.read("It was a dark night. ")
        for seed in range(3):
            print(client.complete(state=chapter, max_tokens=60, seed=seed).text)

    Args:
        address: of the server. api_key: where it asks for one. model: asked where a call names none; needed where the
            server has several. timeout: seconds without a word.
    """

    def __init__(
        self,
        address: str = "http://127.0.0.1:8000",
        api_key: str | None = None,
        model: str | None = None,
        timeout: float = 120.0,
    ):
        parts = urllib.parse.urlsplit(address)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise UsageError(f"an address looks like http://127.0.0.1:8000, not {address!r}.")
        kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
        self._host, self._port, self._path = parts.hostname, parts.port, parts.path.rstrip("/")
        self._kind, self._key, self.model, self._timeout = kind, api_key, model, timeout

    def models(self) -> list[dict[str, Any]]:
        """The models of the server, with what they can do."""
        return self._ask("GET", "/v1/models")["data"]

    def complete(self, prompt: str | Sequence[int] = "", state: State | None = None, **options: Any) -> Completion:
        """Continue a text.

        Args:
            prompt: text or ids. state: what it goes on from; absent: a text's beginning.
            options: max_tokens, temperature, top_p, top_k, min_p, stop, seed, logprobs, echo, logit_bias, model.
        """
        (found,) = self.samples(prompt, 1, state, **options)
        return found

    def samples(
        self, prompt: str | Sequence[int] = "", n: int = 1, state: State | None = None, **options: Any
    ) -> list[Completion]:
        """Several continuations of one text, written side by side."""
        answer = self._ask("POST", "/v1/completions", self._body(prompt, state, {"n": n, **options}))
        return [self._completion(choice, answer) for choice in answer["choices"]]

    def stream(
        self, prompt: str | Sequence[int] = "", state: State | None = None, **options: Any
    ) -> Iterator[str | Completion]:
        """The pieces of a continuation as they are written, and at last the :class:`Completion`."""
        body = self._body(prompt, state, {"stream": True, **options})
        text: list[str] = []
        last: dict[str, Any] | None = None
        told: dict[str, Any] = {}
        for event in self._events(body):
            last = event
            choice = event["choices"][0]
            for name, value in (choice["logprobs"] or {}).items():
                told[name] = value if name not in told or value is None else told[name] + value
            if choice["text"]:
                text.append(choice["text"])
                yield choice["text"]
        if last is None or last["choices"][0]["finish_reason"] is None:
            raise UnrolledError("the server ended the text without a word; ask again from the last state.")
        whole = {**last["choices"][0], "text": "".join(text), "logprobs": told or None}
        yield self._completion(whole, last)

    def read(self, text: str, state: State | None = None, model: str | None = None) -> State:
        """The state after a text, or after more of it."""
        body: dict[str, Any] = {"model": model or self.model, "text": text, "state_format": "blob"}
        path = "/v1/state" if state is None else "/v1/state/advance"
        answer = self._ask("POST", path, body if state is None else {**body, "state": state.blob})
        return State(answer["state"], answer["tokens"], answer["model"])

    def score(self, text: str | None = None, state: State | None = None, **options: Any) -> Score:
        """Surprisal of a text's words.

        Args:
            state: what it goes on from. options: ids or words in place of text; unit, boundary, reset, entropy, rank,
                top_k, close, model.
        """
        body: dict[str, Any] = {"model": self.model, "return_state": True, **options}
        body |= {} if text is None else {"text": text}
        body |= {} if state is None else {"state": state.blob}
        answer = self._ask("POST", "/v1/score", body)
        return Score(answer["rows"], answer["total"], State(answer["state"], answer["tokens"], answer["model"]))

    def inspect(self, state: State) -> dict[str, Any]:
        """What can be told of a state: tokens read, age, the norm of each part."""
        return self._ask("POST", "/v1/state/inspect", {"model": state.model, "state": state.blob})

    def load(self, path: str | os.PathLike[str]) -> State:
        """A state that :meth:`State.save` wrote; the server must take it still."""
        blob = read_bounded(path, _MOST_STATE).decode("ascii", errors="replace").strip()
        told = self._ask("POST", "/v1/state/inspect", {"model": self.model, "state": blob})
        return State(blob, told["tokens"], told["model"])

    def _body(self, prompt: str | Sequence[int], state: State | None, options: dict[str, Any]) -> dict[str, Any]:
        given = prompt if isinstance(prompt, str) else list(prompt)
        body = {"model": self.model, "prompt": given, "return_state": True, **options}
        return body if state is None else {**body, "model": state.model, "state": state.blob}

    def _completion(self, choice: dict[str, Any], answer: dict[str, Any]) -> Completion:
        blob = choice.get("state")
        state = None if blob is None else State(blob, choice["state_tokens"], answer["model"])
        reason, held = choice["finish_reason"], choice.get("held", "")
        return Completion(choice["text"], state, reason, answer["seed"], choice["logprobs"], held)

    def _events(self, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """The events of an answer. Raises RemoteError for one that says what went wrong."""
        answer, connection = self._open("POST", "/v1/completions", body)
        with contextlib.closing(connection):
            name = ""
            for line in answer:
                text = line.decode("utf-8").rstrip("\n")
                if text.startswith("event: "):
                    name = text[7:]
                if not text.startswith("data: "):
                    continue
                if text == "data: [DONE]":
                    return
                value = json.loads(text[6:])
                if name == "error":
                    raise _error(value, 500)
                yield value

    def _ask(self, method: str, path: str, body: Any = None) -> dict[str, Any]:
        answer, connection = self._open(method, path, body)
        with contextlib.closing(connection):
            return json.loads(answer.read())

    def _open(self, method: str, path: str, body: Any) -> tuple[http.client.HTTPResponse, http.client.HTTPConnection]:
        connection = self._kind(self._host, self._port, timeout=self._timeout)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if self._key is not None:
            headers["Authorization"] = f"Bearer {self._key}"
        data = None if body is None else json.dumps({k: v for k, v in body.items() if v is not None}).encode()
        try:
            connection.request(method, self._path + path, data, headers)
            answer = connection.getresponse()
            if answer.status == 200:
                return answer, connection
            said = answer.read()
        except OSError as error:
            connection.close()
            where = f"{self._host}:{self._port or ''}".rstrip(":")
            raise UnrolledError(f"there is no answer from {where}: {error}; is the server running?") from error
        connection.close()
        try:
            value = json.loads(said)
        except ValueError:
            value = {}
        raise _error(value, answer.status)


def _error(value: Any, status: int) -> RemoteError:
    found = value.get("error") if isinstance(value, dict) else None
    if not isinstance(found, dict):
        return RemoteError(f"the server answered with status {status}, and not in a form of ours.", status)
    return RemoteError(str(found.get("message")), status, found.get("code"))
