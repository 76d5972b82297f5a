"""When training has gone wrong."""

import math
from collections.abc import Sequence

__all__ = ["RECENT", "divergence"]

RECENT = 50
"""Steps whose mean loss is looked at."""

_FACTOR = 1.5


def divergence(nats: float, grad_norm: float, recent: Sequence[float], vocabulary: int) -> str | None:
    """What is wrong after a step, in words; None for nothing.

    Args:
        nats: loss per token of the step. grad_norm: of its gradient. recent: losses of the last steps, this one last.
        vocabulary: number of ids: uniform guessing has the loss log(vocabulary).
    """
    if not math.isfinite(nats):
        return f"the loss became {nats}"
    if not math.isfinite(grad_norm):
        return f"the norm of the gradient became {grad_norm}"
    uniform, mean = math.log(max(vocabulary, 2)), sum(recent) / len(recent)
    if len(recent) == RECENT and mean > _FACTOR * uniform:
        return f"the loss ran away ({mean:.2f} nats per token, uniform guessing has {uniform:.2f})"
    return None
