"""Settings of the task of trees."""

from typing import Literal

from pydantic import Field

from unrolled.cells import TREES, AnyTreeConfig
from unrolled.data.trees import TREEBANKS, AnyTreesConfig
from unrolled.kernels.dispatch import Compute
from unrolled.task import TaskConfig

__all__ = ["ClassifyTreesConfig"]


class ClassifyTreesConfig(TaskConfig):
    """Settings of a task of trees."""

    name: Literal["classify_trees"] = "classify_trees"
    data: AnyTreesConfig = Field(default_factory=lambda: TREEBANKS.parse("listops"), description="the trees")
    cell: AnyTreeConfig = Field(
        default_factory=lambda: TREES.parse("child_sum_tree_lstm"), description="what reads a tree"
    )
    width: int = Field(default=64, ge=1, le=1 << 16, description="of the states")
    embedding: int | None = Field(default=None, ge=1, le=1 << 16, description="width of a word (absent: of the states)")
    binary: bool = Field(
        default=False,
        description="make trees binary before they are read, branching to the left; the word of an inner node becomes "
        "a leaf before its children",
    )
    hidden: int = Field(
        default=0, ge=0, le=1 << 20, description="width of a hidden layer with tanh before the logits (0: none)"
    )
    smoothing: float = Field(default=0.0, ge=0, lt=1, description="share of a target that is spread over all classes")
    input_dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout of the vectors of words")
    output_dropout: float = Field(default=0.0, ge=0, lt=1, description="dropout of the states before the logits")
    rows: int = Field(
        default=32, ge=1, le=1 << 16, description="trees of a training batch, and side by side in evaluation"
    )
    compute: Compute = Field(default=Compute(), description="backend and precision of the operations")
    classes: tuple[str, ...] | None = Field(default=None, description="names of the labels; kept in the run")
