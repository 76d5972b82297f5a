"""The contract of a further objective: a term that is added to the loss of a phase."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.core.config import Config
from unrolled.core.group import current
from unrolled.core.random import RandomStreams
from unrolled.task import Seen, StepsTask

__all__ = ["Extra", "ExtraConfig", "Given", "mean_of"]


class ExtraConfig(Config):
    """Base of the further objectives' configurations. A subclass fixes ``name`` to its name in the table."""

    name: str
    weight: float = Field(default=1.0, ge=0, le=1e6, description="times its value (0: as if it were not there)")


class Given(NamedTuple):
    """What a value is made from. seen: model, batch, outputs, nats. side: the objective's own module, or None.
    divisor: what sums over the targets are divided by. position: number of the batch, for random draws."""

    seen: Seen
    side: Any
    divisor: Tensor | int
    position: int


class Extra(ABC):
    """A term of the loss.

    Args:
        config: its settings. streams: source of all random draws; those of an objective are named after it.
        model: whose loss it is.

    Attributes:
        suits: parts of a recipe that EXAMPLES can be tried on (``{"model": {...}, "stream": {...}}``), where not every
            model or stream serves.
        follows: whether the gradient is that of the value. Where something is held fixed in it, which the docstring
            says, this is false, and the objective has a test of its own gradient.
        exported: name of the file, without its ending, that its own module is written to beside the model's weights,
            for test time; None for most, whose modules are of use in training alone.
    Raises:
        UsageError: a model that it cannot serve, in one sentence.
    """

    Config: ClassVar[type[ExtraConfig]]
    EXAMPLES: ClassVar[tuple[ExtraConfig, ...]]
    suits: ClassVar[Mapping[str, Any]] = {}
    follows: ClassVar[bool] = True
    exported: ClassVar[str | None] = None

    def __init__(self, config: Any, streams: RandomStreams, model: nn.Module):
        self.config, self.streams = config, streams

    def join(self, task: StepsTask) -> None:  # noqa: B027  (most need nothing of it)
        """Read what it needs of the task, its tokenizer or batches by their numbers, once and before the first batch.

        Raises:
            UsageError: a task that it cannot serve, in one sentence.
        """

    def side(self, model: nn.Module) -> nn.Module | None:
        """Parameters of its own; the caller has seeded torch. They are trained with the model's, clipped apart from
        them, and kept in the training state alone, unless ``exported`` names a file for them."""
        return None

    def prepare(self, batch: Any, position: int) -> Any:
        """The batch, perhaps with other targets or weights, before anything is drawn for it."""
        return batch

    @abstractmethod
    def value(self, given: Given) -> Tensor:
        """The differentiable value of a batch, before its weight."""


def mean_of(given: Given, each: Tensor, counted: Tensor | None = None) -> Tensor:
    """The mean of a number of each target over those that count, by their weights, on the scale of the loss: with
    ``reduction = "sum"`` times the targets of a column.

    Args:
        each: (rows, time). counted: boolean (rows, time), which have a part in it; absent: all.
    """
    weight = given.seen.weight
    if counted is None:
        return (each if weight is None else each * weight).sum() / given.divisor
    own = counted.to(each.dtype) if weight is None else counted * weight.to(each.dtype)
    whole = each.new_tensor(float(each.numel())) if weight is None else weight.to(each.dtype).sum()
    share = current().mean(own.sum()) / current().mean(whole)
    # none that counts: a sum of zeros
    return (each * own).sum() / given.divisor / torch.where(share > 0, share, torch.ones_like(share))
