"""The load test: what it measures, and that it notices texts that are not as alone."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Command
from serve.live.conftest import Live
from unrolled.serve.client import Client
from unrolled.serve.load import LoadConfig, run_load
from unrolled.serve.load.connection import Answer

SHORT: dict[str, Any] = {"seconds": 0.3, "open_per_second": 1000, "tokens": 60, "part": 20, "streams": 6}


def test_what_is_measured(live: Callable[..., Live]) -> None:
    server = live()
    config = LoadConfig.parse({**SHORT, "prompt_tokens": 5, "check": 4, "seconds": 1.0})
    found = run_load(server.address, config)
    assert found["answers"].keys() == {"200"}
    assert found["tokens_per_second"] > 100
    assert found["events_per_second"] > 50
    assert found["between_ms"]["p50"] <= found["between_ms"]["p95"] <= found["between_ms"]["p99"]
    assert found["first_ms"]["p50"] > 0
    assert found["events_per_second_of_a_stream"]["least"] <= found["events_per_second_of_a_stream"]["median"]
    assert found["compared"]["different"] == 0
    assert found["compared"]["texts"] > 0


def test_texts_that_hang_up_and_go_on(live: Callable[..., Live]) -> None:
    server = live()
    config = LoadConfig.parse({**SHORT, "drop": 0.5, "check": 3, "tokens": 500, "part": 250, "seconds": 0.8})
    found = run_load(server.address, config)
    assert found["hung_up"] > 0, "a part takes long enough to be hung up in"
    assert found["compared"] == {"texts": found["compared"]["texts"], "different": 0}


def test_a_text_that_is_not_as_alone_is_noticed(
    live: Callable[..., Live],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    complete = Client.complete

    def other(self: Client, *arguments: Any, **options: Any) -> Any:
        return complete(self, *arguments, **options)._replace(text="something else")

    monkeypatch.setattr(Client, "complete", other)
    found = run_load(live().address, LoadConfig.parse({**SHORT, "check": 3}))
    assert found["compared"]["different"] == found["compared"]["texts"] > 0


def test_on_the_command_line(live: Callable[..., Live], unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("0123456789abcdef01\n")
    server = live(api_key_file=tmp_path / "keys")
    options = ("--streams", 3, "--seconds", 0.3, "--tokens", 20, "--api-key-file", tmp_path / "keys", "--check", 2)
    done = unrolled("load-test", server.address, *options)
    assert done.code == 0, done.err
    assert done.out.startswith("3 streams for ")
    assert "written again: 0 different" in done.out
    assert "memory of the server" in unrolled("load-test", server.address, *options, "--pid", os.getpid()).out


def test_refused(live: Callable[..., Live], refused: Callable[..., str]) -> None:
    server = live()
    assert "there is no model" in refused("load-test", server.address, "--model", "other")
    assert "is the server running" in refused("load-test", "http://127.0.0.1:9", code=1)
    assert "streams" in refused("load-test", server.address, "--streams", 0)


def test_answers_in_chunks() -> None:
    answer = Answer()
    whole = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    for part in (b'data: {"a": 1}\n\n', b'data: {"b": "x\\r\\n"}\n\ndata: [DONE]\n\n'):
        whole += b"%x\r\n%b\r\n" % (len(part), part)
    answer.parts = [whole[:60], whole[60:], b"0\r\n\r\n"]
    assert answer.events() == [{"a": 1}, {"b": "x\r\n"}]
