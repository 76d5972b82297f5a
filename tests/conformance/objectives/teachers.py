"""Runs that the objective ``distill`` can learn from, and candidates for ``calibrate``."""

import json
from pathlib import Path
from typing import Any

from train.runs import experiment, write_text
from unrolled.train import train

__all__ = ["eleven", "make_teachers", "write_candidates"]


def eleven(folder: Path) -> Path:
    """A text of eleven characters, the newline among them, and so of a vocabulary of eleven ids."""
    write_text(folder)
    for path in folder.iterdir():
        path.write_text("".join(chr(97 + ord(c) % 10) if c != "\n" else c for c in path.read_text()))
    return folder


def make_teachers(text: Path, *names: str, **parts: Any) -> None:
    """Runs of one step on a text, each of its own seed, in folders of these names below the working directory."""
    for seed, name in enumerate(names):
        values = {"train": {"steps": 3, "validations": 0, "optimizer": {"name": "adam", "lr": 0.1}}, **parts}
        config = experiment(text, **values)
        train(config.model_copy(update={"seed": 40 + seed}), name, "cpu")


def write_candidates(path: Path) -> None:
    """Three contexts with candidates of letters that every text of the tests has."""
    texts = ("ac", "dead", "cage", "ea", "egg")
    rows = []
    for prompt, reference in (("a", "dace"), ("", "egg"), ("cc", "ada")):
        candidates = [{"text": text, "finish_reason": "length"} for text in texts]
        rows.append(json.dumps({"prompt": prompt, "reference": reference, "candidates": candidates}))
    path.write_text("\n".join(rows) + "\n")
