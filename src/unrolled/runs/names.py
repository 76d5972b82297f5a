"""Names of the files of a run directory."""

import re
from pathlib import Path

__all__ = ["CONFIG", "MODEL", "RECORD", "SIDES", "STATES", "STATE_TENSORS", "TOKENIZER", "saved_states", "side_file"]

CONFIG, MODEL, TOKENIZER, RECORD = "config.json", "model.safetensors", "tokenizer.json", "record.json"
STATES, STATE_TENSORS = "train_state", "tensors.safetensors"
SIDES = ("recycler",)
"""Modules that were trained with a model and are no part of it, each in a file of its own."""
_STATE_NAME = re.compile(r"\d{9}")


def saved_states(run: Path) -> list[Path]:
    """The folders of a run's training states, oldest first."""
    folder = run / STATES
    return sorted(p for p in folder.iterdir() if _STATE_NAME.fullmatch(p.name)) if folder.is_dir() else []


def side_file(run: Path, name: str) -> Path:
    """The file of one of SIDES."""
    return run / f"{name}.safetensors"
