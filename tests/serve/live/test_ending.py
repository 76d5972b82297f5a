"""Connections that end, and servers that do: nothing is lost, and nobody waits for ever."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from serve.http.test_completions import wanted
from serve.live.conftest import Live
from unrolled.serve.client import Client, Completion, RemoteError
from unrolled.serve.http import events, protocol

LONG: dict[str, Any] = {"max_tokens": 4000, "seed": 3}


def raw(server: Live, data: bytes) -> socket.socket:
    sock = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    sock.sendall(data)
    return sock


def request(path: str, body: dict[str, Any], *headers: str) -> bytes:
    data = json.dumps(body).encode()
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json",
             f"Content-Length: {len(data)}", *headers]  # fmt: skip
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def until(holds: Callable[[], bool], seconds: float = 10) -> bool:
    end = time.monotonic() + seconds
    while not holds() and time.monotonic() < end:
        time.sleep(0.01)
    return holds()


def test_a_stopped_server_gives_the_states_and_another_goes_on(live: Callable[..., Live]) -> None:
    first, second = live(drain=0.02), live()
    found: list[Completion] = []

    def run(seed: int) -> None:
        *_, last = Client(first.address).stream("abc", max_tokens=4000, seed=seed)
        assert isinstance(last, Completion)
        found.append(last)

    threads = [threading.Thread(target=run, args=(seed,)) for seed in range(2)]
    for thread in threads:
        thread.start()
    assert until(lambda: first.engine.used == 2)
    whole = threading.Thread(target=lambda: found.append(Client(first.address).complete("abc", **LONG)))
    whole.start()
    assert until(lambda: first.engine.used == 3)
    first.close()
    for thread in [*threads, whole]:
        thread.join(10)
    assert len(found) == 3
    assert "may go on" in " ".join(first.told)
    client = Client(second.address)
    for one in found:
        assert one.reason == "shutdown"
        assert one.state is not None
        assert one.state.tokens == 3 + len(one.text)
        more = client.complete(state=one.state, max_tokens=25, seed=one.seed)
        assert one.text + more.text == wanted("abc", len(one.text) + 25, seed=one.seed)[0]


def test_while_it_drains(live: Callable[..., Live]) -> None:
    server = live(drain=30)
    stream = Client(server.address).stream("abc", max_tokens=4000, seed=1)
    next(stream)
    server.stop()
    assert until(lambda: server.engine.draining)
    with pytest.raises(RemoteError, match="shut down") as error:
        Client(server.address).complete("a")
    assert error.value.status == 503
    sock = raw(server, b"GET /readyz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    assert b"503" in sock.recv(100)
    sock.close()
    *_, last = stream
    assert isinstance(last, Completion)
    assert last.reason == "length", "it had the time to end by itself"


def test_answers_on_one_connection_do_not_wait_for_each_other(live: Callable[..., Live]) -> None:
    """Small packets that wait for an acknowledgement wait for 40 ms."""
    server = live()
    sock, spent = raw(server, b""), []
    for _ in range(12):
        sock.sendall(request("/v1/completions", {"max_tokens": 1, "stream": True}))
        began, data = time.monotonic(), b""
        while b"0\r\n\r\n" not in data:
            data += sock.recv(1000)
        spent.append(time.monotonic() - began)
    sock.close()
    assert sorted(spent)[3] < 0.03


def test_who_hangs_up_frees_the_place(live: Callable[..., Live]) -> None:
    server = live(streams=2, max_tokens=10**6)
    for stream in (True, False):
        socks = [raw(server, request("/v1/completions", {**LONG, "max_tokens": 10**6, "stream": stream})) for _ in "ab"]
        assert until(lambda: server.engine.used == 2)
        for sock in socks:
            sock.close()
        assert until(lambda: server.engine.used == 0), "rows of those who left are dropped"
    assert Client(server.address).complete("abc", max_tokens=5, seed=1).text == wanted("abc", 5, seed=1)[0]


def test_who_sends_no_headers_is_hung_up(live: Callable[..., Live], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocol, "HEADER_SECONDS", 0.2)
    server = live()
    socks = [raw(server, data) for data in (b"", b"GET / HT", b"GET / HTTP/1.1\r\nHost: localhost\r\nX: ")]
    for sock in socks:
        assert sock.recv(10) == b""
        sock.close()
    answered = raw(server, b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
    data = answered.recv(1000)
    while b'"ok"}' not in data:
        data += answered.recv(1000)
    assert data.startswith(b"HTTP/1.1 200")
    answered.sendall(b"GET /hea")
    assert answered.recv(10) == b""
    answered.close()


def test_who_sends_no_body_is_told(live: Callable[..., Live], monkeypatch: pytest.MonkeyPatch) -> None:
    from unrolled.serve.http import guard

    monkeypatch.setattr(guard, "_BODY_SECONDS", 0.2)
    server = live()
    sock = raw(server, request("/v1/completions", {"prompt": "abc"})[:-3])
    assert b"408" in sock.recv(1000)
    sock.close()


def test_who_does_not_read_is_hung_up(live: Callable[..., Live], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_SLOW", 0.3)
    monkeypatch.setattr(events, "_LOOK", 0.1)
    monkeypatch.setattr(protocol, "_WAITING", 1 << 10)
    server = live(max_tokens=10**6, max_seconds=60)
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1024)
    sock.connect(("127.0.0.1", server.port))
    body = {"max_tokens": 10**6, "stream": True, "n": 8, "logprobs": 20}
    sock.sendall(request("/v1/completions", body))
    assert until(lambda: server.engine.used == 8)
    assert until(lambda: server.engine.used == 0, 20), "a reader that is too slow does not hold its places"
    sock.close()


def test_quiet_streams_hear_that_the_server_lives(live: Callable[..., Live], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "_BEAT", 0.1)
    monkeypatch.setattr(events, "_LOOK", 0.05)
    server = live(streams=1, max_tokens=10**6)
    first = raw(server, request("/v1/completions", {"max_tokens": 10**6, "stream": True}))
    assert until(lambda: server.engine.used == 1)
    waits = raw(server, request("/v1/completions", {"max_tokens": 2, "stream": True}))
    data = b""
    while b": still here" not in data:
        data += waits.recv(1000)
    first.close()
    while b"[DONE]" not in data:
        data += waits.recv(1000)
    waits.close()


@pytest.fixture
def process(run: Path, tmp_path: Path) -> Iterator[Callable[..., tuple[subprocess.Popen, str]]]:
    """``unrolled serve`` as a process, and its address."""
    started: list[subprocess.Popen] = []

    def start(*options: str) -> tuple[subprocess.Popen, str]:
        call = [sys.executable, "-m", "unrolled", "serve", str(run), "--port", "0", "--json", *options]
        env = {**os.environ, "UNROLLED_CACHE": str(tmp_path / "cache")}
        one = subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=env)
        started.append(one)
        assert one.stdout is not None
        assert select.select([one.stdout], [], [], 60)[0], "it does not listen"
        line = one.stdout.readline()
        assert line, one.communicate()[1]
        return one, json.loads(line)["address"]

    yield start
    for one in started:
        one.kill()
        one.communicate()


@pytest.mark.slow
def test_processes_with_one_key(process: Callable[..., Any], tmp_path: Path) -> None:
    """SIGTERM to one, and the text goes on at the other, as if nothing had happened."""
    key = tmp_path / "key"
    key.write_text("5a" * 32 + "\n")
    key.chmod(0o600)
    (one, first), (two, second) = (process("--state-key", str(key), "--drain", "0.1") for _ in range(2))
    whole = Client(second).complete("the ", max_tokens=3000, seed=7)
    stream = Client(first).stream("the ", max_tokens=3000, seed=7)
    next(stream)
    one.send_signal(signal.SIGTERM)
    *_, last = stream
    assert isinstance(last, Completion)
    assert last.reason == "shutdown"
    assert last.state is not None
    assert one.wait(20) == 0
    assert "may go on" in one.communicate()[1]
    rest = Client(second).complete(state=last.state, max_tokens=3000 - (last.state.tokens - 4), seed=7)
    assert last.text + rest.text == whole.text
    two.send_signal(signal.SIGINT)
    assert two.wait(20) == 0
    assert "Traceback" not in two.communicate()[1]


@pytest.mark.slow
def test_an_address_that_is_taken(process: Callable[..., Any], run: Path) -> None:
    _, address = process()
    port = address.rpartition(":")[2]
    call = [sys.executable, "-m", "unrolled", "serve", str(run), "--port", port]
    again = subprocess.run(call, capture_output=True, text=True, check=False)
    assert again.returncode == 1
    assert again.stderr.splitlines()[-1].startswith(f"unrolled: cannot listen at 127.0.0.1:{port}: ")
