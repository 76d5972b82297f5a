"""How far a difference of two systems may be off by the choice of the seeds and of the text.

Figures y[seed, block] of two systems are compared. A seed moves all blocks of its run, a block moves all runs, and both
were drawn by chance: the variance of the mean difference is that of crossed random effects (Searle, Casella and
McCulloch 1992, ch. 4), and intervals are of Student's t, see :mod:`unrolled.compare.quantiles`. A percentile bootstrap
over few seeds is too narrow: of 95 % intervals over 3 seeds 75 % cover the truth.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from unrolled.compare.quantiles import Shares, critical, satterthwaite, tail_of
from unrolled.core.errors import UnrolledError

__all__ = [
    "LEVEL",
    "Covers",
    "CrossedDifference",
    "critical",
    "crossed_bootstrap",
    "crossed_difference",
    "holm",
]

LEVEL = 0.95
"""Of the intervals shown; a verdict needs an adjusted p below one less this."""

Covers = Literal["seeds and text", "seeds", "text", "nothing"]
"""What an interval would have differently, were everything done again."""

_FEWEST_FOR_BOOTSTRAP, _DRAWS, _SEED = 10, 2000, 20180101


@dataclass(frozen=True)
class CrossedDifference:
    """The mean of the first system less that of the second, in the unit of the figures given.

    Attributes:
        difference: below zero where the first has the lower figure.
        v_seed, v_block, v_rest: shares of the variance of ``difference``; v_rest is the part that both others hold, and
            is taken off once. variance: v_seed + v_block - v_rest, never below the larger of the two.
        freedoms: degrees of freedom of the seeds' and of the text's share of it; None for one that is not known.
        covers: with a single seed of a system nothing is known of other seeds, with a single block of other texts.
        paired: differences were taken at equal seeds. counts: seeds of each system. blocks: of the text.
        sd: over seeds, of each system; None for a single seed.
        correlation: between the two systems at equal seeds; None for fewer than three of them.
        common: seeds that both have. seeds_better: those of them at which the first has the lower figure.
        seed_variance: of the difference at one more pair of runs; None for a single seed.
    """

    difference: float
    v_seed: float
    v_block: float
    v_rest: float
    variance: float
    freedoms: tuple[float | None, float | None]
    covers: Covers
    paired: bool
    counts: tuple[int, int]
    blocks: int
    sd: tuple[float | None, float | None]
    correlation: float | None
    common: int
    seeds_better: int
    seed_variance: float | None

    @property
    def text_variance(self) -> float:
        """The share of the variance that more seeds do not lessen."""
        return max(0.0, self.v_block - self.v_rest)

    @property
    def t(self) -> float | None:
        """Student's t of no difference; None where no variance is known, infinite where it is zero."""
        if self.covers == "nothing":
            return None
        if self.variance == 0:
            return 0.0 if self.difference == 0 else math.copysign(math.inf, self.difference)
        return self.difference / math.sqrt(self.variance)

    @property
    def shares(self) -> Shares:
        """The seeds' and the text's share of the variance, those that are known, each with its degrees of freedom."""
        parts = zip((self.v_seed, self.variance - self.v_seed), self.freedoms, strict=True)
        return [(share, freedom) for share, freedom in parts if freedom is not None]

    @property
    def freedom(self) -> float | None:
        """Satterthwaite's degrees of freedom of the variance; None where it is zero or not known."""
        return satterthwaite(self.shares) if self.variance > 0 else None

    @property
    def p(self) -> float | None:
        """Two-sided p-value of no difference between the systems; None unless seeds are covered."""
        if self.t is None or not self.covers.startswith("seeds"):
            return None
        return min(1.0, 2 * tail_of(self.shares, abs(self.t)))

    def interval(self, level: float = LEVEL) -> tuple[float, float] | None:
        """Interval of the difference for what ``covers`` says; None for nothing."""
        if self.covers == "nothing":
            return None
        half = critical(self.shares, (1 - level) / 2) * math.sqrt(self.variance)
        return self.difference - half, self.difference + half

    def equivalence_p(self, smallest: float) -> float | None:
        """p-value of the two one-sided tests (Schuirmann 1987) that the difference lies within ± ``smallest``."""
        if not self.covers.startswith("seeds"):
            return None
        inside = smallest - abs(self.difference)
        if self.variance == 0:
            return 0.0 if inside > 0 else 1.0
        tail = tail_of(self.shares, abs(inside) / math.sqrt(self.variance))
        return tail if inside > 0 else 1 - tail


