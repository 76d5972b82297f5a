"""Golden numbers: outputs and gradients of every cell at weights made by arithmetic, kept in ``tests/golden``.

A change that moves them changes what saved models compute. Rewrite the file only on purpose, in the folder ``tests``::

    python -m conformance.cells.golden
"""

import json
from pathlib import Path

import torch

from conformance.material import resets, wave
from unrolled.cells import CELLS
from unrolled.kernels.dispatch import Compute

from .build import BATCH, IN, WIDTH, Fitted, outcome, values

__all__ = ["FILE", "cases", "numbers", "read"]

FILE = Path(__file__).parents[2] / "golden" / "cells.json"


def cases() -> list[str]:
    """The complete config of every example, as JSON text: the key of its numbers."""
    return [config.model_dump_json() for name in CELLS for config in CELLS[name].EXAMPLES]


def read() -> dict[str, dict[str, float]]:
    """What the file holds: config as JSON text -> name -> number. Options that came later have their defaults."""
    return {CELLS.parse(json.loads(key)).model_dump_json(): kept for key, kept in json.loads(FILE.read_text()).items()}


def numbers(key: str) -> dict[str, float]:
    """One number for each output, final state and gradient of the reference: its product with a fixed wave."""
    config = CELLS.parse(json.loads(key))
    cls = CELLS[config.name]
    cell = Fitted(lambda in_width, width: cls(in_width, width, config))(IN, WIDTH).double()
    with torch.no_grad():
        for k, parameter in enumerate(cell.parameters()):
            parameter.copy_(0.5 * wave(*parameter.shape, phase=k))
    cell.compute = Compute(backend="reference")
    found = outcome(cell, *values(cell, BATCH, 5), resets(BATCH, 5))
    return {name: float((part * wave(*part.shape, phase=2.0)).sum()) for name, part in found.items()}


if __name__ == "__main__":
    # what is kept stays as it is: on another machine its last digits would be others
    kept = read()
    found = {key: kept.get(key) or numbers(key) for key in cases()}
    table = {key: {name: float(f"{value:.12g}") for name, value in one.items()} for key, one in found.items()}
    FILE.write_text(json.dumps(table, indent=1) + "\n")
