"""What objectives over whole distributions share: the head softmax, from which logits of all tokens follow."""

from typing import Any

from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel
from unrolled.model.heads.softmax import SoftmaxHead
from unrolled.train.objectives.base import Given

__all__ = ["check_softmax", "logit_of", "read"]


def check_softmax(model: nn.Module, name: str) -> None:
    """Raises UsageError, in the name of an objective, for any head but a full softmax without a cap."""
    head = model.head if isinstance(model, LanguageModel) else None
    if type(head) is not SoftmaxHead or (head.config.negatives, head.config.cap) != (None, None):
        raise UsageError(
            f"the objective {name} needs the head softmax without negatives and cap; leave it out of train.extra."
        )


def read(given: Given) -> tuple[Any, Tensor]:
    """The head, and what its matrix multiplies, (rows, time, width), under the window's masks."""
    seen = given.seen
    head: Any = seen.model.head
    drawn = None if seen.drawn is None else seen.drawn.head
    return head, head.project(seen.out.dropped, None if drawn is None else drawn.projected)


def logit_of(head: Any, h: Tensor, targets: Tensor) -> Tensor:
    """The logits of the targets (rows, time), from :func:`read`'s h."""
    own = (h * head.weight[targets]).sum(-1)
    return own if head.bias is None else own + head.bias[targets]
