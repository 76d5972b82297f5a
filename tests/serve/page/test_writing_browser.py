"""The page in a browser: forks, generation, undo, the tree, keys, and a server that goes away."""

import json
import struct
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from analyse.chromium import Browser, Page
from serve.page.conftest import Site, read
from serve.page.test_pages import LINE, run_folder
from serve.page.test_reading_browser import SPY

START = "The army of the state went home."
LABELS = "[...document.querySelectorAll('[role=treeitem]')].map((one) => one.getAttribute('aria-label'))"
KEY = "a key of the tests, long"


def clean(text: str) -> str:
    """As the page shows a text."""
    return text.replace("\r\n", "\n").replace("\r", "\n").replace("\0", "\ufffd").replace("\ufeff", "")


def generate(page: Page, **fields: float) -> str:
    """Generate to the end; the text that came."""
    for name, value in fields.items():
        page.eval(f"byId('{name.replace('_', '-')}').value = '{value}'")
    before = page.eval("input.value.length")
    page.eval("window.under = tree.current; byId('generate').click()")
    page.until("!writer.busy && tree.current !== under")
    read(page)
    return page.eval(f"input.value.slice({before})")


def completed(site: Site, **body: Any) -> str:
    return clean(site.ask("/v1/completions", model="tiny", **body)["choices"][0]["text"])


@pytest.mark.slow
def test_a_fork_and_one_seed_give_one_text(opened: Callable[..., Page], site: Site) -> None:
    page = opened()
    page.insert(START)
    read(page)
    page.eval("byId('text').focus(); map.moveTo(0, 20)")
    # the best alternative that is a letter
    row = page.eval("readings[0].tokens[20]")
    k, other = next(
        (k, one) for k, one in enumerate(row["top_texts"])
        if one and one.isascii() and one.isprintable() and row["top_ids"][k] != row["id"]
    )  # fmt: skip
    page.eval(f"document.querySelectorAll('#token tbody button')[{k}].click()")
    read(page)
    forked = START[:20] + other
    assert page.eval("input.value") == forked
    assert page.eval(LABELS)[-1].startswith("fork: ")
    settings = {"temperature": 0.8, "top_p": 0.9, "length": 60, "seed": 11}
    state = page.eval("readings[0].segments.at(-1).state")
    page.eval(SPY)
    first = generate(page, **settings)
    (body,) = [body for path, body in page.eval("sent") if path == "/v1/completions"]
    assert body["prompt"] == "", "the text is not sent again"
    assert body["state"] == state
    wanted = {"max_tokens": 60, "temperature": 0.8, "top_p": 0.9, "seed": 11}
    assert first == completed(site, prompt="", state=state, **wanted)
    assert first == completed(site, prompt=forked, **wanted)
    page.eval("byId('undo').click()")
    read(page)
    assert page.eval("input.value") == forked
    page.eval(SPY)
    assert generate(page, **settings) == first
    (body,) = [body for path, body in page.eval("sent") if path == "/v1/completions"]
    assert body["state"] == state, "undo goes back to the state too"
    assert generate(page, **{**settings, "seed": 12}) != first
    assert page.complaints() == []


@pytest.mark.slow
def test_going_on_is_one_long_text(opened: Callable[..., Page], site: Site) -> None:
    """Twice 40 tokens are 80 of the same seed, since the state of the first is gone on from."""
    page = opened()
    page.insert(START)
    read(page)
    state = page.eval("readings[0].segments.at(-1).state")
    first = generate(page, length=40, seed=5)
    assert page.eval("byId('generate').textContent") == "Go on"
    second = generate(page)
    raw = site.ask("/v1/completions", model="tiny", prompt="", state=state, max_tokens=80, seed=5)["choices"][0]["text"]
    assert first + second == clean(raw)
    kept = page.eval("tree.current.states.get('tiny')")
    with urllib.request.urlopen(f"{site.address}/v1/state/{kept}") as answer:
        data = answer.read()
    told = json.loads(data[8 : 8 + struct.unpack("<Q", data[:8])[0]])["__metadata__"]
    assert int(told["tokens"]) == len(START) + 80


