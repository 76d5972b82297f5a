"""Draws docs/images/first-minutes.svg: validation bits per character over CPU seconds, from a saved record.

python docs/picture.py                            # draw records/first-minutes.json anew
python docs/picture.py --collect RUN RUN RUN      # first gather the record from finished runs of character models
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

DOCS = Path(__file__).resolve().parent
RECORD = DOCS / "records" / "first-minutes.json"
PICTURE = DOCS / "images" / "first-minutes.svg"
COLOURS = ("#0b84c6", "#d9652b", "#3f9c53", "#9b62c4")
WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 640, 320, 56, 96, 34, 44
STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#57606a}line{stroke:#8b949e}.grid{stroke-opacity:.3}"
    "polyline{fill:none;stroke-width:2.5}"
    "@media(prefers-color-scheme:dark){text{fill:#9da7b1}}"
)


def collected(runs: Sequence[Path]) -> list[dict[str, Any]]:
    """Of each run what the picture and the table need; points are (CPU seconds, tokens, bits per character)."""
    found = []
    for run in runs:
        config, record = (
            json.loads((run / f"{name}.json").read_text(encoding="utf-8")) for name in ("config", "record")
        )
        if record["tokenizer"] is None or config["tokenizer"]["name"] != "char":
            raise SystemExit(f"{run}: a token is no character there")
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
        points = [
            (round(line["cpu"], 1), line["tokens"], round(line["nats"] / math.log(2), 4))
            for line in lines
            if line["type"] == "valid"
        ]
        found.append(
            {
                "cell": config["model"]["cell"]["name"],
                "width": config["model"]["width"],
                "parameters": record["parameters"],
                "tokens": record["tokens"],
                "cpu_seconds": round(record["cpu_seconds"], 1),
                "environment": record["environment"],
                "points": points,
            }
        )
    return found


def drawn(runs: Sequence[Mapping[str, Any]]) -> str:
    """The picture."""
    seconds = [point[0] for run in runs for point in run["points"]]
    bits = [point[2] for run in runs for point in run["points"]]
    longest = 10 * math.ceil(max(seconds) / 10)
    least, most = math.floor(5 * min(bits)) / 5, math.ceil(5 * max(bits)) / 5

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (WIDTH - LEFT - RIGHT) * x / longest
        return round(across, 1), round(TOP + (HEIGHT - TOP - BOTTOM) * (most - y) / (most - least), 1)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" height="{HEIGHT}" '
        f'role="img" aria-label="validation bits per character over CPU seconds"><style>{STYLE}</style>'
    ]
    for step in range(round((most - least) / 0.2) + 1):
        value = least + 0.2 * step
        (left, height), right = at(0, value), at(longest, value)[0]
        parts.append(f'<line class="grid" x1="{left}" x2="{right}" y1="{height}" y2="{height}"/>')
        parts.append(f'<text x="{left - 8}" y="{height + 4}" text-anchor="end">{value:.1f}</text>')
    for value in range(0, longest + 1, 10):
        across, low = at(value, least)
        parts.append(f'<text x="{across}" y="{low + 18}" text-anchor="middle">{value}</text>')
    parts.append(f'<text x="{LEFT - 48}" y="16">validation, bits per character</text>')
    parts.append(f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 8}" text-anchor="end">CPU seconds</text>')
    last = -math.inf
    for run, colour in sorted(zip(runs, COLOURS, strict=False), key=lambda pair: -pair[0]["points"][-1][2]):
        line = " ".join(f"{x},{y}" for x, y in (at(cpu, figure) for cpu, _, figure in run["points"]))
        parts.append(f'<polyline stroke="{colour}" points="{line}"/>')
        across, height = at(run["points"][-1][0], run["points"][-1][2])
        last = max(height + 4, last + 15)
        label = f"{run['cell']} {run['points'][-1][2]:.2f}"
        parts.append(f'<text x="{across + 6}" y="{last}" style="fill:{colour}">{label}</text>')
    return "\n".join([*parts, "</svg>", ""])


def main(arguments: Sequence[str]) -> None:
    """Gather where asked, and draw."""
    if arguments[:1] == ["--collect"]:
        text = json.dumps(collected([Path(name) for name in arguments[1:]]), indent=1)
        RECORD.write_text(text + "\n", encoding="utf-8")
    PICTURE.parent.mkdir(exist_ok=True)
    PICTURE.write_text(drawn(json.loads(RECORD.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
