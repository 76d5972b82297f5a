"""The clients that people have: OpenAI's, curl, and our own."""

import json
import shutil
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import openai
import pytest

import unrolled as ur
from serve.http.test_completions import wanted
from serve.live.conftest import Live
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.serve.client import Completion, RemoteError


def openai_client(server: Live) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{server.address}/v1", api_key="none", max_retries=0)


def test_openai(live: Callable[..., Live]) -> None:
    server = live()
    with openai_client(server) as client:
        (model,) = client.models.list().data
        assert model.id == "tiny@000000000001"
        assert client.models.retrieve(model.id).id == model.id
        found = client.completions.create(
            model=model.id, prompt="abc", max_tokens=20, seed=3, n=2, logprobs=2, echo=True
        )
        assert [one.text for one in found.choices] == ["abc" + text for text in wanted("abc", 20, 2, seed=3)]
        told = found.choices[0].logprobs
        assert told is not None
        assert told.tokens is not None
        assert "".join(told.tokens) == found.choices[0].text
        assert found.usage is not None
        assert found.usage.completion_tokens == 40
        options = {"include_usage": True}
        stream = client.completions.create(
            model="tiny",
            prompt="abc",
            max_tokens=20,
            seed=3,
            stream=True,
            stream_options=options,  # type: ignore[call-overload]
        )
        events = list(stream)
        assert "".join(event.choices[0].text for event in events if event.choices) == wanted("abc", 20, seed=3)[0]
        assert events[-1].usage.total_tokens == 23
        with pytest.raises(openai.NotFoundError, match="did you mean"):
            client.completions.create(model="tinny", prompt="abc")
        with pytest.raises(openai.BadRequestError, match="suffix"):
            client.completions.create(model="tiny", prompt="abc", suffix="x")
        with pytest.raises(openai.NotFoundError, match="no chat endpoint"):
            client.chat.completions.create(model="tiny", messages=[{"role": "user", "content": "a"}])


def test_openai_with_states(live: Callable[..., Live]) -> None:
    server = live()
    with openai_client(server) as client:
        text, state = "", None
        for size in (7, 13):
            extra = {"return_state": True, "state": state}
            prompt = "" if state else "abc"
            found = client.completions.create(model="tiny", prompt=prompt, max_tokens=size, seed=3, extra_body=extra)
            text += found.choices[0].text
            state = found.choices[0].state  # type: ignore[attr-defined]
    assert text == wanted("abc", 20, seed=3)[0]


def test_openai_with_a_key(live: Callable[..., Live], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("# ours\n0123456789abcdef01\n")
    server = live(api_key_file=tmp_path / "keys")
    with openai_client(server) as client, pytest.raises(openai.AuthenticationError):
        client.models.list()
    with openai.OpenAI(base_url=f"{server.address}/v1", api_key="0123456789abcdef01", max_retries=0) as client:
        assert client.models.list().data


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
def test_curl(live: Callable[..., Live]) -> None:
    server = live()

    def curl(path: str, *options: str) -> str:
        call = ["curl", "-sS", "-N", "--fail-with-body", f"{server.address}{path}", *options]
        return subprocess.run(call, capture_output=True, text=True, check=True).stdout

    def post(path: str, **body: object) -> str:
        return curl(path, "-H", "Content-Type: application/json", "-d", json.dumps(body))

    assert json.loads(curl("/healthz")) == {"status": "ok"}
    assert json.loads(curl("/readyz"))["status"] == "ready"
    found = json.loads(post("/v1/completions", prompt="abc", max_tokens=20, seed=3))
    assert found["choices"][0]["text"] == wanted("abc", 20, seed=3)[0]
    lines = post("/v1/completions", prompt="abc", max_tokens=20, seed=3, stream=True).split("\n\n")
    assert lines[-2:] == ["data: [DONE]", ""]
    texts = [json.loads(line[6:])["choices"][0]["text"] for line in lines[:-2]]
    assert "".join(texts) == wanted("abc", 20, seed=3)[0]
    assert json.loads(post("/v1/score", text="abc de\n"))["total"]["tokens"] == 7
    assert "unrolled_tokens_written_total" in curl("/metrics")
    assert "/v1/score" in json.loads(curl("/openapi.json"))["paths"]


def test_our_client(live: Callable[..., Live], tmp_path: Path) -> None:
    server = live()
    client = ur.Client(server.address)
    assert client.models()[0]["name"] == "tiny"
    chapter = client.read("abc")
    assert chapter.tokens == 3
    first = client.complete(state=chapter, max_tokens=8, seed=3)
    assert first.state is not None
    second = client.complete(state=first.state, max_tokens=12, seed=3)
    assert first.text + second.text == wanted("abc", 20, seed=3)[0]
    forks = client.samples(state=chapter, n=3, max_tokens=5, seed=1)
    assert [one.text for one in forks] == wanted("abc", 5, 3, seed=1)
    *pieces, last = client.stream("abc", max_tokens=20, seed=3, logprobs=1)
    assert isinstance(last, Completion)
    assert "".join(map(str, pieces)) == last.text == first.text + second.text
    assert last.logprobs is not None
    assert len(last.logprobs["tokens"]) == 20
    more = client.read("de\n", chapter)
    scored = client.score("abc", close=False)
    assert scored.state is not None
    assert scored.state.tokens == 3
    assert client.score("de\n", scored.state).total["tokens"] == 3
    assert client.inspect(more)["tokens"] == 6
    more.save(tmp_path / "a.state")
    assert client.load(tmp_path / "a.state") == more
    assert more.safetensors()[8:9] == b"{"


def test_our_client_says_what_is_wrong(live: Callable[..., Live]) -> None:
    server = live()
    client = ur.Client(server.address)
    with pytest.raises(RemoteError, match="field 'n'") as error:
        client.samples("a", n=1000)
    assert error.value.status == 400
    with pytest.raises(RemoteError, match="unknown field 'sed'"):
        list(client.stream("a", sed=1))
    chapter = client.read("abc")
    with pytest.raises(RemoteError, match="not from this server"):
        client.complete(state=chapter._replace(blob="A" + chapter.blob[1:]))
    with pytest.raises(UsageError, match="an address looks like"):
        ur.Client("localhost:8000")
    server.close()
    with pytest.raises(UnrolledError, match="is the server running"):
        client.models()


def test_from_python(run: Path) -> None:
    """``ur.serve`` listens until it is stopped, from a thread too."""
    found: list[Any] = []
    ready = threading.Event()

    def listening(host: str, port: int, stop: Callable[[], None]) -> None:
        found.extend((f"http://{host}:{port}", stop))
        ready.set()

    thread = threading.Thread(target=ur.serve, args=(run, {"port": 0}), kwargs={"listening": listening}, daemon=True)
    thread.start()
    assert ready.wait(20)
    address, stop = found
    assert len(ur.Client(address).complete("the ", max_tokens=5, temperature=0).text) == 5
    stop()
    thread.join(20)
    assert not thread.is_alive()
