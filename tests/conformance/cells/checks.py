"""All checks, by name. Each takes ``make_cell(in_width, width)`` and raises AssertionError."""

from collections.abc import Callable

from . import computing, contract, sequence
from .build import MakeCell, fitted

__all__ = ["CHECKS"]


def _on_its_widths(check: Callable[[MakeCell], None]) -> Callable[[MakeCell], None]:
    return lambda make_cell: check(fitted(make_cell))


CHECKS: dict[str, Callable[[MakeCell], None]] = {
    name.removeprefix("check_"): _on_its_widths(value)
    for module in (sequence, computing, contract)
    for name, value in vars(module).items()
    if name.startswith("check_")
}
