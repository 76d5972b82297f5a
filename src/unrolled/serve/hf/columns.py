"""How a mask of padding is read by a recurrent model: where rows begin, and which stand still."""

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.core.errors import UnrolledError

__all__ = ["Plan", "last_columns", "plan_of"]


class Plan(NamedTuple):
    """How the columns of a call are read.

    Attributes:
        reset: boolean (batch, time): the row starts afresh before the token; None where no row does.
        pieces: (first column, end, rows (batch,) that stand still or None) in order.
        empty: (batch,), rows that had not begun and read nothing here either; None where there are none.
    """

    reset: Tensor | None
    pieces: list[tuple[int, int, Tensor | None]]
    empty: Tensor | None


def last_columns(mask: Tensor | None, batch: int, time: int) -> Tensor | None:
    """The part of an attention mask that is about the ids of a call, boolean (batch, time); None where all count.

    Args:
        mask: (batch, columns), for all that was read before too, or for these alone.
    Raises:
        UnrolledError: another shape.
    """
    if mask is None:
        return None
    if mask.dim() != 2 or len(mask) != batch or mask.shape[1] < time:
        raise UnrolledError(
            f"the attention mask has the shape {tuple(mask.shape)} for ids of shape {(batch, time)}; give one column a "
            "token, those already read included."
        )
    real = mask[:, mask.shape[1] - time :].to(torch.bool)
    return None if bool(real.all()) else real


def plan_of(real: Tensor | None, begun: Tensor, time: int, keep: bool, begins: Tensor | None) -> Plan:
    """Plan a call.

    Left padding of a row that has read nothing costs one reset. Any other gap has to leave the state as it is: the
    columns are cut where a row stops or goes on, and a row that stands still keeps its old state over the piece.

    Args:
        real: boolean (batch, time), which tokens count; None: all. begun: (batch,), rows that have read a token.
        keep: whether the state after the call is needed; if not, what follows a row's last token may be read.
        begins: boolean (batch, time), real tokens that begin a text; None: none does.
    """
    reset = begins if begins is not None and bool(begins.any()) else None
    if real is None:
        return Plan(reset, [(0, time, None)], None)
    places = torch.arange(time, device=real.device)
    counted = real.cumsum(1)
    first = torch.where(counted[:, -1] > 0, (counted == 0).sum(1), time)
    waiting = ~begun.unsqueeze(1) & (places < first.unsqueeze(1))
    starts = ~begun.unsqueeze(1) & (places == first.unsqueeze(1)) & (places > 0)
    if bool(starts.any()):
        reset = starts if reset is None else starts | reset & real
    still = ~real & ~waiting
    if not keep:
        still &= counted < counted[:, -1:]
    cuts = [0, *((still[:, 1:] != still[:, :-1]).any(0).nonzero().squeeze(1) + 1).tolist(), time]
    pieces = []
    for low, high in pairwise(cuts):
        rows = still[:, low]
        pieces.append((low, high, rows if bool(rows.any()) else None))
    empty = ~begun & (first == time)
    return Plan(reset, pieces, empty if bool(empty.any()) else None)
