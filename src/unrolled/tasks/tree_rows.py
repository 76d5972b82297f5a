"""Trees in numbers."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from unrolled.core.errors import UsageError
from unrolled.core.registry import shown, unknown_name
from unrolled.data.trees import Tree, binarised
from unrolled.data.trees.batches import NumberedTree
from unrolled.tasks.vocabulary import trained_on
from unrolled.tokenizer import Tokenizer
from unrolled.tokenizer.symbols import SymbolTokenizer

__all__ = ["numbered", "vocabulary_of"]


def vocabulary_of(wanted: Any, symbols: Sequence[str], trees: Sequence[Tree]) -> Tokenizer:
    """The tokenizer of fixed symbols, whatever is wanted; or of the words of trees.

    Raises:
        UsageError: a tokenizer that is wanted for words and has parts of them as tokens.
    """
    if symbols:
        return SymbolTokenizer.of(symbols)
    if wanted is not None and wanted.name != "word":
        raise UsageError(f"a node of a tree has a whole word, and the tokenizer is {wanted.name}; set tokenizer=word.")
    return trained_on(wanted, (" ".join(word for word in tree.words if word) for tree in trees))


def numbered(tree: Tree, tokenizer: Tokenizer, number: Mapping[str, int], cell: Any, binary: bool) -> NumberedTree:
    """A tree as the cell reads it.

    Args:
        number: of each label. cell: the class of the tree cell. binary: whether to make the tree binary first.
    Raises:
        UsageError: a tree that the cell cannot read; a word that is none for the tokenizer; an unknown label.
    """
    given, heights = tree, tree.heights()
    if binary:
        tree, places = binarised(given)
        heights = np.full(len(tree.words), -1, np.int64)
        heights[places] = given.heights()  # of nodes that become one, the highest comes last
    parents = np.array(tree.parents, np.int64)
    cell.check(parents)
    above = set(tree.parents)
    here = [place for place, word in enumerate(tree.words) if word]
    inner = next((place for place in here if place in above), None)
    if inner is not None and not cell.reads_inner:
        raise UsageError(
            f"the {cell.EXAMPLES[0].name} reads words of leaves alone, and a node with children has the word "
            f"{shown(tree.words[inner])}; set task.binary=true, which makes a leaf of it."
        )
    ids = tokenizer.encode(" ".join(tree.words[place] for place in here))
    if len(ids) != len(here):
        raise UsageError(f"the words {shown(' '.join(tree.words))} are not one token each; leave blanks out of words.")
    words = np.full(len(parents), -1, np.int64)
    words[here] = ids
    if odd := next((label for label in tree.labels if label and label not in number), None):
        raise unknown_name("label", odd, number)
    labels = np.array([number[label] if label else -1 for label in tree.labels], np.int64)
    return NumberedTree(words, parents, labels, heights)