@pytest.mark.slow
def test_undo_and_the_tree(opened: Callable[..., Page]) -> None:
    page = opened("tiny", "other")
    page.insert(START)
    read(page)
    generate(page, length=20, seed=3)
    long = page.eval("input.value")
    page.eval("input.focus(); input.setSelectionRange(9999, 9999)")
    page.insert(" and")
    read(page)
    kinds = [label.split(":")[0] for label in page.eval(LABELS)]
    assert kinds == ["empty text", "typed", "generated", "typed"]
    page.eval(SPY)
    for wanted in (long, START, ""):
        page.eval("byId('undo').click()")
        assert page.eval("input.value") == wanted
        assert page.eval("byId('text').textContent.length > 0") == bool(wanted)
        read(page)
    assert page.eval("byId('undo').disabled")
    assert [path for path, _ in page.eval("sent") if path == "/v1/score"] == [], "what was read is still known"
    # by the keys of a tree
    page.eval("document.querySelector('[role=treeitem][tabindex=\"0\"]').focus()")
    for key in ("ArrowRight", "ArrowDown", "Enter"):
        page.key(key)
    assert page.eval("input.value") == long
    assert page.eval("document.activeElement.getAttribute('aria-selected')") == "true"
    for key, level in (("End", "4"), ("ArrowLeft", "3"), ("Home", "1")):
        page.key(key)
        assert page.eval("document.activeElement.getAttribute('aria-level')") == level
    assert (
        page.eval("[...document.querySelectorAll('[role=treeitem]')].filter((one) => one.tabIndex === 0).length") == 1
    )
    # another text from here is another branch
    page.key("Enter")
    page.eval("input.focus()")
    page.insert("Another")
    read(page)
    assert page.eval("tree.root.children.length") == 2
    assert page.complaints() == []


@pytest.mark.slow
def test_by_keys_alone(opened: Callable[..., Page]) -> None:
    page = opened()
    page.eval("document.activeElement.blur()")

    def tab_to(wanted: str) -> None:
        for _ in range(40):
            if page.eval(f"document.activeElement.id === '{wanted}'"):
                break
            page.key("Tab")
        assert page.eval("document.activeElement.id") == wanted
        outline = page.eval("getComputedStyle(document.activeElement).outlineStyle")
        assert outline != "none", "the focus is to be seen"

    tab_to("input")
    for sign in "the cat":
        page.key(sign)
    read(page)
    assert page.eval("input.value") == "the cat"
    tab_to("text")
    page.key("Home")
    page.key("ArrowRight")
    assert "h token 2 of 7" in page.eval("byId('token').innerText")
    page.key("Enter")
    assert page.eval("byId('token').contains(document.activeElement)")
    page.key("Escape")
    assert page.eval("document.activeElement.id") == "text"
    page.key("Enter")
    page.key("ArrowDown")
    page.key("ArrowUp")
    other = page.eval("document.activeElement.textContent")
    page.key("Enter")
    read(page)
    assert page.eval("input.value.length") == 2
    assert page.eval(LABELS)[-1] == f"fork: {other} for h after t"
    assert page.eval("document.activeElement.id") == "text"
    page.eval("byId('length').value = 500000")
    page.key("Enter", held=2)
    page.until("writer.busy && input.value.length > 50")
    page.key("Escape")
    page.until("!writer.busy")
    assert page.eval("byId('status').textContent") == "Stopped."
    read(page)
    stopped = page.eval("input.value")
    assert 50 < len(stopped) < 500_000
    assert page.eval("tree.current.text") == stopped
    # stopped, it goes on where it is
    page.eval("byId('length').value = 10")
    page.key("Enter", held=2)
    page.until("!writer.busy && input.value.length > " + str(len(stopped)))
    assert page.eval("input.value").startswith(stopped)
    assert page.complaints() == []


@pytest.fixture
def own() -> Iterator[Callable[..., Site]]:
    """Servers of the test's own."""
    made: list[Site] = []

    def make(**options: Any) -> Site:
        made.append(Site(models=["tiny"], **options))
        return made[-1]

    yield make
    for one in made:
        one.kill()


