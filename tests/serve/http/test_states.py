"""``/v1/state``: states that clients own, and what is refused of them."""

import base64
import struct
from collections.abc import Callable
from typing import Any

import pytest
from safetensors.torch import load
from starlette.testclient import TestClient

from serve.engine.tiny import served
from serve.http.conftest import KEYS
from serve.http.test_completions import asked, wanted
from unrolled.serve.states.keys import StateKeys


def post(client: TestClient, path: str, status: int = 200, **body: Any) -> dict[str, Any]:
    answer = client.post(path, json=body)
    assert answer.status_code == status, answer.text
    return answer.json()


def unpacked(blob: str) -> bytes:
    return base64.urlsafe_b64decode(blob + "=" * (-len(blob) % 4))


def packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


@pytest.mark.parametrize("kind", ["blob", "handle"])
def test_a_text_in_parts(client: TestClient, kind: str) -> None:
    whole = wanted("abc", 40, seed=3)[0]
    text, state, found = "", None, {}
    for number, size in enumerate((5, 1, 14, 20)):
        body = {"prompt": "abc"} if number == 0 else {"state": state}
        found = asked(client, **body, max_tokens=size, seed=3, return_state=True, state_format=kind)
        text, state = text + found["choices"][0]["text"], found["choices"][0]["state"]
        assert found["usage"]["prompt_tokens"] == (3 if number == 0 else 0)
    assert text == whole
    assert found["choices"][0]["state_tokens"] == 43


def test_another_process_goes_on(serving: Callable[..., TestClient]) -> None:
    """With the same key and model; with another key, or another model, it does not."""
    first, second = serving(), serving(keys=StateKeys([b"n" * 32, bytes(range(32))]))
    state = asked(first, prompt="abc", max_tokens=10, seed=1, return_state=True)["choices"][0]["state"]
    found = asked(second, state=state, max_tokens=20, seed=1, return_state=True)["choices"][0]
    assert found["text"] == wanted("abc", 30, seed=1)[0][10:]
    assert second.post("/v1/score", json={"model": "elsewhere@000000000001", "text": "a"}).status_code == 200
    rotated = post(first, "/v1/completions", 400, state=found["state"], max_tokens=1)
    assert "not from this server" in rotated["error"]["message"], "the new key signs, and the old server has it not"
    other = serving(models=[served("other", seed=2)])
    other.engine.models["other"].form.model = "other@00000000000f"  # type: ignore[attr-defined]
    assert post(other, "/v1/completions", 409, state=state, max_tokens=1)["error"]["code"] == "other_model"


def test_new_advance_fork_inspect_delete(client: TestClient) -> None:
    new = post(client, "/v1/state", text="abc")
    assert (new["tokens"], new["read"]) == (3, 3)
    more = post(client, "/v1/state/advance", state=new["state"], text="def")
    assert more["tokens"] == 6
    told = post(client, "/v1/state/inspect", state=more["state"])
    assert told["tokens"] == 6
    assert set(told["norms"]) == {"cells.0.h", "cells.0.c", "cells.1.h", "cells.1.c", "hidden"}
    forks = post(client, "/v1/state/fork", state=more["state"], n=3)["states"]
    assert len({*forks, more["state"]}) == 4
    texts = {asked(client, state=one, max_tokens=9, seed=2)["choices"][0]["text"] for one in [*forks, more["state"]]}
    assert texts == {wanted("abcdef", 9, seed=2)[0]}
    assert client.delete(f"/v1/state/{forks[0]}").json()["deleted"] is True
    gone = client.delete(f"/v1/state/{forks[0]}")
    assert gone.status_code == 410
    assert "keep the blob" in gone.json()["error"]["message"]
    assert asked(client, state=forks[1], max_tokens=9, seed=2)["choices"][0]["text"] in texts
    empty = post(client, "/v1/state")
    assert empty["tokens"] == 0
    assert asked(client, state=empty["state"], max_tokens=9, seed=2)["choices"][0]["text"] == wanted("", 9, seed=2)[0]


