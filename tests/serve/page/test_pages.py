"""The pages without a browser: what they allow, what they are made of, and when they are there."""

import asyncio
import contextlib
import importlib
import json
import random
import re
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from fuzz.mutate import damage_bytes
from unrolled.cli import main
from unrolled.core.errors import UsageError
from unrolled.core.html import source_hash
from unrolled.serve.page import reader_page, runs_page
from unrolled.serve.page.curves import Curves
from unrolled.serve.page.watch import Watch

SOURCE = Path(__file__).parents[3] / "src" / "unrolled"
LINE = {"type": "train", "step": 50, "tokens": 5000, "nats": 2.5, "lr": 0.1, "wall": 1.0, "cpu": 0.5}
WAYS_IN = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|createContextualFragment|\beval\(|new Function"
    r"|setHTML|https?://(?!www\.w3\.org/2000/svg)|\bimport\b|localStorage|<[^>]*\son\w+=|\sstyle="
)


def run_folder(folder: Path, name: str, *lines: dict[str, Any]) -> Path:
    """A run that has written some lines."""
    path = folder / name
    path.mkdir(parents=True)
    (path / "config.json").write_text("{}")
    (path / "metrics.jsonl").write_text("".join(json.dumps({**LINE, **line}) + "\n" for line in lines))
    return path


