"""The sentences of the binary Stanford Sentiment Treebank under trees that know nothing of grammar."""

from typing import Literal

from unrolled.data.labelled.reading import words_of
from unrolled.data.labelled.texts import Sst2, Sst2Config
from unrolled.data.trees.base import Tree, balanced
from unrolled.data.trees.source import TreeConfig, TreeSource

__all__ = ["Sst2Trees", "Sst2TreesConfig"]


class Sst2TreesConfig(TreeConfig):
    """Settings of SST-2 as trees: none."""

    name: Literal["sst2"] = "sst2"


class Sst2Trees(TreeSource):
    """The sentences of ``sst2`` in lower case, each as a balanced binary tree over its words and signs. These are no
    parses: the form at hand has sentences and labels, and no trees. The root has a label."""

    Config = Sst2TreesConfig
    classes = Sst2.classes

    def splits(self) -> dict[str, list[Tree]]:
        """See :class:`TreeSource`."""
        return {
            split: [
                balanced(words_of(text), self.classes[label])
                for text, label in zip(texts, labels.tolist(), strict=True)
            ]
            for split, (texts, labels) in Sst2(Sst2Config()).texts().items()
        }

    def tree(self, line: str) -> Tree:
        """See :class:`TreeSource`."""
        return balanced(words_of(line))
