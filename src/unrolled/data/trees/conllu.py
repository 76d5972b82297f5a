"""Dependency trees in CoNLL-U (Universal Dependencies)."""

import os
import re

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.registry import shown
from unrolled.data.reading import read_plain
from unrolled.data.trees.base import Tree

__all__ = ["read_conllu"]

_NUMBER = re.compile(r"[0-9]{1,9}")
_BETWEEN = re.compile(r"[0-9]+[-.][0-9]+")  # several words as written together, and words that are not written
_FIELDS = 10


def read_conllu(path: str | os.PathLike[str], subtypes: bool = False) -> list[Tree]:
    """The sentences of a file as trees with a word at every node; the label is the relation of a node to its head.

    A node's children stand in the order of the sentence. Blanks within a word become ``_``. The file may end in .gz,
    .bz2 or .xz.

    Args:
        subtypes: keep what stands behind a colon in a relation (``nmod:poss``).
    Raises:
        UsageError: no file, or no sentence. UnrolledError: a line that is damaged, by its number.
    """
    found: list[Tree] = []
    rows: list[tuple[str, int, str]] = []
    begin = 1
    for number, line in enumerate([*read_plain(path).split("\n"), ""], 1):
        where = f"line {number} of {path}"
        line = line.rstrip("\r")
        if not line.strip():
            if rows:
                found.append(_tree(rows, f"the sentence at line {begin} of {path}"))
                rows = []
            continue
        if line.startswith("#"):
            continue
        fields = line.split("\t")
        if len(fields) != _FIELDS:
            raise UnrolledError(
                f"{where} has {len(fields)} fields with tabs between, and CoNLL-U has {_FIELDS}; it is damaged or of "
                "another kind."
            )
        if _BETWEEN.fullmatch(fields[0]):
            continue
        begin = begin if rows else number
        if fields[0] != str(len(rows) + 1):
            raise UnrolledError(f"{where} has the number {shown(fields[0])} where {len(rows) + 1} follows; mend it.")
        word, relation = "_".join(fields[1].split()), fields[7] if subtypes else fields[7].partition(":")[0]
        if not _NUMBER.fullmatch(fields[6]) or not word or not relation.strip():
            raise UnrolledError(f"{where} lacks a word, the number of its head or a relation; it is damaged.")
        rows.append((word, int(fields[6]), relation))
    if not found:
        raise UsageError(f"{path} has no sentence; give a file in CoNLL-U.")
    return found


def _tree(rows: list[tuple[str, int, str]], where: str) -> Tree:
    """Words, heads from 1 (0 of the root) and relations of a sentence, in the order of a tree."""
    below: list[list[int]] = [[] for _ in range(len(rows) + 1)]
    for place, (_, head, _) in enumerate(rows, 1):
        if head > len(rows):
            raise UnrolledError(f"{where} has a head {head} and only {len(rows)} words; it is damaged.")
        below[head].append(place)
    if len(below[0]) != 1:
        raise UnrolledError(f"{where} has {len(below[0])} roots, and a tree has one; mend it or leave it out.")
    stack, order = list(below[0]), []
    while stack:  # the last child first, turned round below
        order.append(stack.pop())
        stack += below[order[-1]]
    if len(order) < len(rows):
        raise UnrolledError(f"{where} has heads that go round in a circle; mend it or leave it out.")
    order.reverse()
    number = {place: index for index, place in enumerate(order)}
    parents = tuple(number[rows[place - 1][1]] if rows[place - 1][1] else -1 for place in order)
    return Tree(tuple(rows[place - 1][0] for place in order), parents, tuple(rows[place - 1][2] for place in order))
