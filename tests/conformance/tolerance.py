"""The one table of tolerances: relative error of the whole tensor, by the precision that computed it."""

import torch
from torch import Tensor

__all__ = ["TOLERANCE", "assert_close", "relative_error"]

# float32: 1e-6 holds on most processors; forgetting attention in pieces was 1.07e-6 apart on one with AVX-512 by halves
TOLERANCE = {torch.float64: 1e-10, torch.float32: 2e-6, torch.bfloat16: 1e-1}

# Below this root mean square a tensor counts as zero, and its error as absolute.
_FLOOR = 1e-6


def relative_error(actual: Tensor, expected: Tensor) -> float:
    """|actual - expected| / |expected|, in the 2-norm over all entries, computed in float64."""
    a, b = actual.detach().double(), expected.detach().double()
    return float((a - b).norm() / b.norm().clamp_min(_FLOOR * b.numel() ** 0.5))


def assert_close(actual: Tensor, expected: Tensor, what: str, precision: torch.dtype | None = None) -> None:
    """Equal shape and type, and values within the tolerance of ``precision`` (absent: that of ``expected``)."""
    assert actual.shape == expected.shape, f"{what}: shape {tuple(actual.shape)}, not {tuple(expected.shape)}"
    assert actual.dtype == expected.dtype, f"{what}: {actual.dtype}, not {expected.dtype}"
    if not expected.dtype.is_floating_point:
        assert torch.equal(actual, expected), f"{what}: other values"
        return
    error, limit = relative_error(actual, expected), TOLERANCE[precision or expected.dtype]
    assert error <= limit, f"{what}: relative error {error:.2e} above {limit:.0e}"
