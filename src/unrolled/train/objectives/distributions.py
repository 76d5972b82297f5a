"""Sums over whole distributions, for any head without a state: some time steps at once, with their gradients."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.model.heads.base import Head
from unrolled.model.heads.blocks import blockwise_loss

__all__ = ["check_stateless", "over_distributions"]

_BLOCK = 2**22  # log-probabilities held at once, where the head does not say


class _LogProb(nn.Module):
    """A head's log-probabilities as a function of its parameters."""

    def __init__(self, head: Head):
        super().__init__()
        self.head = head

    def forward(self, h: Tensor, masks: Any) -> Tensor:
        """(batch, time, V) of h (batch, time, in_width)."""
        return self.head.log_prob(h, None, masks)[0]


def check_stateless(head: Head, whose: str, objective: str) -> None:
    """Raises UsageError for a head that carries a state."""
    if head.initial_state(1) is not None:
        raise UsageError(
            f"{whose} has the head {head.config.name}, which carries a state; the objective {objective} needs one that "
            "carries none on both sides, such as softmax."
        )


def over_distributions(
    head: Any, dropped: Tensor, drawn: Any, weight: Tensor | None, each: Callable[[Tensor, slice], Tensor]
) -> Tensor:
    """The sum over all positions, each times its weight; gradients are made with it.

    Args:
        dropped: (batch, time, width) outputs. drawn: what the head drew for them. weight: (batch, time).
        each: of log-probabilities (batch, steps, V) and the time steps that they are of, a number a position.
    """
    h = dropped.transpose(0, 1)  # blocks are of time steps
    time, batch = h.shape[:2]
    student = _LogProb(head)
    names, parameters = zip(*student.named_parameters(), strict=True)

    def summed(inputs: Any, times: Tensor, weights: Any) -> Tensor:
        part = slice(int(times[0]), int(times[-1]) + 1)
        masks = tree.map_tree(lambda mask: _steps(mask, part), drawn)
        own = functional_call(student, dict(zip(names, weights, strict=True)), (inputs[0].transpose(0, 1), masks))
        value = each(own, part)
        return (value if weight is None else value * weight[:, part]).sum(0)

    rows = getattr(head.config, "block", _BLOCK) // (batch * head.vocab_size)
    return blockwise_loss(summed, [h], torch.arange(time, device=h.device), parameters, None, rows)[0]


def _steps(mask: Tensor, part: slice) -> Tensor:
    """Some time steps of a mask (batch, 1 or time, width); anything else that a head draws as it is."""
    return mask[:, part] if mask.dim() == 3 and mask.shape[1] > 1 else mask
