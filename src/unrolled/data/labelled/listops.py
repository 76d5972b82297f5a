"""Nested operations on lists of digits, made here."""

from typing import Literal

import numpy as np
from pydantic import Field

from unrolled.data.labelled.base import LabelledConfig, LabelledSource, LabelledSplit

__all__ = ["OPERATORS", "ListOps", "ListOpsConfig", "value_of"]

OPERATORS = ("max", "min", "med", "sum", "first")
_DIGITS = tuple(map(str, range(10)))


class ListOpsConfig(LabelledConfig):
    """Settings of list operations."""

    name: Literal["listops"] = "listops"
    depth: int = Field(default=4, ge=1, le=16, description="operators above one another, at most")
    least: int = Field(default=2, ge=1, le=16, description="arguments of an operator, at least")
    most: int = Field(default=4, ge=1, le=16, description="arguments of an operator, at most")
    nested: float = Field(default=0.35, ge=0, le=1, description="chance that an argument is an operation")
    rows: int = Field(default=10000, ge=1, le=1 << 22, description="rows of training; the other splits have a tenth")
    seed: int = Field(default=0, ge=0, le=1 << 31, description="of the rows")


class ListOps(LabelledSource):
    """Operations such as ``[max 2 9 [min 4 7 ] 0 ]`` with values from 0 to 9 (after Nangia and Bowman 2018,
    arXiv:1804.06028; with ``first`` in the place of none and sums modulo 10). Group ``depth``: of the operation."""

    Config = ListOpsConfig
    kind = "symbols"
    classes = _DIGITS
    symbols = (">", *_DIGITS, *(f"[{name}" for name in OPERATORS), "]")
    config: ListOpsConfig

    def texts(self) -> dict[str, tuple[list[str], np.ndarray]]:
        """See :class:`LabelledSource`; these are no texts."""
        raise NotImplementedError

    def splits(self) -> dict[str, LabelledSplit]:
        """See :class:`LabelledSource`."""
        found, number = {}, {symbol: index for index, symbol in enumerate(self.symbols)}
        for part, split in enumerate(("train", "valid", "test")):
            g = np.random.default_rng([self.config.seed, part])
            count = self.config.rows if split == "train" else max(1, self.config.rows // 10)
            made = [self._operation(g, 1) for _ in range(count)]
            rows = [np.array([number[symbol] for symbol in symbols], np.int64) for symbols, _, _ in made]
            labels, depths = (np.array([row[part] for row in made], np.int64) for part in (1, 2))
            found[split] = LabelledSplit(rows, labels, {"depth": depths}, f"the {split} rows")
        return found

    def _operation(self, g: np.random.Generator, level: int) -> tuple[list[str], int, int]:
        """Symbols, value and depth."""
        c = self.config
        name = OPERATORS[int(g.integers(len(OPERATORS)))]
        symbols, values, depth = [f"[{name}"], [], 1
        for _ in range(int(g.integers(c.least, max(c.least, c.most) + 1))):
            if level < c.depth and g.random() < c.nested:
                inner, value, below = self._operation(g, level + 1)
                symbols, depth = symbols + inner, max(depth, 1 + below)
            else:
                value = int(g.integers(10))
                symbols.append(_DIGITS[value])
            values.append(value)
        return [*symbols, "]"], value_of(name, values), depth


def value_of(operator: str, values: list[int]) -> int:
    """What an operation on digits gives; the median of an even number is the lower of the two in the middle."""
    if operator == "sum":
        return sum(values) % 10
    if operator == "med":
        return sorted(values)[(len(values) - 1) // 2]
    return {"max": max, "min": min, "first": lambda found: found[0]}[operator](values)
