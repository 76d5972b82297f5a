"""A page of the learning curves of runs that go on; it reads itself anew from the disk."""

import html
from collections import Counter
from collections.abc import Mapping, Sequence

from unrolled.compare.report.drawing import SHADES, STYLE, Line, draw, markup
from unrolled.compare.report.page import document, style_sheet
from unrolled.compare.results import CurvePoint
from unrolled.compare.verdicts import bits

__all__ = ["live_page"]


def live_page(
    curves: Mapping[str, Sequence[CurvePoint]],
    states: Mapping[str, str],
    title: str = "comparison",
    unit: str = "bits per token",
    seconds: int = 10,
) -> str:
    """The page, which loads itself again; no script, and nothing from elsewhere.

    Args:
        curves: by the name of the run, in the order of the legend.
        states: of every job by its name; they are counted by their first word, such as "done", "waiting"
            or "running on HOST".
        unit: of the losses shown. seconds: between two readings.
    """
    counts = Counter(state.split()[0] if state else "" for state in states.values())
    told = ", ".join(f"{count} {state}" for state, count in sorted(counts.items()))
    body = [f"<h1>{html.escape(title)}</h1>\n<p>{len(states)} jobs: {html.escape(told) or 'none'}.</p>\n"]
    shown = {name: curve for name, curve in curves.items() if curve}
    body.append(_plot(shown, unit) if shown else "<p>No run has been validated yet.</p>\n")
    rows = "".join(
        f"<tr><td>{html.escape(name)}</td><td>{html.escape(state)}</td></tr>\n" for name, state in states.items()
    )
    body.append(
        '<div class="wide" tabindex="0">\n<table>\n<thead><tr><th>job</th><th>state</th></tr></thead>\n'
        f"{rows}</table>\n</div>\n"
    )
    return document(title, "".join(body), style_sheet() + STYLE, seconds)


def _plot(curves: Mapping[str, Sequence[CurvePoint]], unit: str) -> str:
    lines, keys = [], []
    for i, (name, curve) in enumerate(curves.items()):
        mark = SHADES[i % len(SHADES)]
        tip = f"{name}: {bits(curve[-1].nats_per_token):.4f} {unit}"
        lines.append(Line([(point.tokens, bits(point.nats_per_token)) for point in curve], mark, tip))
        square = f'<svg viewBox="0 0 8 8" aria-hidden="true"><rect fill="{mark}" width="8" height="8"/></svg>'
        keys.append(f"<li>{square} {html.escape(tip)}</li>")
    label = f"validation loss in {unit} against tokens read, {len(curves)} runs"
    return (
        f"<figure>\n{markup(draw(lines, label, 'tokens read'))}\n"
        f'<figcaption>Validation, {html.escape(unit)}</figcaption>\n<ul class="key">{"".join(keys)}</ul>\n</figure>\n'
    )