@pytest.mark.slow
def test_a_server_that_goes_away(browser: Browser, own: Callable[..., Site], tmp_path: Path) -> None:
    """With a key, which the page asks for, and keeps for the tab."""
    (tmp_path / "keys").write_text(KEY + "\n")
    site = own(api_key_file=str(tmp_path / "keys"))
    page = browser.open(site.address + "/")
    page.until("!byId('key').hidden && document.activeElement.id === 'key-value'")
    assert page.eval("byId('trouble-text').textContent") == "A key is needed that this server knows."
    page.insert(KEY)
    page.key("Enter")
    page.until("readings.length > 0 && byId('key').hidden && byId('trouble').hidden")
    assert page.eval("[sessionStorage.length, localStorage.length, document.cookie]") == [1, 0, ""]
    page.eval("input.focus()")
    page.insert(START)
    read(page)
    page.eval("byId('length').value = 8000; byId('seed').value = 9; generate()")
    page.until("input.value.length > 200")
    site.kill()
    page.until("!writer.busy")
    assert page.eval("byId('trouble-text').textContent") == (
        "The server went away while the text was written; what came is kept."
    )
    part = page.eval("input.value")
    assert len(part) > 200
    assert page.eval("!byId('trouble').hidden && !byId('retry').hidden")
    page.eval("byId('retry').click()")  # it is still away
    page.until("!writer.busy && byId('trouble-text').textContent.startsWith('The server does not answer')")
    assert page.eval("input.value") == START
    site.begin()
    page.eval("byId('retry').click()")
    page.until("!writer.busy && byId('trouble').hidden", 60)
    read(page)
    whole = page.eval("input.value")
    assert whole.startswith(part), "one seed, one text, also of the server that came back"
    assert page.eval("byId('trouble').hidden")
    assert [label.split(":")[0] for label in page.eval(LABELS)] == ["empty text", "typed", "generated"]


@pytest.mark.slow
def test_a_server_that_is_shut_down_gives_the_state_along(browser: Browser, own: Callable[..., Site]) -> None:
    site = own()
    page = browser.open(site.address + "/")
    page.until("readings.length > 0")
    page.eval("byId('length').value = 500000; byId('seed').value = 9; generate()")
    page.until("input.value.length > 100")
    site.process.terminate()
    page.until("!writer.busy")
    assert page.eval("byId('trouble-text').textContent") == "The server is being shut down; what came is kept."
    assert not page.eval("tree.current.states.get('tiny')").startswith("st-"), "a blob, for any server with its key"
    part = page.eval("input.value")
    site.kill()
    site.begin()
    tokens = page.eval("asked('/v1/state/inspect', { state: tree.current.states.get('tiny') })")["tokens"]
    page.eval("byId('length').value = 40; byId('trouble').hidden = true; generate()")
    page.until("!writer.busy && byId('status').textContent.startsWith('Wrote')")
    assert page.eval("input.value").startswith(part)
    after = page.eval("asked('/v1/state/inspect', { state: tree.current.states.get('tiny') })")
    assert after["tokens"] == tokens + 40


@pytest.mark.slow
def test_runs_are_kept_fresh(browser: Browser, own: Callable[..., Site], tmp_path: Path) -> None:
    hostile = "<img src=x onerror=owned=1>"
    path = run_folder(tmp_path, hostile, {}, {"step": 100, "nats": 2.0, "cpu": 1.0})
    site = own(runs_folder=str(tmp_path))
    page = browser.open(site.address + "/runs", size=(390, 844))
    page.until("document.querySelectorAll('#runs tr').length === 1")
    assert page.eval("document.querySelectorAll('#figure polyline').length") == 1
    assert hostile in page.eval("byId('runs').innerText")
    with (path / "metrics.jsonl").open("a") as file:
        file.write(json.dumps({**LINE, "type": "valid", "step": 100, "nats": 1.75, "cpu": 1.1}) + "\n")
    begun = time.monotonic()
    page.until("document.querySelectorAll('#figure polyline').length === 2")
    assert time.monotonic() - begun < 10
    assert "1.7500" in page.eval("byId('runs').innerText")
    page.eval("byId('axis').value = 'cpu'; byId('axis').dispatchEvent(new Event('change'))")
    assert "CPU seconds" in page.eval("document.querySelector('#figure svg').textContent")
    assert page.eval("document.documentElement.scrollWidth") <= 390
    assert page.eval("window.owned === undefined && !document.querySelector('img')")
    assert page.complaints() == []
    site.kill()
    page.until("!byId('trouble').hidden")
    site.begin()
    page.until("byId('trouble').hidden", 60)
