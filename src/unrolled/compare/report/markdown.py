"""The report in Markdown."""

from collections.abc import Sequence

from unrolled.compare.report.parts import Drawn, Section, Table

__all__ = ["report_markdown"]

_SPECIAL = str.maketrans({sign: f"\\{sign}" for sign in "\\`*_[]<>|#"})


def report_markdown(title: str, parts: Sequence[Section], figures: Sequence[Drawn]) -> str:
    """The whole report. Text of others is escaped; figures are those in the folder ``figures`` beside it."""
    drawn = {figure.name: figure for figure in figures}
    lines = [f"# {_text(title)}", ""]
    for part in parts:
        lines += [f"## {part.title}", ""]
        for paragraph in part.paragraphs:
            lines += [_text(paragraph), ""]
        if part.points:
            lines += [*(f"- {_text(point)}" for point in part.points), ""]
        if part.table is not None:
            lines += [*_table(part.table), ""]
        for name in part.figures:
            if name in drawn:
                lines += [f"![{_text(drawn[name].caption)}](figures/{name}.svg)", ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def _text(text: str) -> str:
    return " ".join(text.split()).translate(_SPECIAL)


def _table(table: Table) -> list[str]:
    marks = ["---" if i < table.words else "---:" for i in range(len(table.heads))]
    rows = [list(map(_text, table.heads)), marks, *(list(map(_text, row)) for row in table.rows)]
    return [f"| {' | '.join(row)} |" for row in rows]
