"""The checks: each takes a task, its model in float64 and a batch, and fails by an assertion."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from unrolled.task import Seen

__all__ = ["alone_as_in_a_batch", "drawn_from_streams", "finite_gradients", "rows_of", "seen"]


def seen(task: Any, model: Any, batch: Any, state: Any = None, position: int = 0) -> Seen:
    """What the task shows of a batch."""
    found: list[Seen] = []

    def keep(value: Seen) -> Tensor:
        found.append(value)
        return value.total

    task.loss(model, batch, state, task.draw(model, batch, position), keep)
    return found[0]


def rows_of(batch: Any, rows: Sequence[int]) -> Any:
    """Some rows of a batch: of a NamedTuple whose tensors begin with the rows."""
    return type(batch)(*(part[list(rows)] if isinstance(part, Tensor) else part for part in batch))


def finite_gradients(task: Any, model: Any, batch: Any) -> None:
    """A finite loss, and a finite gradient that is not all zero in every trainable parameter."""
    model.zero_grad(set_to_none=True)
    loss = task.loss(model, batch, None, task.draw(model, batch, 0), lambda value: value.total)
    assert bool(torch.isfinite(loss.value))
    assert loss.count > 0
    loss.value.backward()
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, f"{name} has no gradient"
            assert bool(torch.isfinite(parameter.grad).all()), f"{name} has a gradient that is not finite"
            assert float(parameter.grad.abs().max()) > 0, f"{name} has a gradient of zero"


def alone_as_in_a_batch(task: Any, model: Any, batch: Any) -> None:
    """The nats of a row depend neither on the rows beside it nor on their order."""
    whole = seen(task, model, batch).nll
    count = len(whole)
    for rows in ([0], [count - 1], list(reversed(range(count)))):
        part = seen(task, model, rows_of(batch, rows)).nll
        torch.testing.assert_close(part, whole[rows], rtol=0, atol=1e-12)


def drawn_from_streams(task: Any, model: Any, batch: Any) -> None:
    """The same batch gives the same loss whatever torch's own generator is at: so a resumed run repeats it."""
    torch.manual_seed(1)
    first = seen(task, model, batch, position=3)
    torch.manual_seed(2)
    again = seen(task, model, batch, position=3)
    assert torch.equal(first.total, again.total)
    assert torch.equal(first.nll, again.nll)
