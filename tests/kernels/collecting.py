"""Cells whose weight gradients are collected, and a count of their products."""

from typing import Any

import torch
from torch import Tensor

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.cells import CELLS
from unrolled.kernels.dispatch import Compute

__all__ = ["BATCH", "IN", "TIME", "WIDTH", "check", "gradients", "loss_of", "make", "reference_gradients"]


IN, WIDTH, BATCH, TIME = 5, 4, 3, 6


def make(config: Any, backend: str = "generic", in_width: int = IN, width: int = WIDTH) -> Any:
    torch.manual_seed(0)
    parsed = CELLS.parse(config)
    cell = CELLS[parsed.name](in_width, width, parsed).double()
    cell.compute = Compute(backend=backend)
    return cell


def loss_of(cell: Any, x: Tensor) -> Tensor:
    y, final = cell(x)
    return (y * wave(*y.shape, phase=1.0)).sum() + final.h.square().sum()


def reference_gradients(cell: Any, x: Tensor) -> dict[str, Tensor]:
    cell.compute = Compute(backend="reference")
    wanted = {"x": x, **dict(cell.named_parameters())}
    found = dict(zip(wanted, torch.autograd.grad(loss_of(cell, x), list(wanted.values())), strict=True))
    cell.compute = Compute(backend="generic")
    return found


def check(found: dict[str, Tensor], expected: dict[str, Tensor], label: str) -> None:
    for name, value in found.items():
        assert_close(value, expected[name], f"{label}: {name}")


def gradients(loss: Tensor, wanted: dict[str, Tensor], keep: bool = True) -> dict[str, Tensor]:
    return dict(zip(wanted, torch.autograd.grad(loss, list(wanted.values()), retain_graph=keep), strict=True))
