"""Cross-entropy, and the regularisers of language models."""

from collections.abc import Iterable
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.group import current
from unrolled.task import Seen

__all__ = ["ObjectiveConfig", "add_l2", "divisor", "objective"]


class ObjectiveConfig(Config):
    """Cross-entropy and what is added to it."""

    reduction: Literal["mean", "sum"] = Field(
        default="mean",
        description="mean over all targets of a window, by their weights where it has some; or the mean over columns "
        "of the sum over time (Mogrifier), to whose scale clip and l2 then belong",
    )
    ar: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="activation regularisation: times the mean square of the dropped last output",
    )
    tar: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="temporal activation regularisation: times the mean square of the difference of successive raw "
        "last outputs",
    )
    cost: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="times the mean over all tokens of what cells ask for each of them (act: its steps)",
    )
    l2: float = Field(
        default=0.0,
        ge=0,
        le=1e6,
        description="times half the squared norm of all parameters, added to the reduced loss",
    )


def divisor(config: ObjectiveConfig, seen: Seen) -> Tensor | int:
    """What sums over the targets are divided by: the sum of their weights, or the number of columns.

    Positions of weight 0, padding mostly, so change no gradient of the others: their number does not matter. In a group
    it is the processes' mean, so that the mean of their values is the value of all of their targets.
    """
    if config.reduction == "sum":
        return len(seen.targets)
    if seen.weight is None:
        return seen.targets.numel()
    total = current().mean(seen.weight.sum())
    return torch.where(total > 0, total, torch.ones_like(total))


def objective(config: ObjectiveConfig, seen: Seen) -> Tensor:
    """The differentiable value of one window, but for its l2 (see :func:`add_l2`).

    AR and TAR are those of the published AWD-LSTM code (Merity et al. 2018): means over all elements of the last
    layer's output, where the paper writes L2 norms. TAR takes no difference across a reset. Weights are of targets:
    both look at every output, whatever its target counts. So does the cost.

    Raises:
        UsageError: AR or TAR of a task whose model has no outputs; a cost of a model whose cells ask none.
    """
    value = seen.total / divisor(config, seen)
    out, reset = seen.out, seen.reset
    if config.cost:
        if out is None or "cost" not in out.handed:
            raise UsageError("no cell of this model has a cost (act has one); leave out train.objective.cost.")
        value = value + config.cost * out.handed["cost"].mean()
    if out is None:
        if config.ar or config.tar:
            raise UsageError("this task has no outputs to regularise; leave out train.objective.ar and tar.")
        return value
    if config.ar:
        value = value + config.ar * out.dropped.square().mean()
    if config.tar and out.raw.shape[1] > 1:
        change = (out.raw[:, 1:] - out.raw[:, :-1]).square()
        if reset is None:
            value = value + config.tar * change.mean()
        else:
            within = ~reset[:, 1:].unsqueeze(-1)
            count = current().mean(within.sum() * change.shape[-1]).clamp(min=1)
            value = value + config.tar * (change * within).sum() / count
    return value


@torch.no_grad()
def add_l2(config: ObjectiveConfig, parameters: Iterable[nn.Parameter]) -> None:
    """Add the gradient of the l2 term to those of the parameters that have one."""
    if config.l2:
        pairs = [(p.grad, p) for p in parameters if p.grad is not None]
        if pairs:
            torch._foreach_add_(*map(list, zip(*pairs, strict=True)), alpha=config.l2)  # type: ignore
