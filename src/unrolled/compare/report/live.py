"""A page of the learning curves of runs that go on; it reads itself anew from the disk."""

import html
from collections import Counter
from collections.abc import Mapping, Sequence

from unrolled.compare.report.page import document, style_sheet
from unrolled.compare.results import CurvePoint
from unrolled.compare.verdicts import bits

__all__ = ["live_page"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 720, 360, 56, 40
_SHADES = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a8a8a")
_STYLE = (
    "polyline { fill: none; stroke-width: 1.5; vector-effect: non-scaling-stroke; } "
    "line { stroke: var(--line); } svg text { font-size: 12px; } .key { display: flex; flex-wrap: wrap; gap: 0 1rem; "
    "list-style: none; padding: 0; font-size: 0.85rem; } .key svg { width: 0.8rem; }"
)


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
    return document(title, "".join(body), style_sheet() + _STYLE, seconds)


def _plot(curves: Mapping[str, Sequence[CurvePoint]], unit: str) -> str:
    losses = {name: [bits(point.nats_per_token) for point in curve] for name, curve in curves.items()}
    most = max(point.tokens for curve in curves.values() for point in curve) or 1
    # the first validations are far above all that matters later
    late = [loss for values in losses.values() for loss in values[len(values) // 3 :]]
    low, high = min(late), max(late)
    span = (high - low) or 1.0

    def place(tokens: float, loss: float) -> tuple[float, float]:
        x = _LEFT + (_WIDTH - _LEFT - 10) * tokens / most
        return round(x, 1), round(10 + (_HEIGHT - _BOTTOM - 10) * (1 - (min(loss, high) - low) / span), 1)

    parts, keys = [], []
    for step in range(5):
        loss = low + span * step / 4
        y = place(0, loss)[1]
        parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - 10}" y1="{y}" y2="{y}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4}" text-anchor="end">{loss:.3f}</text>')
        x = place(most * step / 4, low)[0]
        anchor = "end" if step == 4 else "middle"
        tick = f'<text x="{x}" y="{_HEIGHT - _BOTTOM + 16}" text-anchor="{anchor}">'
        parts.append(f"{tick}{_count(most * step / 4)}</text>")
    parts.append(f'<text x="{_WIDTH / 2}" y="{_HEIGHT - 6}" text-anchor="middle">tokens read</text>')
    for i, (name, curve) in enumerate(curves.items()):
        points = " ".join(f"{x},{y}" for x, y in (place(p.tokens, v) for p, v in zip(curve, losses[name], strict=True)))
        tip = f"{html.escape(name)}: {losses[name][-1]:.4f} {html.escape(unit)}"
        mark = _SHADES[i % len(_SHADES)]
        x, y = place(curve[-1].tokens, losses[name][-1])
        parts.append(f'<g><title>{tip}</title><polyline stroke="{mark}" points="{points}"/>')
        parts.append(f'<circle fill="{mark}" cx="{x}" cy="{y}" r="3"/></g>')
        square = f'<svg viewBox="0 0 8 8" aria-hidden="true"><rect fill="{mark}" width="8" height="8"/></svg>'
        keys.append(f"<li>{square} {tip}</li>")
    label = f"validation loss in {html.escape(unit)} against tokens read, {len(curves)} runs"
    return (
        f'<figure>\n<svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" aria-label="{label}">{"".join(parts)}</svg>\n'
        f'<figcaption>Validation, {html.escape(unit)}</figcaption>\n<ul class="key">{"".join(keys)}</ul>\n</figure>\n'
    )


def _count(tokens: float) -> str:
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g} {name}"
    return f"{tokens:.0f}"
