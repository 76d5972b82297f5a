"""Tables of an adaptive input: rarer tokens have narrower rows, which a map of each table widens."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import Compute
from unrolled.kernels.linear import glue_linear

__all__ = ["Tables", "check_cutoffs", "group_sizes", "narrowed"]


def check_cutoffs(name: str, cutoffs: Sequence[int], vocab_size: int) -> None:
    """Raises UsageError unless the cutoffs rise strictly within the vocabulary."""
    if not cutoffs or list(cutoffs) != sorted(set(cutoffs)) or not 0 < cutoffs[0] <= cutoffs[-1] < vocab_size:
        raise UsageError(f"{name} must rise strictly between 0 and the {vocab_size:,} ids of the vocabulary.")


def group_sizes(cutoffs: Sequence[int], vocab_size: int) -> list[int]:
    """How many ids each group has."""
    ends = [0, *cutoffs, vocab_size]
    return [high - low for low, high in pairwise(ends)]


def narrowed(width: int, div_value: float, groups: int) -> list[int]:
    """The width of each group's rows: that of the one before over ``div_value``. Raises UsageError below 1."""
    widths = [int(width // div_value**i) for i in range(groups)]
    if widths[-1] < 1:
        raise UsageError(f"the rarest of {groups} groups of ids would have rows of no width; lower div_value.")
    return widths


class Tables(nn.Module):
    """One table and one map for each group of ids (Baevski and Auli 2019): token v of group i is maps[i] rows[i][v].

    Args:
        vocab_size: number of rows in all. width: of the first table's rows, and of all that comes out.
        cutoffs: first id of each further group. div_value: see :func:`narrowed`.

    Attributes:
        weight: (first cutoff, width), the rows of the most frequent ids. tails: the other tables.
        maps: (width, width of the rows), one a table.
    """

    def __init__(self, vocab_size: int, width: int, cutoffs: Sequence[int], div_value: float):
        super().__init__()
        check_cutoffs("embedding.cutoffs", cutoffs, vocab_size)
        self.ends = [0, *cutoffs, vocab_size]
        sizes = group_sizes(cutoffs, vocab_size)
        self.widths = narrowed(width, div_value, len(sizes))
        first, *rest = [nn.Parameter(torch.empty(pair)) for pair in zip(sizes, self.widths, strict=True)]
        self.weight, self.tails = first, nn.ParameterList(rest)
        self.maps = nn.ParameterList(nn.Parameter(torch.empty(width, size)) for size in self.widths)

    def reset_parameters(self, scale: float) -> None:
        """Draw anew: normal, of deviation ``scale`` over the root of the rows' width, maps over that of theirs."""
        for parameter in self.parameters():
            if not parameter.is_meta:
                width = parameter.shape[0] if any(parameter is one for one in self.maps) else parameter.shape[1]
                nn.init.normal_(parameter, 0, scale * width**-0.5)

    def rows(self) -> list[Tensor]:
        """The tables, the most frequent ids first."""
        return [self.weight, *self.tails]

    def forward(self, tokens: Tensor, compute: Compute) -> Tensor:
        """(batch, time) ids -> (batch, time, width)."""
        flat = tokens.flatten()
        out = self.weight.new_zeros(len(flat), self.maps[0].shape[0])
        for i, rows in enumerate(self.rows()):
            at = ((flat >= self.ends[i]) & (flat < self.ends[i + 1])).nonzero().squeeze(1)
            if len(at):
                found = embedding(flat[at] - self.ends[i], rows)
                out = out.index_copy(0, at, glue_linear(found, self.maps[i], None, compute, "embedding"))
        return out.view(*tokens.shape, -1)

    def table(self, compute: Compute) -> Tensor:
        """What all ids give, (vocabulary, width)."""
        pairs = zip(self.rows(), self.maps, strict=True)
        return torch.cat([glue_linear(rows, one, None, compute, "embedding") for rows, one in pairs])
