"""Second-order cells of every form."""

from typing import Any

import torch

from conformance.material import wave
from unrolled.cells import CELLS

__all__ = ["CELL_NAMES", "IN", "SHARINGS", "N", "make"]


IN, N = 5, 4


SHARINGS = ("shared", "per_gate", "shared_recurrent", "shared_input", "block_readout", "direct", "integration")


CELL_NAMES = ("mlstm", "mgru")


def make(name: str, in_width: int = IN, width: int = N, **options: Any) -> Any:
    parsed = CELLS.parse({"name": name, **options})
    torch.manual_seed(2)
    cell = CELLS[name](in_width, width, parsed).double()
    with torch.no_grad():
        for k, parameter in enumerate(cell.parameters()):
            parameter.add_(0.3 * wave(*parameter.shape, phase=k))
    return cell
