"""Learning curves as SVG, as elements that a page of HTML holds, or a script builds."""

import html
from collections.abc import Callable, Sequence
from typing import NamedTuple, Union

__all__ = ["SHADES", "STYLE", "Element", "Line", "count", "draw", "markup"]

_WIDTH, _HEIGHT, _LEFT, _BOTTOM = 720, 360, 56, 40
SHADES = ("#d55e00", "#0072b2", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#8a8a8a")
STYLE = (
    "polyline { fill: none; stroke-width: 1.5; vector-effect: non-scaling-stroke; } "
    "line { stroke: var(--line); } svg text { font-size: 12px; } .key { display: flex; flex-wrap: wrap; gap: 0 1rem; "
    "list-style: none; padding: 0; font-size: 0.85rem; } .key svg { width: 0.8rem; }"
)
"""What a page with such drawings adds to its style."""


class Element(NamedTuple):
    """An element. As JSON it is a list of these three; children are elements and texts."""

    tag: str
    attributes: dict[str, str]
    children: tuple[Union["Element", str], ...] = ()


class Line(NamedTuple):
    """A curve. points: of place and loss. colour: of it and of its sign in a legend. tip: what is told of it.
    faint: it stands behind others, and has no mark at its end."""

    points: Sequence[tuple[float, float]]
    colour: str
    tip: str
    faint: bool = False


def draw(lines: Sequence[Line], label: str, place_label: str, shown: Callable[[float], str] | None = None) -> Element:
    """Lines over one pair of axes. At least one of them has a point.

    Args:
        label: of the drawing. place_label: of the axis of places. shown: how a place is written.
    """
    shown = shown or count
    most = max(place for line in lines for place, _ in line.points) or 1
    # the first losses are far above all that matters later
    late = [loss for line in lines for _, loss in line.points[len(line.points) // 3 :]]
    low, high = min(late), max(late)
    span = (high - low) or 1.0

    def at(place: float, loss: float) -> tuple[float, float]:
        x = _LEFT + (_WIDTH - _LEFT - 10) * place / most
        return round(x, 1), round(10 + (_HEIGHT - _BOTTOM - 10) * (1 - (min(loss, high) - low) / span), 1)

    parts: list[Element] = []
    for step in range(5):
        loss = low + span * step / 4
        y = at(0, loss)[1]
        parts.append(Element("line", {"x1": f"{_LEFT}", "x2": f"{_WIDTH - 10}", "y1": f"{y}", "y2": f"{y}"}))
        parts.append(Element("text", {"x": f"{_LEFT - 6}", "y": f"{y + 4}", "text-anchor": "end"}, (f"{loss:.3f}",)))
        x = at(most * step / 4, low)[0]
        where = {"x": f"{x}", "y": f"{_HEIGHT - _BOTTOM + 16}", "text-anchor": "end" if step == 4 else "middle"}
        parts.append(Element("text", where, (shown(most * step / 4),)))
    where = {"x": f"{_WIDTH / 2}", "y": f"{_HEIGHT - 6}", "text-anchor": "middle"}
    parts.append(Element("text", where, (place_label,)))
    for line in lines:
        if not line.points:
            continue
        points = " ".join(f"{x},{y}" for x, y in (at(*point) for point in line.points))
        inside = [Element("title", {}, (line.tip,))]
        faint = {"stroke-opacity": "0.45"} if line.faint else {}
        inside.append(Element("polyline", {"stroke": line.colour, "points": points, **faint}))
        if not line.faint:
            x, y = at(*line.points[-1])
            inside.append(Element("circle", {"fill": line.colour, "cx": f"{x}", "cy": f"{y}", "r": "3"}))
        parts.append(Element("g", {}, tuple(inside)))
    return Element("svg", {"viewBox": f"0 0 {_WIDTH} {_HEIGHT}", "role": "img", "aria-label": label}, tuple(parts))


def markup(element: Element | str) -> str:
    """As HTML."""
    if isinstance(element, str):
        return html.escape(element)
    inside = "".join(map(markup, element.children))
    attributes = "".join(f' {name}="{html.escape(value)}"' for name, value in element.attributes.items())
    return f"<{element.tag}{attributes}>{inside}</{element.tag}>"


def count(tokens: float) -> str:
    """A number in three figures."""
    for size, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if tokens >= size:
            return f"{tokens / size:.3g} {name}"
    return f"{tokens:.0f}"
