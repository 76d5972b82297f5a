"""A generated text and tiny experiments on it."""

import json
from pathlib import Path
from typing import Any

from unrolled.train import ExperimentConfig

_WORDS = [
    "the", "of", "and", "cat", "dog", "runs", "sleeps", "under", "over", "green", "hill", "small", "recurrent", "state",
    "carries", "memory",
]  # fmt: skip


def make_text(lines: int, seed: int = 0) -> bytes:
    """English-like lines from a fixed generator of our own: no library or Python version changes them."""
    state, made = 12345 + 7919 * seed, []
    for _ in range(lines):
        words = []
        for _ in range(4 + lines % 3):
            state = (1103515245 * state + 12345) % (1 << 31)
            words.append(_WORDS[(state >> 12) % len(_WORDS)])
        made.append(" ".join(words))
    return ("\n".join(made) + "\n").encode()


def write_text(folder: Path) -> Path:
    """A folder with train.txt, valid.txt and test.txt."""
    folder.mkdir()
    for seed, (split, lines) in enumerate((("train", 300), ("valid", 40), ("test", 40))):
        (folder / f"{split}.txt").write_bytes(make_text(lines, seed))
    return folder


def experiment(text: Path, **parts: Any) -> ExperimentConfig:
    """A tiny experiment; ``parts`` replace keys inside corpus, stream, model and train."""
    values: dict[str, Any] = {
        "corpus": {"path": str(text)},
        "tokenizer": {"name": "char"},
        "stream": {"columns": 4, "window": 12},
        "model": {"width": 8, "cell": {"name": "lstm"}, "compute": {"backend": "generic"}},
        "train": {
            "steps": 60,
            "validations": 6,
            "valid_columns": 4,
            "log_every": 7,
            "save_minutes": 0.0,
            "optimizer": {"name": "adam", "lr": 0.01},
            "final_eval": False,
        },
    }
    for part, changes in parts.items():
        values[part] = {**values[part], **changes}
    budget = {"tokens", "epochs", "minutes", "cpu_minutes"} & set(parts.get("train", {}))
    if budget:
        del values["train"]["steps"]
    return ExperimentConfig.parse(values)


def events(run: Path) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl without what the clock decides."""
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in ("wall", "cpu")} for line in lines]


def record(run: Path) -> dict[str, Any]:
    """The run record."""
    return json.loads((run / "record.json").read_text())
