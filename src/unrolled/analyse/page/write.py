"""One self-contained HTML page of a text as one or two models read it."""

import importlib.resources
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from unrolled.analyse.page.data import PageConfig, PageModel, page_model
from unrolled.analyse.page.text import losses_of
from unrolled.core.files import atomic_write, ready_output
from unrolled.core.html import filled, shared_file, source_hash
from unrolled.data.reading import Part
from unrolled.data.walk import Progress
from unrolled.runs import Run

__all__ = ["page_html", "page_of_runs", "write_page"]

VERSION = 1
SCRIPTS = ("data.js", "view.js", "page.js")  # in this order, after those that all pages share, as one script
SHARED = ("base.js", "tokens.js")
_FRAME = 60_000  # bytes kept for what is no data: skeleton, style and scripts


def page_of_runs(
    runs: Sequence[Run],
    text: str | os.PathLike[str],
    config: PageConfig | None = None,
    progress: Progress | None = None,
) -> tuple[str, list[PageModel], str]:
    """Read a text with one or two runs.

    Returns:
        the text, what the page holds of each run, and a title.
    Raises:
        UsageError: a count model; an unreadable text; a page that would be larger than allowed.
    """
    config = config or PageConfig()
    part = Part(str(text), Path(text))
    names = [run.path.resolve().name for run in runs]
    budget = config.megabytes * 1e6 - _FRAME
    found, content = [], ""
    for run, name in zip(runs, names, strict=True):
        shown = name if names.count(name) == 1 else str(run.path)
        losses = losses_of(run.model, run.tokenizer, part, config.alternatives, progress)
        # the text is on the page once, but counted with each model, which is on the safe side
        content = losses.text
        found.append(page_model(shown, run.model, run.tokenizer, losses, config, budget / len(runs), progress))
    return content, found, Path(text).name


def page_html(text: str, models: Sequence[dict[str, Any]], title: str) -> str:
    """The page. Nothing of ``text``, ``models`` or ``title`` can become markup or script.

    All of it goes into one block of JSON in which <, > and & are escaped; the script makes text nodes from it. A
    content security policy allows this script and this style, by their hashes, and nothing else: no network either.
    """
    data = {"version": VERSION, "title": title, "text": text, "models": list(models)}
    style = shared_file("base.css") + shared_file("tokens.css") + _file("page.css")
    script = "".join([*map(shared_file, SHARED), *map(_file, SCRIPTS)])
    hashes = f"script-src '{source_hash(script)}'; style-src '{source_hash(style)}'"
    policy = f"default-src 'none'; {hashes}; base-uri 'none'"
    parts = {"policy": policy, "style": style, "script": script, "data": _json(data)}
    return filled(_file("page.html"), parts)


def write_page(path: str | os.PathLike[str], text: str, models: Sequence[dict[str, Any]], title: str) -> int:
    """Write :func:`page_html` to a file and return its size in bytes."""
    content = page_html(text, models, title).encode()
    ready_output(path)
    atomic_write(path, content)
    return len(content)


def _file(name: str) -> str:
    return importlib.resources.files("unrolled.analyse.page").joinpath(name).read_text(encoding="utf-8")


def _json(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    for sign in "<>&\u2028\u2029\r":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return text
