"""All checks, by name. Each takes ``make_cell(in_width, width)`` and raises AssertionError."""

from collections.abc import Callable

from . import computing, contract, sequence
from .build import MakeCell

__all__ = ["CHECKS"]

CHECKS: dict[str, Callable[[MakeCell], None]] = {
    name.removeprefix("check_"): value
    for module in (sequence, computing, contract)
    for name, value in vars(module).items()
    if name.startswith("check_")
}