@pytest.mark.parametrize("path", ["/", "/runs"])
def test_the_policy_is_that_of_what_is_served(serving: Callable[..., TestClient], tmp_path: Path, path: str) -> None:
    client = serving(runs_folder=tmp_path)
    answer = client.get(path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff", "it came through the guard"
    (script,) = re.findall(r"<script>(.*?)</script>", answer.text, re.DOTALL)
    (style,) = re.findall(r"<style>(.*?)</style>", answer.text, re.DOTALL)
    assert answer.headers["content-security-policy"].split("; ") == [
        "default-src 'none'", f"script-src '{source_hash(script)}'", f"style-src '{source_hash(style)}'",
        "connect-src 'self'", "base-uri 'none'", "form-action 'none'", "frame-ancestors 'none'",
    ]  # fmt: skip
    assert "{{" not in answer.text
    assert len(answer.content) < 80_000


def test_nothing_becomes_markup() -> None:
    """No source has a way to make markup or script of a text, or to reach another server."""
    files = [path for folder in ("serve/page", "core/page") for path in (SOURCE / folder).iterdir()]
    files = [path for path in files if path.suffix in (".js", ".html", ".css")]
    assert len(files) > 12
    assert {path.name: found[0] for path in files if (found := WAYS_IN.search(path.read_text("utf-8")))} == {}
    for bad in ("x.innerHTML = y", '<p onclick="f()">', "fetch('https://a.b')", '<i style="x">', "eval('1')"):
        assert WAYS_IN.search(bad)


def test_links_are_to_what_is_there() -> None:
    assert b'href="/runs"' in reader_page(runs=True).content
    assert b"href=" not in reader_page(runs=False).content
    assert b'href="/"' in runs_page(page=True).content
    assert b"href=" not in runs_page(page=False).content
    assert reader_page(True).policy == reader_page(False).policy != runs_page(True).policy


def test_pages_that_are_off(serving: Callable[..., TestClient], tmp_path: Path) -> None:
    client = serving(page=False)
    for path, remedy in (("/", "--no-page"), ("/runs", "--runs"), ("/runs/events", "--runs")):
        answer = client.get(path)
        assert answer.status_code == 404
        message = answer.json()["error"]["message"]
        assert remedy in message
        assert message.endswith(".")
        assert ". " not in message
    assert serving(page=False, runs_folder=tmp_path).get("/runs").status_code == 200
    with pytest.raises(UsageError, match="there is no folder"):
        serving(runs_folder=tmp_path / "nowhere")


def test_pages_are_open_and_runs_are_not(serving: Callable[..., TestClient], tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("0123456789abcdef\n")
    client = serving(runs_folder=tmp_path, api_key_file=tmp_path / "keys")
    assert client.get("/").status_code == client.get("/runs").status_code == 200
    assert client.get("/runs/events").status_code == 401
    assert client.get("/", headers={"host": "elsewhere.org"}).status_code == 403


def test_the_command_takes_a_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found: list[Any] = []
    module = importlib.import_module("unrolled.serve.run")
    monkeypatch.setattr(module, "serve_runs", lambda runs, config, *rest: found.append(config))
    for arguments in (["--runs", str(tmp_path)], ["--no-page"]):
        monkeypatch.setattr("sys.argv", ["unrolled", "serve", "x", *arguments])
        with contextlib.suppress(SystemExit):
            main()
    assert [(one.runs_folder, one.page) for one in found] == [(tmp_path, True), (None, False)]


async def _next(events: AsyncGenerator[bytes, None]) -> dict[str, Any]:
    async with asyncio.timeout(20):
        data = await anext(events)
    assert data.startswith(b"data: ")
    assert data.endswith(b"\n\n")
    return json.loads(data[6:])


def test_runs_are_told_as_they_grow_by_one_reader(tmp_path: Path) -> None:
    path = run_folder(tmp_path, "a<b>", {})

    async def look() -> None:
        watch = Watch(tmp_path, 0.02)
        several = [watch.events(lambda: False) for _ in range(5)]
        first = [await _next(one) for one in several]
        assert first == [first[0]] * 5
        (run,) = first[0]["runs"]
        assert run == {"name": "a<b>", "status": "running", "shade": "#d55e00", "step": 50, "tokens": 5000,
                       "train": 2.5, "valid": None, "best": None}  # fmt: skip
        with (path / "metrics.jsonl").open("a") as file:
            file.write(
                json.dumps({**LINE, "type": "valid", "nats": 2.0, "step": 60, "cpu": 0.7, "tokens": 6000}) + "\n{"
            )
        second = [await _next(one) for one in several]
        assert second == [second[0]] * 5
        (run,) = second[0]["runs"]
        assert (run["step"], run["tokens"], run["train"], run["valid"], run["best"]) == (60, 6000, 2.5, 2.0, 2.0)
        for axis in ("step", "cpu"):
            lines = [one for one in _all(second[0]["figures"][axis]) if one[0] == "polyline"]
            assert len(lines) == 2
        begun = watch.curves.looks
        await asyncio.sleep(0.3)
        assert 1 <= watch.curves.looks - begun <= 20, "one reader for all of them"
        for one in several:
            await one.aclose()
        await asyncio.sleep(0.1)
        begun = watch.curves.looks
        await asyncio.sleep(0.1)
        assert watch.curves.looks == begun, "nobody looks any more"
        assert [value async for value in watch.events(lambda: True)] == [], "the server ends"

    asyncio.run(look())


def test_runs_that_begin_anew_are_damaged_or_vanish(tmp_path: Path) -> None:
    path, folder = run_folder(tmp_path / "all", "a", {}, {"step": 100, "nats": 1.0}), tmp_path / "all"

    async def look() -> None:
        watch = Watch(folder, 0.02)
        events = watch.events(lambda: False)
        assert (await _next(events))["runs"][0]["step"] == 100
        # what was written after the last save is dropped, and other lines come
        (path / "metrics.jsonl").write_text(json.dumps({**LINE, "nats": 3.0}) + "\n")
        run = (await _next(events))["runs"][0]
        assert (run["step"], run["train"]) == (50, 3.0)
        (path / "metrics.jsonl").write_text("no JSON, and longer than what was there before\n" * 9)
        assert (await _next(events))["runs"][0]["status"] == "damaged log"
        (path / "metrics.jsonl").write_text(json.dumps({**LINE, "nats": 4.0}) + "\n")
        assert (await _next(events))["runs"][0]["train"] == 4.0
        run_folder(folder, "b", {"step": 10})
        assert [run["name"] for run in (await _next(events))["runs"]] == ["a", "b"]
        folder.rename(tmp_path / "away")
        assert (await _next(events))["trouble"].startswith("there is no folder")
        (tmp_path / "away").rename(folder)
        assert len((await _next(events))["runs"]) == 2
        await events.aclose()

    asyncio.run(look())


def test_damaged_logs_are_told_and_nothing_else(tmp_path: Path) -> None:
    """Whatever bytes a log holds, what is sent is JSON that a browser reads, and no error of Python's comes."""
    draw = random.Random(7)
    lines = [{**LINE, "step": 50 * i, "type": kind, "nats": 3 / i} for i in range(1, 6) for kind in ("train", "valid")]
    sound = "".join(json.dumps(line) + "\n" for line in lines).encode()
    odd = [
        b'{"type": "train", "step": 1, "tokens": 1, "nats": 1e999, "cpu": 1}\n',
        b'{"type": "valid", "step": 1' + b"0" * 400 + b', "tokens": 1, "nats": 1, "cpu": 1}\n',
        b'{"type": []}\n', b"[" * 9999 + b"\n", b"\xff\xfe\n", b"7\n",
    ]  # fmt: skip
    path, states = run_folder(tmp_path, "a", {}), set()
    for data in [sound, *odd, *(damage_bytes(sound, draw) for _ in range(150))]:
        (path / "metrics.jsonl").write_bytes(data)
        value = Curves(tmp_path).look()
        assert value is not None
        assert json.loads(json.dumps(value, allow_nan=False)) == json.loads(json.dumps(value))
        states.add(value["runs"][0]["status"])
    assert states == {"running", "damaged log"}


def _all(element: Any) -> list[Any]:
    return [element, *(one for child in element[2] if isinstance(child, list) for one in _all(child))]
