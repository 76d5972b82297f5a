"""What objectives over sequences share: which streams have some, and the sequences of a window."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.task import StepsTask

__all__ = ["Sequences", "check_sequences", "sequences_of"]


def check_sequences(task: StepsTask, name: str) -> None:
    """Raises UsageError, in the name of an objective, for a stream that is one uninterrupted text."""
    config: Any = task.config
    if config.stream.carry and task.splits["train"].starts is None:  # type: ignore[attr-defined]
        raise UsageError(
            f"the objective {name} compares sequences, and this stream carries its state through one uninterrupted "
            "text; set corpus.reset=line with stream.order=shuffled, or stream.carry=false."
        )


class Sequences(NamedTuple):
    """The sequences of a window, S of at most n tokens. places: (S, n) positions in the flattened window, those that
    there are none of 0. there: boolean (S, n)."""

    places: Tensor
    there: Tensor


def sequences_of(reset: Tensor | None, rows: int, time: int, device: Any = None) -> Sequences:
    """A window cut where a sentence begins; a sentence that a window's border cuts is a sequence in each.

    Args:
        reset: boolean (rows, time), or None: each row is a sequence.
    """
    begins = torch.zeros(rows, time, dtype=torch.bool, device=device) if reset is None else reset.clone()
    begins[:, 0] = True
    starts = begins.flatten().nonzero().squeeze(1)
    lengths = torch.diff(starts, append=starts.new_tensor([rows * time]))
    within = torch.arange(int(lengths.max()), device=starts.device)
    there = within < lengths.unsqueeze(1)
    return Sequences(torch.where(there, starts.unsqueeze(1) + within, 0), there)
