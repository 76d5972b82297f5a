"""List operations as trees: the operator at a node, its arguments below it."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from unrolled.core.errors import UsageError
from unrolled.core.registry import shown
from unrolled.data.labelled.listops import OPERATORS, ListOps, ListOpsConfig
from unrolled.data.trees.base import Tree
from unrolled.data.trees.source import TreeConfig, TreeSource

__all__ = ["ListOpsTrees", "ListOpsTreesConfig", "operation_tree"]

_DIGITS = ListOps.classes


def operation_tree(symbols: Sequence[str], label: str = "") -> Tree:
    """The tree of an operation such as ``[max 2 9 [min 4 7 ] 0 ]``: words are operators and digits.

    Raises:
        UsageError: symbols that are no operation.
    """
    words: list[str] = []
    parents: list[int] = []
    stack: list[tuple[str, list[int]]] = []
    for symbol in symbols:
        if words and not stack:
            raise UsageError(f"{shown(symbol)} stands behind the end of an operation; give one a line.")
        if symbol.startswith("[") and symbol[1:] in OPERATORS:
            stack.append((symbol[1:], []))
        elif symbol == "]" and stack and stack[-1][1]:
            name, below = stack.pop()
            for child in below:
                parents[child] = len(words)
            if stack:
                stack[-1][1].append(len(words))
            words.append(name)
            parents.append(-1)
        elif symbol in _DIGITS:
            if stack:
                stack[-1][1].append(len(words))
            words.append(symbol)
            parents.append(-1)
        else:
            raise UsageError(f"{shown(symbol)} has no place in an operation; write it like [max 2 9 [min 4 7 ] 0 ].")
    if stack or not words:
        raise UsageError("an operation is not closed; write it like [max 2 9 [min 4 7 ] 0 ].")
    return Tree(tuple(words), tuple(parents), (*[""] * (len(words) - 1), label))


class ListOpsTreesConfig(ListOpsConfig, TreeConfig):
    """Settings of list operations, those of the rows ``listops``."""


class ListOpsTrees(TreeSource):
    """The operations of the rows ``listops`` as trees: an operator at each inner node, digits at the leaves. The root
    has a label, the value."""

    Config = ListOpsTreesConfig
    classes = _DIGITS
    symbols = (">", *_DIGITS, *OPERATORS)
    config: ListOpsTreesConfig

    def splits(self) -> dict[str, list[Tree]]:
        """See :class:`TreeSource`."""
        rows: Any = ListOps(self.config)
        names = np.array(rows.symbols)
        return {
            split: [
                operation_tree(names[row].tolist(), self.classes[label])
                for row, label in zip(part.rows, part.labels.tolist(), strict=True)
            ]
            for split, part in rows.splits().items()
        }

    def tree(self, line: str) -> Tree:
        """See :class:`TreeSource`."""
        return operation_tree(line.split())
