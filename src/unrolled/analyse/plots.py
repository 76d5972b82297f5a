"""How the plots of the probes look, and how they are written. matplotlib is an extra."""

import importlib
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from unrolled.core.errors import UnrolledError
from unrolled.core.files import atomic_write

__all__ = ["COLOURS", "MARKERS", "STYLES", "draw", "plots_wanted", "tsv"]

STYLES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)), (0, (1, 1)), (0, (8, 2)))
# Okabe and Ito (2008): told apart by the colour-blind, and dark enough for print
COLOURS = ("#000000", "#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00")
MARKERS = ("o", "s", "^", "D", "v", "x", "+")
_SETTINGS = {"font.size": 9, "svg.fonttype": "none", "svg.hashsalt": "unrolled", "axes.spines.top": False,
             "axes.spines.right": False, "text.parse_math": False}  # fmt: skip


def plots_wanted() -> str | None:
    """None where matplotlib is there, else one sentence that says that plots are left out."""
    try:
        importlib.import_module("matplotlib")
    except ImportError:
        return 'the plot needs matplotlib and is left out; install it with: pip install "unrolled[report]"'
    return None


def draw(
    path: str | os.PathLike[str], size: tuple[float, float], fill: Callable[[Any], None], png: bool = True
) -> None:
    """Draw a figure and write it as SVG, and as PNG unless told otherwise; equal figures give equal bytes.

    Args:
        path: of the files, without ``.png`` and ``.svg``.
        size: inches. fill: draws into the matplotlib figure that it is given.
    Raises:
        UnrolledError: matplotlib is not installed.
    """
    # found by name, since it is an extra that the type checker need not have
    try:
        matplotlib = importlib.import_module("matplotlib")
        figures = importlib.import_module("matplotlib.figure")
    except ImportError as error:
        raise UnrolledError('a plot needs matplotlib; install it with: pip install "unrolled[report]"') from error
    with matplotlib.rc_context(_SETTINGS):
        figure = figures.Figure(figsize=size, layout="constrained")
        fill(figure)
        _plain_powers(figure)
        kinds = {".png": {"dpi": 200}, ".svg": {"metadata": {"Date": None}}}
        for kind, options in kinds.items() if png else [(".svg", kinds[".svg"])]:
            target = Path(f"{os.fspath(path)}{kind}")
            atomic_write(target, lambda part, kind=kind, options=options: _save(figure, part, kind, options))


def _plain_powers(figure: Any) -> None:
    """Logarithmic axes write powers as mathematics, which is not read here: names of runs may have a dollar in them."""
    ticker = importlib.import_module("matplotlib.ticker")
    for axes in figure.axes:
        for axis, scale in ((axes.xaxis, axes.get_xscale()), (axes.yaxis, axes.get_yscale())):
            if scale in ("log", "symlog"):
                axis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
                axis.set_minor_formatter(ticker.NullFormatter())


def _save(figure: Any, part: Path, kind: str, options: dict[str, Any]) -> None:
    figure.savefig(part, format=kind[1:], **options)


def tsv(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """A table with a header; numbers with nine digits, None as an empty cell."""

    def cell(value: Any) -> str:
        if value is None:
            return ""
        return f"{value:.9g}" if isinstance(value, float) else str(value)

    return "".join("\t".join(map(cell, row)) + "\n" for row in [columns, *rows])
