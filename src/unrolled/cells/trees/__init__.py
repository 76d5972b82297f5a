"""Cells that read trees. A new one is one file here and one line in ``unrolled.cells.TREES``."""

from unrolled.cells.trees.base import TreeCell, TreeState

__all__ = ["TreeCell", "TreeState"]
