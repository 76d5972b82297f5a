"""Options and states of Titans."""

from typing import Literal, NamedTuple

from pydantic import Field, model_validator
from torch import Tensor

from unrolled.cells.learners.base import LearnerConfig
from unrolled.core.errors import UsageError

__all__ = ["TitansConfig", "TitansContextState", "TitansState", "TitansWindowState"]


class TitansConfig(LearnerConfig):
    """Options of Titans."""

    name: Literal["titans"] = "titans"
    layout: Literal["memory", "context", "gate", "layer"] = Field(
        default="memory",
        description="memory alone (LMM); what it recalls as context of attention (MAC); memory and attention side by "
        "side, one the gate of the other (MAG); memory below attention (MAL)",
    )
    depth: int = Field(default=2, ge=1, le=4, description="layers of the memory")
    factor: int = Field(default=2, ge=1, le=64, description="width of its hidden layers, times that of a head")
    rate: float = Field(default=1.0, gt=0, description="largest step of the memory, all tokens of a chunk together")
    momentum: bool = Field(default=True, description="steps go on with a momentum, made of each token")
    forget: Literal["start", "zero", "none"] = Field(
        default="start",
        description="where to weights decay, by a share made of each token: to those that a document "
        "begins with, to zero as in the paper, or not at all",
    )
    norm: bool = Field(
        default=False, description="the memory is its input plus the layer norm of its last layer, as TTT"
    )
    kernel: int = Field(default=4, ge=2, le=64, description="inputs that the convolution of q, k, v sees")
    window: int = Field(
        default=64, ge=2, le=1 << 20, description="tokens attended to in the layouts gate and layer, itself among them"
    )
    persistent: int = Field(default=4, ge=1, le=4096, description="keys and values that every token attends to")

    @model_validator(mode="after")
    def _segments(self) -> "TitansConfig":
        if self.layout == "context" and self.chunk < 2:
            raise UsageError(
                "the layout context attends within chunks, and one of 1 token is none; give chunk = 2 or more."
            )
        return self


class TitansState(NamedTuple):
    """before, weights: (batch, heads, numbers), the memory before the open chunk, and now. sums: the same, the steps
    with their momentum. place: int64 (batch,), tokens of the open chunk. conv: (batch, kernel - 1, 3 width)."""

    before: Tensor
    weights: Tensor
    sums: Tensor
    place: Tensor
    conv: Tensor


class TitansWindowState(NamedTuple):
    """The same, and keys, values: (batch, window - 1, heads, size), newest last, fill: int64 (batch,), how many."""

    before: Tensor
    weights: Tensor
    sums: Tensor
    place: Tensor
    conv: Tensor
    keys: Tensor
    values: Tensor
    fill: Tensor


class TitansContextState(NamedTuple):
    """The same, and the keys and values of the open chunk's tokens and of what was recalled for them, each (batch,
    chunk - 1, heads, size)."""

    before: Tensor
    weights: Tensor
    sums: Tensor
    place: Tensor
    conv: Tensor
    keys: Tensor
    values: Tensor
    recalled_keys: Tensor
    recalled_values: Tensor
