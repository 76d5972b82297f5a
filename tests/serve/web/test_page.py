"""The page in Chromium: greedy text equals ours, for each kind of tokenizer; what is hostile stays text.

``ONNXRUNTIME_WEB`` names the folder ``dist`` of an npm install of onnxruntime-web.
"""

import functools
import http.server
import json
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analyse.chromium import Browser, Page
from train.runs import experiment, write_text
from unrolled.core.errors import UsageError
from unrolled.generate import SamplerConfig, generate
from unrolled.predict import NeuralPredictor
from unrolled.runs import Run
from unrolled.serve.export import export_run
from unrolled.serve.web.write import RUNTIME
from unrolled.train import train

LENGTH = 200
KINDS = {
    "char": {"tokenizer": {"name": "char"}},
    "byte": {"tokenizer": {"name": "byte", "values": "seen"}},
    "word": {"tokenizer": {"name": "word", "min_count": 1}},
}
Open = Callable[[Path], Page]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Run]:
    home = tmp_path_factory.mktemp("web")
    text = write_text(home / "text")

    @functools.cache
    def trained(kind: str) -> Run:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("UNROLLED_CACHE", str(home / "cache"))
            value = experiment(text, train={"steps": 40, "validations": 1}).model_dump(mode="json")
            config = type(experiment(text)).parse({**value, **KINDS[kind]})
            return Run(train(config, home / kind, "cpu"), "cpu")

    return trained


@pytest.fixture
def runtime() -> Path:
    found = os.environ.get("ONNXRUNTIME_WEB")
    if found is None:
        pytest.skip("no onnxruntime-web: set ONNXRUNTIME_WEB to node_modules/onnxruntime-web/dist")
    return Path(found)


@pytest.fixture
def opened(browser: Browser) -> Iterator[Open]:
    servers = []

    class Quiet(http.server.SimpleHTTPRequestHandler):
        extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".wasm": "application/wasm"}

        def log_message(self, *_: Any) -> None:
            return

    def make(folder: Path) -> Page:
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
        servers.append(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = browser.open(folder / "model.json")
        page.call("Page.navigate", url=f"http://127.0.0.1:{server.server_address[1]}/index.html")
        page.until("location.protocol === 'http:' && document.readyState === 'complete'")
        page.until("document.getElementById('status').textContent !== 'loading'", 60)
        return page

    yield make
    for server in servers:
        server.shutdown()
        server.server_close()


def written(page: Page, prompt: str = "", count: int = LENGTH) -> str:
    page.eval(f"document.getElementById('prompt').value = {json.dumps(prompt)}")
    page.eval(f"document.getElementById('tokens').value = {count}")
    page.eval("document.getElementById('write').click()")
    page.until("!document.getElementById('write').disabled", 120)
    return page.eval("document.getElementById('text').textContent").removeprefix(prompt)


def complaints(page: Page) -> list[Any]:
    return [one for one in page.complaints() if not str(one).startswith("http://127.0.0.1:")]


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_greedy_text_is_ours(
    runs: Callable[[str], Run], kind: str, runtime: Path, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = runs(kind)
    monkeypatch.setenv("UNROLLED_CACHE", str(run.path.parent / "cache"))
    export_run(run, tmp_path / "page", "web", {"runtime": runtime, "verify": 20})
    page = opened(tmp_path / "page")
    assert page.eval("document.getElementById('status').textContent") == "ready"
    predictor = NeuralPredictor(run.model, run.tokenizer.start_id)
    for prompt in ("", "the green hill\nthe cat"):
        wanted = generate(predictor, run.tokenizer, [prompt], LENGTH, SamplerConfig(temperature=0.0))[0]
        assert len(wanted.tokens) == LENGTH
        assert written(page, prompt) == wanted.text
    assert f"{LENGTH} tokens, " in page.eval("document.getElementById('status').textContent")
    assert complaints(page) == []


@pytest.mark.slow
def test_hostile_text_stays_text_and_what_is_unknown_is_said(
    runs: Callable[[str], Run], runtime: Path, opened: Open, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNROLLED_CACHE", str(runs("byte").path.parent / "cache"))
    export_run(runs("byte"), tmp_path / "page", "web", {"runtime": runtime, "verify": 0, "int8": True})
    page = opened(tmp_path / "page")
    assert len(written(page, "<img src=x onerror=alert(1)>", 5)) >= 5
    assert page.eval("document.querySelectorAll('#text img').length") == 0
    export_run(runs("char"), tmp_path / "second", "web", {"runtime": runtime, "verify": 0})
    page = opened(tmp_path / "second")
    written(page, "a €", 5)
    said = page.eval("document.getElementById('status').textContent")
    assert said == 'the character "€" is not in the model\'s vocabulary; leave it out'


def test_refusals(runs: Callable[[str], Run], tmp_path: Path) -> None:
    run, out = runs("char"), tmp_path / "page"
    with pytest.raises(UsageError, match="npm install onnxruntime-web, and name its folder"):
        export_run(run, out, "web")
    with pytest.raises(UsageError, match=f"it has no {RUNTIME[0]}"):
        export_run(run, out, "web", {"runtime": tmp_path})
    out.mkdir()
    with pytest.raises(UsageError, match="exists already"):
        export_run(run, out, "web", {"runtime": tmp_path})
    assert not list(out.iterdir())
