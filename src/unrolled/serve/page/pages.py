"""Pages as they are sent: one script and one style, which alone their policy allows, by their hashes."""

import importlib.resources
from collections.abc import Sequence
from typing import NamedTuple

from unrolled.core.html import filled, shared_file, source_hash

__all__ = ["READER", "RUNS", "Shown", "reader_page", "runs_page"]

READER = ("api.js", "reading.js", "map.js", "tree.js", "write.js", "page.js")
RUNS = ("api.js", "runs.js")
"""Scripts in this order, after those that all pages share."""


class Shown(NamedTuple):
    """A page. content: HTML in UTF-8. policy: the value of ``Content-Security-Policy`` that goes with it."""

    content: bytes
    policy: str


def reader_page(runs: bool) -> Shown:
    """The live reader and writer. runs: whether ``/runs`` is there too."""
    links = '<a href="/runs">Runs</a>' if runs else ""
    return _page("page.html", ("tokens.css",), "page.css", ("tokens.js",), READER, links)


def runs_page(page: bool) -> Shown:
    """The learning curves. page: whether ``/`` is there too."""
    links = '<a href="/">Reader</a>' if page else ""
    return _page("runs.html", (), "runs.css", (), RUNS, links)


def _page(
    template: str, styles: Sequence[str], style: str, shared: Sequence[str], scripts: Sequence[str], links: str
) -> Shown:
    css = "".join(map(shared_file, ("base.css", *styles))) + _file(style)
    script = "".join([*map(shared_file, ("base.js", *shared)), *map(_file, scripts)])
    policy = (
        f"default-src 'none'; script-src '{source_hash(script)}'; style-src '{source_hash(css)}'; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return Shown(filled(_file(template), {"style": css, "script": script, "links": links}).encode(), policy)


def _file(name: str) -> str:
    return importlib.resources.files("unrolled.serve.page").joinpath(name).read_text(encoding="utf-8")
