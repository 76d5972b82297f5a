"""200 kB of text do not make the page in a browser stall."""

import random
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from analyse.chromium import Browser
from unrolled.analyse import write_page
from unrolled.analyse.page.data import pack, quantise


def _large() -> tuple[str, dict[str, Any]]:
    """200 kB of text with made-up values of 50 units in two series: a page of 32 MB."""
    rng, numbers = random.Random(1), np.random.default_rng(1)
    words = ["".join(rng.choice("abcdefghij") for _ in range(rng.randint(1, 9))) for _ in range(500)]
    text = ""
    while len(text) < 200_000:
        text += " ".join(rng.choice(words) for _ in range(rng.randint(1, 40))) + "\n"
    n = len(text)
    values, low, high = quantise(numbers.normal(size=(n, 50)).astype(np.float32))
    one = {"low": low.tolist(), "high": high.tolist(), "variance": values.var(0).tolist()}
    one["data"] = [pack(column, np.uint8)["data"] for column in values.T]
    group = {"layer": 0, "width": 50, "main": "c", "units": list(range(50)), "series": {"c": one, "h": one}}
    model = {
        "name": "large", "parameters": 1, "vocabulary": [chr(i) for i in range(128)],
        "offsets": pack(np.arange(n), np.uint32), "ids": pack(np.frombuffer(text.encode(), np.uint8), np.uint16),
        "bits": pack(numbers.integers(0, 8000, n), np.uint16), "alternatives": 4,
        "top": pack(numbers.integers(97, 107, 4 * n), np.uint16),
        "topBits": pack(numbers.integers(0, 200, 4 * n), np.uint8), "groups": [group],
    }  # fmt: skip
    return text, model


@pytest.mark.slow
def test_200_kilobytes_do_not_stall(browser: Browser, tmp_path: Path) -> None:
    """Loading, jumps through the text and switching units: no step takes long, and few tokens exist at a time."""
    text, model = _large()
    size = write_page(tmp_path / "page.html", text, [model, model], "large")
    assert size > 40e6
    began = time.monotonic()
    page = browser.open(tmp_path / "page.html")
    page.until("document.querySelectorAll('.t').length > 0")
    loaded = time.monotonic() - began
    page.eval("window.longest = 0; window.last = performance.now(); (function tick() { const now = performance.now();"
              " window.longest = Math.max(window.longest, now - window.last); window.last = now;"
              " requestAnimationFrame(tick); })()")  # fmt: skip
    page.settle()
    page.eval("window.longest = 0")
    most, steps = 0, []
    for place in (0.2, 0.5, 0.9, 1.0, 0.0):
        began = time.monotonic()
        page.eval(f"scrollTo(0, {place} * document.documentElement.scrollHeight)")
        page.settle()
        page.until("[...document.querySelectorAll('.t')].some((t) => {"
                   " const b = t.getBoundingClientRect(); return b.top > 0 && b.bottom < innerHeight; })")  # fmt: skip
        steps.append(time.monotonic() - began)
        most = max(most, page.eval("document.querySelectorAll('.t').length"))
    page.eval("document.getElementById('text').focus()")
    for key in ("]", "]", "l", "PageDown", "PageDown", "ArrowRight"):
        began = time.monotonic()
        page.key(key)
        steps.append(time.monotonic() - began)
    longest = page.eval("window.longest") / 1000
    told = f"{size / 1e6:.1f} MB, loaded in {loaded:.2f} s, longest step {max(steps):.2f} s, frame {longest:.2f} s"
    sys.stdout.write(f"{told}, at most {most:,} tokens in the document\n")
    assert loaded < 20
    assert max(steps) < 3
    assert longest < 2
    assert most < 60_000, "of 400,000"
    assert page.complaints() == []
