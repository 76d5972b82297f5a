"""The report as one page of HTML, without scripts and without anything from elsewhere."""

import html
import importlib.resources
import re
from collections.abc import Mapping, Sequence
from xml.etree import ElementTree

from unrolled.compare.report.parts import Drawn, Section, Table
from unrolled.core.html import source_hash

__all__ = ["document", "inline_svg", "report_page", "style_sheet"]

_FOLDED = 20
"""Rows beyond which a table is opened by the reader."""

_SIZE = re.compile(r"[\d.]+px")


def document(title: str, body: str, style: str, refresh: int | None = None) -> str:
    """A page whose content security policy allows this style by its hash and nothing else.

    Args:
        title: as text. body: as HTML. refresh: seconds after which it is read again.
    """
    again = "" if refresh is None else f'<meta http-equiv="refresh" content="{refresh}">\n'
    policy = f"default-src 'none'; style-src '{source_hash(style)}'; base-uri 'none'; form-action 'none'"
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n{again}'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{html.escape(title)}</title>\n<style>{style}</style>\n</head>\n<body>\n{body}</body>\n</html>\n"
    )


def style_sheet() -> str:
    """The look of all pages of comparisons."""
    return importlib.resources.files("unrolled.compare.report").joinpath("page.css").read_text(encoding="utf-8")


def report_page(title: str, parts: Sequence[Section], figures: Sequence[Drawn], svg: Mapping[str, str]) -> str:
    """The whole report.

    Args:
        svg: of every figure, by its name, as it was written by matplotlib.
    """
    drawn = {figure.name: figure for figure in figures}
    body = [f"<h1>{html.escape(title)}</h1>\n"]
    for part in parts:
        body.append(f'<section class="{part.title.split()[0].lower()}">\n<h2>{html.escape(part.title)}</h2>\n')
        body += [f"<p>{html.escape(paragraph)}</p>\n" for paragraph in part.paragraphs]
        if part.points:
            body.append(f"<ul>{''.join(f'<li>{html.escape(point)}</li>' for point in part.points)}</ul>\n")
        if part.table is not None:
            body.append(_table(part.table))
        for name in part.figures:
            if name in drawn:
                caption = drawn[name].caption
                shown = inline_svg(svg[name], name, caption)
                body.append(f"<figure>\n{shown}\n<figcaption>{html.escape(caption)}</figcaption>\n</figure>\n")
        body.append("</section>\n")
    return document(title, "".join(body), style_sheet())


def _table(table: Table) -> str:
    def row(cells: Sequence[str], tag: str) -> str:
        kinds = ["" if i < table.words else ' class="n"' for i in range(len(cells))]
        shown = [f"<{tag}{kind}>{html.escape(cell)}</{tag}>" for kind, cell in zip(kinds, cells, strict=True)]
        return f"<tr>{''.join(shown)}</tr>\n"

    rows = "".join(row(cells, "td") for cells in table.rows)
    inside = f"<thead>{row(table.heads, 'th')}</thead>\n{rows}"
    whole = f'<div class="wide" tabindex="0">\n<table>\n{inside}</table>\n</div>\n'
    if len(table.rows) <= _FOLDED:
        return whole
    return f"<details>\n<summary>{len(table.rows)} rows</summary>\n{whole}</details>\n"


def inline_svg(text: str, prefix: str, caption: str) -> str:
    """A figure of matplotlib as a part of a page whose policy allows no styles inside.

    Styles become attributes, black becomes the page's ink and white nothing, for dark pages; names get a prefix, so
    that figures can stand side by side.
    """
    root = ElementTree.fromstring(text)
    for parent in list(root.iter()):
        for child in list(parent):
            if _local(child.tag) in ("metadata", "style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = _local(element.tag)
        attributes = {_local(key): value for key, value in element.attrib.items()}
        attributes |= _declared(attributes.pop("style", ""))
        element.attrib.clear()
        for key, value in attributes.items():
            element.set(key, _value(key, value, prefix))
    for key in ("width", "height", "version"):
        root.attrib.pop(key, None)
    root.set("role", "img")
    root.set("aria-label", caption)
    return ElementTree.tostring(root, encoding="unicode")


def _local(name: str) -> str:
    """Without its namespace: HTML knows those of SVG, and ``href`` needs none."""
    return name.rpartition("}")[2]


def _declared(style: str) -> dict[str, str]:
    """The properties of a style; of a font its size, since the family is the page's."""
    found = {}
    for part in style.split(";"):
        key, _, value = (piece.strip() for piece in part.partition(":"))
        if key in ("font", "font-size"):  # releases of matplotlib differ in how they write it
            found["font-size"] = "".join(_SIZE.findall(value)[:1])
        elif key and key != "font-family":
            found[key] = value
    return found


def _value(key: str, value: str, prefix: str) -> str:
    if key == "id":
        return f"{prefix}-{value}"
    if key == "href" and value.startswith("#"):
        return f"#{prefix}-{value[1:]}"
    if value.startswith("url(#"):
        return f"url(#{prefix}-{value[5:]}"
    return {"#000000": "currentColor", "#ffffff": "none"}.get(value, value) if key in ("fill", "stroke") else value
