"""Block bootstrap: how far a mean over a text may be off by the choice of the text.

Losses of neighbouring tokens hang together, so whole blocks of at least 1,000 tokens are drawn, with replacement
(Künsch 1989). What varies between training runs (seeds) is not in these intervals.
"""

import copy
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["BLOCK", "BlockSums", "Difference", "paired_difference"]

BLOCK = 1000
"""Tokens in a block, at least."""

_MOST_BLOCKS, _FEWEST_BLOCKS, _DRAWS, _SEED = 1000, 10, 4000, 20180101


class BlockSums:
    """Sums of per-token figures by block, gathered as they arrive.

    Args:
        columns: parallel columns; a block lies within one. length: tokens per column.
        own: of the columns, how many are gathered here; absent: all.
    """

    def __init__(self, columns: int, length: int, own: int | None = None):
        self.size = max(BLOCK, -(-columns * length // _MOST_BLOCKS))
        shape = (columns if own is None else own, -(-length // self.size))
        self._sums, self._counts = np.zeros(shape), np.zeros(shape)

    def add(self, position: int, values: np.ndarray) -> None:
        """Figures (columns, time) of the tokens from ``position`` of each column."""
        low, high = position, position + values.shape[1]
        while low < high:
            block = low // self.size
            end = min(high, (block + 1) * self.size)
            self._sums[:, block] += values[:, low - position : end - position].sum(1)
            self._counts[:, block] += end - low
            low = end

    @classmethod
    def joined(cls, parts: "Sequence[BlockSums]") -> "BlockSums":
        """Of columns that were gathered apart, in their order."""
        whole = copy.copy(parts[0])
        whole._sums = np.concatenate([part._sums for part in parts])
        whole._counts = np.concatenate([part._counts for part in parts])
        return whole

    def interval(self, level: float = 0.95) -> tuple[float, float] | None:
        """Percentile interval of the mean per token; None for fewer than ten blocks, which tell too little."""
        means = self._means()
        if means is None:
            return None
        low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
        return float(low), float(high)

    def share_above_zero(self) -> float | None:
        """Share of the redrawn means above zero, ties by half; None for fewer than ten blocks."""
        means = self._means()
        return None if means is None else float((means > 0).mean() + 0.5 * (means == 0).mean())

    def _means(self) -> np.ndarray | None:
        sums, counts = self._sums.ravel(), self._counts.ravel()
        if len(sums) < _FEWEST_BLOCKS:
            return None
        drawn = np.random.default_rng(_SEED).multinomial(len(sums), np.full(len(sums), 1 / len(sums)), _DRAWS)
        return (drawn @ sums) / (drawn @ counts)


class Difference(NamedTuple):
    """Mean difference of nats per token of two models on one text, the first less the second.

    interval: 95 % block-bootstrap interval, None for a short text. p_value: two-sided, of no difference.
    """

    nats_per_token: float
    interval: tuple[float, float] | None
    p_value: float | None
    tokens: int

    def verdict(self, first: str, second: str) -> str:
        """One readable sentence."""
        gain = -self.nats_per_token
        better, worse = (first, second) if gain > 0 else (second, first)
        share = 1 - float(np.exp(-abs(gain)))
        size = f"{share:.2%} lower perplexity ({abs(gain):.4f} nats per token)"
        if self.interval is None or self.p_value is None:
            return f"{better} has {size} than {worse}; the text is too short to say how sure that is."
        low, high = sorted(abs(value) for value in self.interval)
        sure = f"<= {self.p_value:.1g}" if self.p_value <= 2 / _DRAWS else f"= {self.p_value:.2g}"
        if self.interval[0] <= 0 <= self.interval[1]:
            return (
                f"no clear difference: {better} has {size} than {worse}, and the 95 % interval of the difference, "
                f"{self.interval[0]:+.4f} to {self.interval[1]:+.4f} nats, contains zero."
            )
        return (
            f"{better} is better than {worse}: {size}, 95 % interval {low:.4f} to {high:.4f} nats "
            f"(paired block bootstrap over {self.tokens:,} tokens, p {sure})."
        )


def paired_difference(first: np.ndarray, second: np.ndarray) -> Difference:
    """Compare two models token by token.

    Args:
        first, second: (n,) nats of the same tokens in the order of the text.
    """
    values = first - second
    sums = BlockSums(1, len(values))
    sums.add(0, values[None])
    above = sums.share_above_zero()
    # none among the draws means less than one of them
    p_value = None if above is None else max(2 * min(above, 1 - above), 2 / _DRAWS)
    return Difference(float(values.mean()), sums.interval(), p_value, len(values))
