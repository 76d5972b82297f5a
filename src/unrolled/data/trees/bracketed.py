"""Bracketed trees, one a line, as the Stanford Sentiment Treebank has them: ``(3 (2 It) (4 good))``."""

import os
import re
from dataclasses import dataclass, field

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.registry import shown
from unrolled.data.reading import read_plain
from unrolled.data.trees.base import Tree

__all__ = ["bracketed", "read_bracketed"]

_SIGNS = re.compile(r"[()]|[^\s()]+")


@dataclass
class _Open:
    label: str = ""
    word: str = ""
    children: list[int] = field(default_factory=list)


def bracketed(line: str, where: str = "this line") -> Tree:
    """The tree of a line: ``(LABEL WORD)`` is a leaf, ``(LABEL TREE TREE ...)`` an inner node.

    Args:
        where: what to call the line in messages.
    Raises:
        UnrolledError: brackets that do not match, a node without label or content, or more than a tree.
    """
    words: list[str] = []
    parents: list[int] = []
    labels: list[str] = []
    stack: list[_Open] = []

    def wrong(what: str) -> UnrolledError:
        return UnrolledError(f"{where} is no bracketed tree: {what}; write (LABEL WORD) or (LABEL TREE TREE ...).")

    for sign in _SIGNS.findall(line):
        if words and not stack:
            raise wrong(f"{shown(sign)} stands behind its end")
        if sign == "(":
            if stack and not stack[-1].label:
                raise wrong("a node has no label")
            if stack and stack[-1].word:
                raise wrong(f"{shown(stack[-1].word)} has a tree beside it")
            stack.append(_Open())
        elif not stack:
            raise wrong(f"{shown(sign)} stands outside of brackets")
        elif sign == ")":
            node = stack.pop()
            if not node.word and not node.children:
                raise wrong(f"a node {shown(node.label)} is empty" if node.label else "a node has no label")
            for child in node.children:
                parents[child] = len(words)
            if stack:
                stack[-1].children.append(len(words))
            words.append(node.word)
            parents.append(-1)
            labels.append(node.label)
        elif not stack[-1].label:
            stack[-1].label = sign
        elif stack[-1].word or stack[-1].children:
            raise wrong(f"the word {shown(sign)} has a word or a tree beside it")
        else:
            stack[-1].word = sign
    if stack or not words:
        raise wrong("a bracket is not closed" if stack else "it is empty")
    return Tree(tuple(words), tuple(parents), tuple(labels))


def read_bracketed(path: str | os.PathLike[str]) -> list[Tree]:
    """The trees of a file, one a line; empty lines are left out. It may end in .gz, .bz2 or .xz.

    Raises:
        UsageError: no file, or no tree. UnrolledError: a line that is no tree, by its number.
    """
    lines = enumerate(read_plain(path).splitlines(), 1)
    found = [bracketed(line, f"line {number} of {path}") for number, line in lines if line.strip()]
    if not found:
        raise UsageError(f"{path} has no tree; give one a line.")
    return found
