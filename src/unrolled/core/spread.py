"""Tensors of which every process of a group holds some rows (FSDP2's DTensors); a whole one is its only part."""

from typing import Any

import torch
from torch import Tensor

__all__ = ["copy_rows", "is_spread", "like", "local", "span", "whole"]


def is_spread(value: Tensor) -> bool:
    """Whether the processes hold parts of it."""
    return hasattr(value, "full_tensor")


def local(value: Any) -> Tensor:
    """The rows that are here; of a whole tensor itself."""
    return value.to_local() if is_spread(value) else value


def whole(value: Any) -> Tensor:
    """All rows. Of a spread tensor every process must ask."""
    return value.full_tensor() if is_spread(value) else value


def span(value: Any) -> tuple[int, int]:
    """First row that is here, and the one after the last."""
    if not is_spread(value):
        return 0, len(value)
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    shape, offset = compute_local_shape_and_global_offset(value.shape, value.device_mesh, value.placements)
    return offset[0], offset[0] + shape[0]


def like(rows: Tensor, other: Any) -> Tensor:
    """A tensor spread as ``other``, of which ``rows`` are those here."""
    if not is_spread(other):
        return rows
    from torch.distributed.tensor import DTensor

    return DTensor.from_local(
        rows.to(other.device),
        other.device_mesh,
        other.placements,
        run_check=False,
        shape=other.shape,
        stride=other.stride(),
    )


@torch.no_grad()
def copy_rows(value: Any, rows: Tensor) -> None:
    """Put rows into those of a tensor that are here."""
    local(value).copy_(rows)