def test_down_and_up(client: TestClient) -> None:
    handle = post(client, "/v1/state", text="abc")["state"]
    plain = client.get(f"/v1/state/{handle}")
    assert set(load(plain.content)) == {"cells.0.h", "cells.0.c", "cells.1.h", "cells.1.c", "hidden"}
    octets = {"content-type": "application/octet-stream"}
    assert client.put("/v1/state", content=plain.content, headers=octets).status_code == 400, "it is not signed"
    signed = client.get(f"/v1/state/{handle}?signed=true").content
    again = client.put("/v1/state", content=signed, headers=octets).json()
    assert again["tokens"] == 3
    assert client.get(f"/v1/state/{handle}?signed=perhaps").status_code == 400
    assert client.get("/v1/state/st-none").status_code == 410


def test_without_signatures(serving: Callable[..., TestClient]) -> None:
    client = serving(signature=False)
    state = asked(client, prompt="abc", max_tokens=3, seed=1, return_state=True)["choices"][0]["state"]
    forged = packed(bytes(32) + unpacked(state)[32:])
    assert asked(client, state=forged, max_tokens=4, seed=1)["choices"][0]["text"] == wanted("abc", 7, seed=1)[0][3:]
    broken = bytearray(unpacked(state))
    broken[-4:] = struct.pack("<f", float("nan"))
    assert "no text gives" in post(client, "/v1/completions", 400, state=packed(bytes(broken)))["error"]["message"]


def test_no_client_state(serving: Callable[..., TestClient]) -> None:
    client = serving(client_state=False)
    for body in ({"return_state": True}, {"state": "abc"}):
        said = post(client, "/v1/completions", 400, prompt="a", **body)["error"]["message"]
        assert "gives no states out" in said
    found = asked(client, prompt="abc", max_tokens=3, seed=1, return_state=True, state_format="handle")["choices"][0]
    assert (
        asked(client, state=found["state"], max_tokens=4, seed=1)["choices"][0]["text"]
        == wanted("abc", 7, seed=1)[0][3:]
    )
    assert client.get(f"/v1/state/{found['state']}").status_code == 400


def test_limits(serving: Callable[..., TestClient]) -> None:
    large = [served(width=160)]
    client = serving(models=large, state_bytes=1024, state_memory=20_000)
    assert "ask for a handle" in post(client, "/v1/completions", 400, return_state=True)["error"]["message"]
    handles = [post(client, "/v1/state", text="ab")["state"] for _ in range(8)]
    assert client.get(f"/v1/state/{handles[0]}").status_code == 410, "the oldest went"
    assert post(client, "/v1/state/inspect", state=handles[-1])["tokens"] == 2
    old = serving(state_max_age=1e-6)
    state = asked(old, prompt="a", max_tokens=1, return_state=True)["choices"][0]["state"]
    assert "older" in post(old, "/v1/completions", 400, state=state)["error"]["message"]
    tight = serving(models=large, state_memory=2000)
    assert "memory" in post(tight, "/v1/state", 400, text="a")["error"]["message"]


def test_signatures(client: TestClient) -> None:
    """One sentence for whatever is wrong with one."""
    state = asked(client, prompt="abc", max_tokens=3, return_state=True)["choices"][0]["state"]
    data = unpacked(state)
    foreign = StateKeys([b"x" * 32]).sign(data[32:]) + data[32:]
    for one in (data[:-1], data[1:], foreign, bytes(32) + data[32:], data[:32], b"", data + b"\0"):
        said = post(client, "/v1/completions", 400, state=packed(one), max_tokens=1)["error"]["message"]
        assert said == "this state is not from this server, or was changed."
    assert "longer" in post(client, "/v1/completions", 400, state="A" * 1_600_000)["error"]["message"]
    bad = packed(KEYS.sign(b"hello there") + b"hello there")
    assert "cannot be read" in post(client, "/v1/completions", 400, state=bad)["error"]["message"]


def test_lifetime() -> None:
    from unrolled.serve.states.store import GoneError, Handles

    model, now = served(), 0.0
    handles = Handles(1 << 20, 10.0, lambda: now)
    first, second = handles.put(model, model.begun), handles.put(model, model.begun)
    assert handles.bytes < 2 * model.begun.size() + 5000, "equal values share their memory"
    now = 8.0
    handles.get(first)
    now = 12.0
    with pytest.raises(GoneError):
        handles.get(second)
    assert handles.get(first)[1] is model.begun
    now = 30.0
    handles.tidy()
    assert (len(handles), handles.bytes, handles.evicted) == (0, 0, 2)
