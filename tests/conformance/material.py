"""Numbers and resets that all suites use."""

import torch
from torch import Tensor

__all__ = ["resets", "wave"]


def wave(*shape: int, phase: float = 0.0, dtype: torch.dtype = torch.float64) -> Tensor:
    """Numbers in [-1, 1] from arithmetic alone; the square makes matrices of full rank."""
    size = torch.Size(shape).numel()
    i = torch.arange(1, size + 1, dtype=torch.float64)
    return torch.sin(0.37 * i * i + phase).view(shape).to(dtype)


def resets(batch: int, time: int) -> Tensor:
    """A reset in the first row's middle, one at the last row's start, and two steps in a row where time allows."""
    reset = torch.zeros(batch, time, dtype=torch.bool)
    reset[0, time // 2] = reset[-1, 0] = True
    if time > 3:
        reset[-1, 2:4] = True
    return reset
