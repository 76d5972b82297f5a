"""What strangers send: thousands of changed states, and many texts at once."""

import asyncio
import json
import logging
import random
import resource
from typing import Any

import httpx2
import pytest
from starlette.testclient import TestClient

from serve.engine.tiny import served
from serve.http.conftest import KEYS
from serve.http.test_completions import asked, wanted
from serve.http.test_states import packed, unpacked
from unrolled.serve.config import ServeConfig
from unrolled.serve.engine.pool import Engine
from unrolled.serve.http import build_app


def mutated(data: bytes, draw: random.Random) -> bytes:
    """A signed state with some bytes changed, cut or put in; sometimes signed anew, as by one who has the key."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5))):
        kind, at = draw.randrange(5), draw.randrange(len(changed) or 1)
        if kind == 0:
            changed[at : at + 1] = bytes([draw.randrange(256)])
        elif kind == 1:
            del changed[at : at + draw.choice((1, 4, 100, len(changed)))]
        elif kind == 2:
            changed[at:at] = draw.randbytes(draw.choice((1, 8, 300)))
        elif kind == 3:
            changed[32:40] = draw.choice((0, 1, 2**16, 2**40, 2**63)).to_bytes(8, "little")
        else:
            changed[at : at + 4] = bytes.fromhex(draw.choice(("0000c07f", "0000807f", "ffffffff", "00000080")))
    if draw.random() < 0.5:
        return KEYS.sign(bytes(changed[32:])) + bytes(changed[32:])
    return bytes(changed)


def send(client: TestClient, count: int, seed: int) -> dict[int, int]:
    """Status -> how often."""
    draw, found = random.Random(seed), dict[int, int]()
    state = asked(client, prompt="abc", max_tokens=3, seed=1, return_state=True)["choices"][0]["state"]
    for number in range(count):
        data = mutated(unpacked(state), draw)
        if data == unpacked(state):
            continue
        if number % 3:
            answer = client.post("/v1/completions", json={"state": packed(data), "max_tokens": 0})
        else:
            answer = client.put("/v1/state", content=data, headers={"content-type": "application/octet-stream"})
        found[answer.status_code] = found.get(answer.status_code, 0) + 1
        # with the key, numbers of a state may be changed to others that a text might give
        assert answer.status_code in (400, 409) or data[:32] == KEYS.sign(data[32:]), answer.text
        assert answer.status_code in (200, 400, 409)
    return found


def test_mutated_states(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "unrolled.serve"):
        found = send(client, 300, 1)
    assert found[400] > 200
    assert not caplog.records, "no exception was logged"
    assert asked(client, prompt="abc", max_tokens=9, seed=1)["choices"][0]["text"] == wanted("abc", 9, seed=1)[0]


@pytest.mark.slow
def test_ten_thousand_mutated_states(client: TestClient, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "unrolled.serve"):
        send(client, 1000, 2)
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found = send(client, 10_000, 3)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert sum(found.values()) > 9_900
    assert not caplog.records
    assert grown < 20 << 10, f"memory grew by {grown} kB"


def many(count: int) -> list[tuple[dict[str, Any], str]]:
    """Bodies, and the texts that each gives alone."""
    found = []
    for number in range(count):
        prompt, size = "abcdefghij"[: number % 11], 3 + number % 31
        body = {"prompt": prompt, "max_tokens": size, "seed": number, "stream": number % 2 == 0}
        found.append((body, wanted(prompt, size, seed=number)[0]))
    return found


@pytest.mark.parametrize("count", [50, pytest.param(200, marks=pytest.mark.slow)])
def test_texts_at_once_are_each_their_own(count: int) -> None:
    pairs = many(count)
    engine = Engine([served()], 2)
    app = build_app(engine, ServeConfig.parse({"hosts": ["testserver"]}), KEYS)

    async def one(client: httpx2.AsyncClient, body: dict[str, Any]) -> str:
        answer = await client.post("/v1/completions", json=body)
        assert answer.status_code == 200
        if not body["stream"]:
            return answer.json()["choices"][0]["text"]
        lines = [line[6:] for line in answer.text.split("\n\n") if line and line != "data: [DONE]"]
        return "".join(json.loads(line)["choices"][0]["text"] for line in lines)

    async def all_of_them() -> list[str]:
        engine.start()
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://testserver") as client:
            return await asyncio.gather(*(one(client, body) for body, _ in pairs))

    try:
        assert asyncio.run(all_of_them()) == [text for _, text in pairs]
    finally:
        engine.stop()
