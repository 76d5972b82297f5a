"""The contract of a source of trees."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from unrolled.core.config import Config
from unrolled.core.registry import unknown_name
from unrolled.data.trees.base import Tree

__all__ = ["TreeConfig", "TreeSource"]


class TreeConfig(Config):
    """Base of the configurations of trees. A subclass fixes ``name`` to the name in the table."""

    name: str


class TreeSource(ABC):
    """Where trees come from.

    Args:
        config: its settings.
    Raises:
        UsageError: whatever is wrong with the data, in one sentence.

    Attributes:
        classes: names of the labels, by number. symbols: all words that there can be; () where they are found in the
            training trees.
    """

    Config: ClassVar[type[TreeConfig]]
    classes: tuple[str, ...]
    symbols: tuple[str, ...] = ()

    def __init__(self, config: Any):
        self.config = config

    @abstractmethod
    def splits(self) -> dict[str, list[Tree]]:
        """Trees by split, with labels at those nodes that are to be learned: ``train``, and ``valid`` and ``test``
        where there are such."""

    @abstractmethod
    def tree(self, line: str) -> Tree:
        """The tree of a line of text, to be labelled; labels in it have no part."""


def classes_of(trees: Sequence[Tree]) -> tuple[str, ...]:
    """The labels of trees, in order of their text."""
    return tuple(sorted({label for tree in trees for label in tree.labels if label}))


def check_labels(splits: Mapping[str, Sequence[Tree]], classes: Sequence[str]) -> None:
    """Raises UsageError for a label outside of the classes, with the nearest of them."""
    known = {*classes, ""}
    for split, trees in splits.items():
        for tree in trees:
            if odd := next((label for label in tree.labels if label not in known), None):
                raise unknown_name(f"label in the {split} trees:", odd, classes)
