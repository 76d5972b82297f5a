"""A page in headless Chromium, driven by the DevTools protocol over two pipes; the standard library is enough."""

import base64
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Browser", "Page", "find_chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
KEYS = {"ArrowDown": 40, "ArrowUp": 38, "ArrowLeft": 37, "ArrowRight": 39, "Enter": 13, "End": 35, "Home": 36,
        "Tab": 9, "Escape": 27}  # fmt: skip


def find_chromium() -> str:
    """The program, or the test is skipped."""
    found = next(filter(None, map(shutil.which, NAMES)), None)
    if found is None:
        pytest.skip(f"no browser: none of {', '.join(NAMES)} is on the PATH")
    return found


class Browser:
    """Chromium without a window. Commands go to its file descriptor 3 and answers come from 4, each ended by a NUL."""

    def __init__(self, folder: Path):
        program = find_chromium()
        to_child, self._write = os.pipe()
        self._read, from_child = os.pipe()
        # sh moves the pipes to where Chromium looks for them
        move = f'exec 3<&{to_child} 4>&{from_child}; exec "$@"'
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--no-first-run",
            "--window-size=1300,850", f"--user-data-dir={folder}", "about:blank",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            ["bash", "-c", move, "bash", program, *options],
            pass_fds=(to_child, from_child),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_child)
        os.close(from_child)
        self._held, self._number = b"", 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, seconds: float = 60, **parameters: Any) -> Any:
        """The result of a command of the protocol. What else arrives is kept in ``events``."""
        self._send(method, session, parameters)
        end = time.monotonic() + seconds
        while True:
            answer = self._receive(end)
            if answer.get("id") == self._number:
                assert "error" not in answer, answer
                return answer["result"]
            self.events.append(answer)

    def _send(self, method: str, session: str | None, parameters: dict[str, Any]) -> None:
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters}
        if session is not None:
            message["sessionId"] = session
        os.write(self._write, json.dumps(message).encode() + b"\0")

    def _receive(self, end: float) -> dict[str, Any]:
        while b"\0" not in self._held:
            ready, _, _ = select.select([self._read], [], [], max(0.0, end - time.monotonic()))
            assert ready, "the browser does not answer"
            got = os.read(self._read, 1 << 20)
            assert got, "the browser has ended"
            self._held += got
        first, self._held = self._held.split(b"\0", 1)
        return json.loads(first)

    def open(self, place: Path | str, dark: bool = False, size: tuple[int, int] | None = None) -> "Page":
        """A file, or an address, as a new page, loaded. size: of what is in sight, in pixels."""
        url = place.resolve().as_uri() if isinstance(place, Path) else place
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session, "file:" if isinstance(place, Path) else url)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        page.call("Emulation.setEmulatedMedia", features=[scheme])
        if size is not None:
            page.call(
                "Emulation.setDeviceMetricsOverride", width=size[0], height=size[1], deviceScaleFactor=1, mobile=False
            )
        page.call("Page.navigate", url=url)
        page.until("document.readyState === 'complete' && location.protocol !== 'about:'")
        return page

    def close(self) -> None:
        """A browser that was told to close may be gone before it answers, so none is waited for."""
        self._send("Browser.close", None, {})
        self._process.wait(30)
        os.close(self._write)
        os.close(self._read)


class Page:
    """One tab."""

    def __init__(self, browser: Browser, session: str, own: str):
        self._browser, self._session, self._own = browser, session, own

    def call(self, method: str, **parameters: Any) -> Any:
        return self._browser.call(method, self._session, **parameters)

    def eval(self, code: str) -> Any:
        """The value of an expression, as JSON gives it."""
        found = self.call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in found, found["exceptionDetails"]
        return found["result"].get("value")

    def until(self, code: str, seconds: float = 30) -> None:
        """Wait for an expression to be true."""
        end = time.monotonic() + seconds
        while not self.eval(code):
            assert time.monotonic() < end, f"never true: {code}"
            time.sleep(0.02)

    def settle(self) -> None:
        """Wait for two frames, so that what comes into sight has been made."""
        self.eval("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(true))))")

    def hover(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)
        self.settle()

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)
        self.settle()

    def key(self, key: str, held: int = 0) -> None:
        """Press a key. held: 1 for Alt, 2 for Control, 8 for Shift, or a sum of them."""
        text = {"text": key} if len(key) == 1 else {"text": "\r"} if key == "Enter" and not held else {}
        code = {"windowsVirtualKeyCode": KEYS[key]} if key in KEYS else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, modifiers=held, **code, **text)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, modifiers=held, **code)
        self.settle()

    def insert(self, text: str) -> None:
        """As if pasted."""
        self.call("Input.insertText", text=text)

    def picture(self) -> bytes:
        """What is in sight, as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])

    def complaints(self) -> list[Any]:
        """Errors, warnings and requests for anything but the file, or the server of the address, so far."""
        self.eval("0")
        found = []
        for event in self._browser.events:
            if event.get("sessionId") != self._session:
                continue
            kind, values = event["method"], event["params"]
            if kind == "Runtime.exceptionThrown" or (
                kind == "Log.entryAdded" and values["entry"]["level"] != "verbose"
            ):
                found.append(values)
            if kind == "Network.requestWillBeSent" and not values["request"]["url"].startswith(self._own):
                found.append(values["request"]["url"])
        return found
