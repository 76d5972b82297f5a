"""Servers to look at, and what is asked of them without a browser."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import unrolled
from analyse.chromium import Browser, Page
from serve.http.conftest import serving

__all__ = ["Site", "read", "serving"]

TESTS = Path(__file__).parents[2]


class Site:
    """A server in a process of its own. options: of it, and ``models``."""

    def __init__(self, **options: Any):
        self._options = {"port": 0, **options}
        self.begin()

    def begin(self) -> None:
        """Start it, at the port that it had before."""
        command = [sys.executable, "-m", "serve.page.server", json.dumps(self._options)]
        environment = {**os.environ, "PYTHONPATH": str(Path(unrolled.__file__).parents[1])}
        self.process = subprocess.Popen(command, cwd=TESTS, stdout=subprocess.PIPE, text=True, env=environment)
        assert self.process.stdout is not None
        told = self.process.stdout.readline()
        if not told:
            self.kill()
        self._options["port"] = int(told)
        self.address = f"http://127.0.0.1:{self._options['port']}"

    def kill(self) -> None:
        """Without a word to its clients."""
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()

    def ask(self, path: str, **body: Any) -> Any:
        """The JSON of an answer."""
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.address + path, json.dumps(body).encode() if body else None, headers)
        with urllib.request.urlopen(request) as answer:
            return json.load(answer)


@pytest.fixture(scope="session")
def site() -> Iterator[Site]:
    """tiny, other, letters, words and hostile."""
    made = Site()
    yield made
    made.kill()


@pytest.fixture
def opened(browser: Browser, site: Site) -> Callable[..., Page]:
    """The page as a new tab that shows one or two models, ready."""

    def make(model: str = "tiny", beside: str = "", dark: bool = False, size: tuple[int, int] | None = None) -> Page:
        page = browser.open(site.address + "/", dark, size)
        page.until("readings.length > 0")
        page.eval(f"byId('model').value = '{model}'; byId('beside').value = '{beside}'; choose()")
        page.eval("input.focus()")
        return page

    return make


def read(page: Page) -> None:
    """Wait until the whole text has been read."""
    page.until("timer === null && !writer.busy && readings.every((one) => one.done && one.text === input.value)")
    page.settle()
