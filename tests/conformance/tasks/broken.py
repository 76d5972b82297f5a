"""Tasks that are broken on purpose; each must fail the check that it is for."""

from typing import Any

import torch
from torch import nn

from conformance.tasks.checks import alone_as_in_a_batch, drawn_from_streams, finite_gradients
from conformance.tasks.parity import Labeller, Parity, ParityConfig

__all__ = ["BROKEN"]


class _Unused(Labeller):
    """Holds a parameter that its loss never reads."""

    def __init__(self, *arguments: Any):
        super().__init__(*arguments)
        self.idle = nn.Parameter(torch.ones(2))


class Idle(Parity):
    def build(self) -> Labeller:
        return _Unused(self.tokenizer.vocab_size, ParityConfig())


class _Mixing(Labeller):
    """Takes the mean of all rows off each."""

    def forward(self, ids: Any, state: Any, reset: Any = None) -> Any:
        logits, state = super().forward(ids, state, reset)
        return logits - logits.mean(0, keepdim=True), state


class Mixed(Parity):
    def build(self) -> Labeller:
        return _Mixing(self.tokenizer.vocab_size, ParityConfig())


class _Noisy(Labeller):
    """Draws from torch's own generator."""

    def forward(self, ids: Any, state: Any, reset: Any = None) -> Any:
        logits, state = super().forward(ids, state, reset)
        return logits + torch.randn_like(logits), state


class Noisy(Parity):
    def build(self) -> Labeller:
        return _Noisy(self.tokenizer.vocab_size, ParityConfig())


BROKEN = ((Idle, finite_gradients), (Mixed, alone_as_in_a_batch), (Noisy, drawn_from_streams))