def crossed_difference(
    first: Sequence[np.ndarray],
    second: Sequence[np.ndarray],
    first_seeds: Sequence[int] | None = None,
    second_seeds: Sequence[int] | None = None,
    tokens: np.ndarray | None = None,
    corpora: np.ndarray | None = None,
) -> CrossedDifference:
    """Compare two systems by their figures of each seed and block.

    Where both have the same seeds, differences at equal seeds are taken; else the seeds' variance is that of two
    independent means (Welch 1947). A block counts by its tokens, so that the means are those per token also where the
    last block is shorter; its squared deviation from the mean counts by the square of its share.

    Args:
        first, second: for each seed the (blocks,) mean figure of every block; (1,) for a figure without blocks.
        first_seeds, second_seeds: their seeds; absent, they count from one.
        tokens: (blocks,) in each block; absent, all are as long.
        corpora: (blocks,) number of the corpus of each block, for a difference pooled over several: the corpora count
            alike, and a seed's differences are averaged over them first.
    Raises:
        UnrolledError: unequal numbers of blocks; no figures; scipy is missing, once t or p is asked for.
    """
    one, two = _matrix(first), _matrix(second)
    if one.shape[1] != two.shape[1] or (tokens is not None and len(tokens) != one.shape[1]):
        raise UnrolledError(
            "the losses by block of two systems differ in number, so they read different texts; score them again."
        )
    seeds = [list(range(1, len(y) + 1)) if s is None else list(s) for s, y in ((first_seeds, one), (second_seeds, two))]
    share = _shares(one.shape[1], tokens, corpora)
    strata = [np.flatnonzero(corpora == c) for c in np.unique(corpora)] if corpora is not None else [slice(None)]
    common = sorted(set(seeds[0]) & set(seeds[1]))
    at = [[own.index(seed) for seed in common] for own in seeds]
    paired = len(common) == len(seeds[0]) == len(seeds[1])
    sides = [one[at[0]] - two[at[1]]] if paired else [one, two]
    means = [side @ share for side in sides]
    known = all(len(side) > 1 for side in sides)
    of_seeds = [mean.var(ddof=1) / len(mean) for mean in means] if known else []
    v_seed = float(sum(of_seeds))
    across = sides[0].mean(0) if paired else one.mean(0) - two.mean(0)
    of_blocks = [_block_variance(across[c], share[c]) for c in strata]
    enough = all(count is not None for count in of_blocks)
    v_block = float(sum(v for v in of_blocks if v is not None)) if enough else 0.0
    v_rest = sum(_rest(side[:, c], share[c]) for side in sides for c in strata) if known and enough else 0.0
    variance = max(v_seed + v_block - v_rest, v_seed, v_block)
    of_text = [(v or 0.0, len(share[c]) - 1) for v, c in zip(of_blocks, strata, strict=True)]
    covers: Covers = "seeds and text" if known and enough else "seeds" if known else "text" if enough else "nothing"
    own = [one @ share, two @ share]
    both = np.stack([own[0][at[0]], own[1][at[1]]])
    moving = len(common) > 2 and bool((both.std(1) > 0).all())
    return CrossedDifference(
        difference=float(own[0].mean() - own[1].mean()),
        v_seed=v_seed, v_block=v_block, v_rest=float(v_rest), variance=variance,
        freedoms=(
            satterthwaite([(v, len(mean) - 1) for v, mean in zip(of_seeds, means, strict=True)]) if known else None,
            satterthwaite(of_text) if enough else None,
        ),
        covers=covers,
        paired=paired, counts=(len(one), len(two)), blocks=one.shape[1],
        sd=(_sd(own[0]), _sd(own[1])),
        correlation=float(np.corrcoef(both)[0, 1]) if moving else None,
        common=len(common), seeds_better=int((both[0] < both[1]).sum()),
        seed_variance=float(sum(mean.var(ddof=1) for mean in means)) if known else None,
    )  # fmt: skip


def crossed_bootstrap(
    first: Sequence[np.ndarray], second: Sequence[np.ndarray], tokens: np.ndarray | None = None, level: float = LEVEL
) -> tuple[float, float] | None:
    """Percentile interval of a two-way bootstrap at equal seeds: seeds and blocks are drawn, both with replacement.

    A check on the interval of t, from ten seeds and ten blocks on; for fewer it is too narrow, and None.

    Args:
        first, second, tokens: as of :func:`crossed_difference`, with equal seeds in equal order.
    """
    values = _matrix(first) - _matrix(second)
    if min(values.shape) < _FEWEST_FOR_BOOTSTRAP:
        return None
    weights = np.ones(values.shape[1]) if tokens is None else np.asarray(tokens, float)
    rng = np.random.default_rng(_SEED)
    seeds, blocks = (rng.multinomial(n, np.full(n, 1 / n), _DRAWS) for n in values.shape)
    drawn = ((seeds @ values / len(values)) * blocks * weights).sum(1) / (blocks @ weights)
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for as many tests (Holm 1979). One that is None, not known yet, counts as a test."""
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    adjusted: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, i) in enumerate(order):
        least = max(least, min(1.0, (len(p_values) - rank) * p))
        adjusted[i] = least
    return adjusted


def _matrix(rows: Sequence[np.ndarray]) -> np.ndarray:
    """(seeds, blocks) float64."""
    if not rows or len({len(row) for row in rows}) != 1 or not len(rows[0]):
        raise UnrolledError("the runs of a system have no equal numbers of blocks; score them again.")
    return np.stack([np.asarray(row, np.float64) for row in rows])


def _shares(blocks: int, tokens: np.ndarray | None, corpora: np.ndarray | None) -> np.ndarray:
    """(blocks,) what each counts of the mean; sums to one, and to the same for every corpus."""
    counts = np.ones(blocks) if tokens is None else np.asarray(tokens, np.float64)
    if corpora is None:
        return counts / counts.sum()
    found = np.empty(blocks)
    names = np.unique(corpora)
    for name in names:
        found[corpora == name] = counts[corpora == name] / counts[corpora == name].sum() / len(names)
    return found


def _block_variance(values: np.ndarray, share: np.ndarray) -> float | None:
    """Variance of the sum of values (blocks,) times their shares; None for a single block."""
    count = len(values)
    if count < 2:
        return None
    away = values - values @ share / share.sum()
    return float(count / (count - 1) * (share**2 @ away**2))


def _rest(values: np.ndarray, share: np.ndarray) -> float:
    """What seeds and blocks together move, of values (seeds, blocks): its share of the variance of the mean."""
    seeds, blocks = values.shape
    part = share / share.sum()
    own = values - (values @ part)[:, None]
    own -= own.mean(0)
    return float(blocks / (blocks - 1) * (share**2 @ (own**2).sum(0)) / (seeds - 1) / seeds)


def _sd(means: np.ndarray) -> float | None:
    return float(means.std(ddof=1)) if len(means) > 1 else None
