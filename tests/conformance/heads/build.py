"""Heads with known weights, inputs, and the plain form of their loss."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from conformance.material import wave
from unrolled.core.errors import UsageError
from unrolled.model.heads import HEADS, Head, HeadConfig

__all__ = [
    "BATCH",
    "CASES",
    "IN",
    "SIZE",
    "TIME",
    "VOCABULARY",
    "Case",
    "inputs",
    "make",
    "plain",
    "registered",
    "ties",
]

IN, SIZE, VOCABULARY, BATCH, TIME = 6, 5, 23, 3, 7


class Case(NamedTuple):
    """A head with one of its example configs."""

    cls: type[Head]
    config: HeadConfig
    index: int = 0

    def __str__(self) -> str:
        return f"{self.config.name}-{self.index}"


CASES = [Case(HEADS[name], config, k) for name in HEADS for k, config in enumerate(HEADS[name].EXAMPLES)]


def cell_for(case: Case) -> Any:
    """Cells that go with the head."""
    count = getattr(case.config, "count", 1)
    return {"name": "rwkv4", "perspectives": count} if count > 1 else {"name": "lstm"}


def make(case: Case, tied: bool = False, **options: Any) -> Any:
    """The head in float64, with the weights of its own initialisation, moved a little. options: changes of its config;
    those that it does not have are left out."""
    torch.manual_seed(3)
    known = {name: value for name, value in options.items() if name in type(case.config).model_fields}
    matrix = nn.Parameter(0.7 * wave(VOCABULARY, SIZE)) if tied else None
    head = case.cls(IN, VOCABULARY, case.config.model_copy(update=known), matrix).double()
    if head.needs_counts:
        head.use_counts(torch.arange(VOCABULARY, 0, -1))
    with torch.no_grad():
        for k, parameter in enumerate(head.parameters()):
            parameter.add_(0.4 * wave(*parameter.shape, phase=k))
    return head


def ties(case: Case) -> list[bool]:
    """Whether the head is to be made with a matrix of its own, and whether it can also share one."""
    try:
        make(case, tied=True)
    except UsageError as refusal:
        if "tied" in str(refusal):
            return [False]
        raise
    return [False, True]


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    """h, targets among which every cluster and many repetitions occur, and weights."""
    targets = torch.arange(BATCH * TIME).mul(5).remainder(VOCABULARY).view(BATCH, TIME)
    targets[1] = targets[1] % 4
    return wave(BATCH, TIME, IN).mul(1.5).requires_grad_(), targets, wave(BATCH, TIME, phase=2.0).abs() + 0.1


def plain(head: Any, h: Tensor, targets: Tensor, state: Any) -> Tensor:
    """The nats through ``log_prob``, one step after another."""
    nats = []
    for t in range(targets.shape[1]):
        log_prob, _ = head.log_prob(h[:, t], state)
        nats.append(-log_prob.gather(1, targets[:, t : t + 1]))
        if state is not None:
            _, _, state = head.loss(h[:, t : t + 1], targets[:, t : t + 1], None, state)
    return torch.cat(nats, 1)


@contextmanager
def registered(case: Case) -> Iterator[None]:
    """The head stands in the table; one that is of the table already stays."""
    name = case.config.name
    if name in HEADS and HEADS[name] is case.cls:
        yield
        return
    HEADS.add(name, case.cls)
    try:
        yield
    finally:
        HEADS.remove(name)
