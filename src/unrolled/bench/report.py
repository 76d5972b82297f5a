"""The record as text: lines about the machine, a table, and the same in Markdown."""

from collections.abc import Sequence

from unrolled.bench.compare import Comparison
from unrolled.bench.figures import Spread
from unrolled.bench.record import BenchRecord, RowRecord

__all__ = [
    "Table",
    "bench_markdown",
    "bench_table",
    "comparison_lines",
    "comparison_markdown",
    "comparison_table",
    "machine_lines",
    "reasons",
]

Table = tuple[list[str], list[list[str]]]
"""Headings and rows."""

_KEY = ["cell", "backend", "precision", "width", "batch", "window", "pass"]
_RATIOS = {
    "torch.nn": "x torch.nn, per operation",
    "reference": "x reference",
    "published": "x published",
    "peer": "x peer",
    "plain": "x plain",
    "onnxruntime": "x ONNX Runtime",
    "float32": "x float32",
    "draw": "x draws",
}


def machine_lines(record: BenchRecord) -> list[str]:
    """What the rows were measured on, and what that machine reached beside them."""
    told = record.environment
    lines = [
        f"processor: {told.get('cpu')}, {told.get('cores')} cores; threads: {told.get('threads')}",
        f"torch {told.get('torch')}; native library: {record.native}",
    ]
    for kind, peak in record.peaks.items():
        what = kind if kind in ("copy", "read") else f"{kind} products"
        numbers = f"{_rate(peak.median)} {peak.unit} (from {_rate(peak.lowest)} to {_rate(peak.highest)})"
        lines.append(f"peak of {what}: {numbers}{_size(kind, peak.size)}")
    asked = record.config.get("repeats")
    kind = "CPU seconds" if record.config.get("clock") == "cpu" else "seconds"
    lines.append(f"repetitions: {record.repetitions} of {asked}, in {record.wall_seconds:.0f} {kind}")
    return lines


def bench_table(record: BenchRecord) -> Table:
    """Every row with its figures; a ratio has a column where a row has it."""
    shown = [name for name in _RATIOS if any(name in row.faster_than for row in record.rows)]
    heads = [*_KEY, "ms", "quartiles", "tokens/s", "share of peak", *(_RATIOS[name] for name in shown), "memory, MiB"]
    rows = []
    for row in record.rows:
        if row.seconds is None or row.share is None or row.tokens_per_second is None:
            rows.append([*_key(row), row.status, *[""] * (len(heads) - len(_KEY) - 1)])
            continue
        ratios = [f"{row.faster_than[name]:.2f}" if name in row.faster_than else "" for name in shown]
        memory = "" if row.memory is None else f"{row.memory / 2**20:.1f}"
        figures = [_ms(row.seconds.median), _range(row.seconds), f"{row.tokens_per_second:,.0f}"]
        rows.append([*_key(row), *figures, f"{row.share.median:.1%}", *ratios, memory])
    return heads, rows


def reasons(record: BenchRecord) -> list[str]:
    """Why rows were not measured, each once for all sizes."""
    found = [
        f"{row.name}, {row.backend}, {row.precision}: {row.status}: {row.reason}"
        for row in record.rows
        if row.reason is not None
    ]
    return list(dict.fromkeys(found))


def bench_markdown(record: BenchRecord) -> str:
    """The whole record as a page's part: lists of machine and reasons around the table."""
    parts = [*_bullets(machine_lines(record)), "", *_markdown(bench_table(record))]
    why = reasons(record)
    return "\n".join([*parts, *(["", *_bullets(why)] if why else [])]) + "\n"


def comparison_lines(found: Comparison) -> list[str]:
    """What A and B were measured on, and whether their shares can be compared."""
    keys = ("cpu", "threads", "torch", "unrolled", "commit")
    lines = [
        f"{name}: {', '.join(f'{key} {told.get(key)}' for key in keys)}" for name, told in found.environments.items()
    ]
    return lines if found.warning is None else [*lines, found.warning]


def comparison_markdown(found: Comparison) -> str:
    """The comparison as a page's part."""
    return "\n".join([*_bullets(comparison_lines(found)), "", *_markdown(comparison_table(found))]) + "\n"


def comparison_table(found: Comparison) -> Table:
    """B beside A; then the rows of one alone."""
    heads = [*_KEY, "ms in A", "ms in B", "share in A", "share in B", "B / A by share", ""]
    rows = []
    for pair in found.pairs:
        assert pair.row.seconds is not None
        assert pair.row.share is not None
        times = [_ms(pair.seconds_before.median), _ms(pair.row.seconds.median)]
        shares = [f"{pair.share_before.median:.1%}", f"{pair.row.share.median:.1%}"]
        rows.append([*_key(pair.row), *times, *shares, f"{pair.ratio:.2f}", ""])
    for single in found.singles:
        assert single.row.seconds is not None
        assert single.row.share is not None
        cells = [_ms(single.row.seconds.median), f"{single.row.share.median:.1%}"]
        first = single.only_in == "A"
        sides = [cells[0], "", cells[1], ""] if first else ["", cells[0], "", cells[1]]
        rows.append([*_key(single.row), *sides, "", single.why])
    return heads, rows


def _key(row: RowRecord) -> list[str]:
    return [row.name, row.backend, row.precision, str(row.width), str(row.batch), str(row.window), row.mode]


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.3g}" if seconds < 0.1 else f"{seconds * 1000:.0f}"


def _range(times: Spread) -> str:
    return f"{_ms(times.lower)} to {_ms(times.upper)}"


def _size(kind: str, size: int | None) -> str:
    if size is None:
        return ""
    return f", of {size / 1e6:g} MB" if kind in ("copy", "read") else f", of {size} x {size}"


def _rate(value: float) -> str:
    return f"{value:.1f}" if value < 100 else f"{value:.0f}"


def _bullets(lines: Sequence[str]) -> list[str]:
    return [f"- {line}" for line in lines]


def _markdown(table: Table) -> list[str]:
    heads, rows = table
    marks = ["---:" if i >= 3 and head != "pass" else "---" for i, head in enumerate(heads)]
    return [f"| {' | '.join(cell.replace('|', '/') for cell in row)} |" for row in (heads, marks, *rows)]
