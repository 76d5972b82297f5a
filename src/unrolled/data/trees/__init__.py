"""Trees with labels: readers of files, shapes, and the table of where trees come from.

A new kind is one file and one line here.
"""

from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny

from unrolled.core.registry import Registry
from unrolled.data.trees.base import Tree, balanced, binarised
from unrolled.data.trees.batches import TreeBatch, TreeBatches, TreeSplit, forest_of
from unrolled.data.trees.bracketed import bracketed, read_bracketed
from unrolled.data.trees.conllu import read_conllu
from unrolled.data.trees.operations import operation_tree
from unrolled.data.trees.source import TreeConfig, TreeSource

__all__ = [
    "TREEBANKS",
    "AnyTreesConfig",
    "Tree",
    "TreeBatch",
    "TreeBatches",
    "TreeConfig",
    "TreeSource",
    "TreeSplit",
    "balanced",
    "binarised",
    "bracketed",
    "forest_of",
    "operation_tree",
    "read_bracketed",
    "read_conllu",
]

TREEBANKS: "Registry[type[TreeSource]]" = Registry(
    "kind of trees",
    {
        "listops": "unrolled.data.trees.operations:ListOpsTrees",
        "treebank": "unrolled.data.trees.treebank:Treebank",
        "dependencies": "unrolled.data.trees.treebank:Dependencies",
        "sst2": "unrolled.data.trees.sst2:Sst2Trees",
    },
)

AnyTreesConfig = Annotated[SerializeAsAny[TreeConfig], BeforeValidator(TREEBANKS.parse)]
"""A field that takes the config of any kind of trees, or its name alone."""
