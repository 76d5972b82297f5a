"""Renders the tables of the results from the records in docs/records, between the markers of the pages.

    python docs/tables.py            # write every page anew
    python docs/tables.py --check    # exit code 1 if a page is not what its records render to

A page ``results/NAME.md`` has ``records/NAME.toml``. Where the page says ``<!-- table X -->`` ... ``<!-- end -->``,
stands the table ``[tables.X]``: its rows as they were noted, a record that ``unrolled bench --out`` wrote
(``bench = FILE``), or runs that ``docs/picture.py --collect`` gathered (``runs = FILE``). The ``[[summary]]`` entries
of all files are the table of ``results.md``.
"""

import json
import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unrolled.bench.record import BenchRecord
from unrolled.bench.report import bench_markdown

DOCS = Path(__file__).resolve().parent
ORDER = (
    "training", "multiplicative", "sharing", "old-and-new", "probe", "mixers", "attention", "stepped", "regularisation",
    "bf16", "speed-intel", "speed-amd", "operations", "step-time", "decoding", "serving",
    "published-code", "scoring", "reading", "test-time", "compression", "recovery", "learned", "texts",
)  # fmt: skip
_PLACE = re.compile(r"<!-- table (?P<name>[\w-]+) -->\n.*?<!-- end -->", flags=re.S)


def table(columns: Sequence[str], align: str, rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown; ``align`` has an l or r for each column.

    Raises:
        ValueError: a row of another length.
    """
    if odd := [row for row in (align, *rows) if len(row) != len(columns)]:
        raise ValueError(f"{len(columns)} columns, but not so many in {odd[0]!r}")
    marks = ["---:" if side == "r" else "---" for side in align]
    return "\n".join(f"| {' | '.join(row)} |" for row in (columns, marks, *rows))


def rendered(entry: Mapping[str, Any], records: Path) -> str:
    """One table of a record file, with what is known of its measurement below."""
    if "bench" in entry:
        body = bench_markdown(BenchRecord.load(records / entry["bench"])).strip()
    elif "runs" in entry:
        body = runs_table(json.loads((records / entry["runs"]).read_text(encoding="utf-8")))
    else:
        body = table(entry["columns"], entry["align"], entry["rows"])
    known = [
        *([f"processor: {entry['processor']}"] if "processor" in entry else []),
        *(f"command: `{command}`" for command in entry.get("command", "").split("; ") if command),
        *([f"entered {entry['entered']}"] if "entered" in entry else []),
    ]
    told = "; ".join(known)
    return f"{body}\n\n{told[:1].upper()}{told[1:]}." if known else body


def runs_table(runs: Sequence[Mapping[str, Any]]) -> str:
    """Runs, each with its last validation."""
    columns = ["cell", "width", "parameters", "tokens", "CPU seconds", "bits per character"]
    rows = [
        [f"`{run['cell']}`", f"{run['width']}", f"{run['parameters']:,}", f"{run['tokens'] / 1e6:.2f} M",
         f"{run['cpu_seconds']:.0f}", f"{run['points'][-1][2]:.4f}"]
        for run in runs
    ]  # fmt: skip
    return table(columns, "lrrrrr", rows)


def filled(page: str, tables: Mapping[str, str]) -> str:
    """The page with every place filled.

    Raises:
        KeyError: a place without a record. ValueError: a record without a place.
    """
    places = _PLACE.findall(page)
    if unplaced := sorted(set(tables) - set(places)):
        raise ValueError(f"no place for {unplaced[0]}")
    return _PLACE.sub(lambda m: f"<!-- table {m['name']} -->\n\n{tables[m['name']]}\n\n<!-- end -->", page)


def pages(docs: Path = DOCS) -> dict[Path, str]:
    """Every page of results, as its records say that it must be."""
    records = docs / "records"
    found = {name: tomllib.loads((records / f"{name}.toml").read_text(encoding="utf-8")) for name in ORDER}
    made, rows = {}, []
    for name, record in found.items():
        path = docs / "results" / f"{name}.md"
        tables = {key: rendered(entry, records) for key, entry in record.get("tables", {}).items()}
        made[path] = filled(path.read_text(encoding="utf-8"), tables)
        link = f"[{made[path].splitlines()[0].removeprefix('# ')}](results/{name}.md)"
        rows += [[entry["what"], entry["figure"], entry["processor"], link] for entry in record["summary"]]

    path = docs / "results.md"
    summary = table(["measured", "figure", "processor", "page"], "llll", rows)
    made[path] = filled(path.read_text(encoding="utf-8"), {"summary": summary})
    return made


def main(arguments: Sequence[str]) -> int:
    """Write the pages, or look whether they are as they must be."""
    stale = {path: text for path, text in pages().items() if path.read_text(encoding="utf-8") != text}
    for path, text in stale.items():
        if "--check" not in arguments:
            path.write_text(text, encoding="utf-8")
        sys.stdout.write(f"{path.relative_to(DOCS)}: {'stale' if '--check' in arguments else 'written'}\n")
    return 1 if stale and "--check" in arguments else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
