"""When training has gone wrong."""

import math
from collections.abc import Sequence

__all__ = ["RECENT", "divergence"]

RECENT = 50
"""Steps whose mean loss is looked at."""

_FACTOR = 1.5


def divergence(nats: float, grad_norm: float, recent: Sequence[float], chance: float | None) -> str | None:
    """What is wrong after a step, in words; None for nothing.

    Args:
        nats: loss per target of the step. grad_norm: of its gradient. recent: losses of the last steps, this one last.
        chance: the loss of uniform guessing; None where that is not known.
    """
    if not math.isfinite(nats):
        return f"the loss became {nats}"
    if not math.isfinite(grad_norm):
        return f"the norm of the gradient became {grad_norm}"
    mean = sum(recent) / len(recent)
    if chance is not None and len(recent) == RECENT and mean > _FACTOR * chance:
        return f"the loss ran away ({mean:.2f} nats per token, uniform guessing has {chance:.2f})"
    return None
