r"""Generalised (skip) Kneser-Ney smoothing (Pickhardt et al. 2014): contexts with holes beside those cut short.

A pattern P is a set of distances back, 1 for the newest token; h_P are the tokens of the context at these distances.

.. math::
    p_P(w|h) = \frac{c_P(h_P w) - D_P(c)}{\sum_v c_P(h_P v)} + \gamma(h_P)\, \frac{1}{|P|} \sum_{i \in P}
    p_{P \setminus i}(w|h)

and the empty pattern stands over the uniform 1/V. c is the count in the text where P is the whole context, else the
number of different tokens at the newest distance that P leaves free, plus the occurrences before which there is none
(at the begin of a text). So a pattern without holes counts as in :mod:`unrolled.counts.kneser_ney`, where only the
oldest token is dropped. The paper leaves several holes at once open; here each has one free place whose fillings are
counted, and the others are not looked at. D are three discounts (or one) for each pattern. ``prune`` goes by the number
of tokens of a pattern, and ``dropped`` means what it means there.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from unrolled.counts.config import KneserNeyConfig, NgramConfig
from unrolled.counts.kneser_ney import find_discounts, positions_of, unclaimed
from unrolled.counts.ngrams import check_ids, find

__all__ = ["SkipModel", "SkipTable", "estimate_skips", "patterns"]


class SkipTable(NamedTuple):
    """The n-grams of one pattern.

    contexts: (c,) int64, rising: number of the context without its oldest token (of the pattern without that distance)
    * V + that token. keys: (n,) int64, rising: number of the context * V + the token after it. log_prob: (n,) float64.
    backoff: (c,) float64, the logarithm of the factor of the mean for tokens that are not in ``keys``.
    """

    contexts: np.ndarray
    keys: np.ndarray
    log_prob: np.ndarray
    backoff: np.ndarray


def patterns(order: int) -> list[int]:
    """All patterns as numbers whose bit d - 1 says whether distance d is kept: smaller sets first."""
    return sorted(range(1 << (order - 1)), key=lambda mask: (mask.bit_count(), mask))


def _below(mask: int, skips: bool) -> list[int]:
    """The patterns with one distance fewer; without skips only the one that lacks the oldest."""
    bits = [1 << d for d in range(mask.bit_length()) if mask >> d & 1]
    return [mask - bit for bit in (bits if skips else bits[-1:])]


class SkipModel:
    """A model of skip n-grams; it is asked what an :class:`NgramModel` is asked.

    Args:
        config: what the tables mean; its ``estimation`` says whether there are skips.
        tables: one per pattern, in the order of :func:`patterns`; without skips one per order.
    """

    def __init__(self, config: NgramConfig, tables: tuple[SkipTable, ...]):
        self.config, self.tables = config, tables
        self._masks = masks_of(config)
        self._table = dict(zip(self._masks, tables, strict=True))

    @property
    def vocab_size(self) -> int:
        """Number of ids V."""
        return self.config.vocab_size

    @property
    def width(self) -> int:
        """Tokens of context that are looked at: the order less one."""
        return self.config.order - 1

    def log_prob(self, contexts: np.ndarray, ids: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """Log-probabilities of tokens, (n,) float64 nats; see :meth:`NgramModel.log_prob`."""
        check_ids(ids, self.vocab_size)
        result = np.zeros(len(ids))
        lower = np.full(len(ids), 1 / self.vocab_size)
        for rows, level in self._levels(contexts, known, lower, ids):
            result[rows] = level[rows]
        return np.log(result)

    def distribution(self, contexts: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """Log-probabilities of every id, (n, V) float64 nats; see :meth:`NgramModel.distribution`."""
        shape = (len(contexts), self.vocab_size)
        result, lower = np.zeros(shape), np.full(shape, 1 / self.vocab_size)
        for rows, level in self._levels(contexts, known, lower, None):
            result[rows] = level[rows]
        return np.log(result)

    def _levels(
        self, contexts: np.ndarray, known: np.ndarray | None, lower: np.ndarray, ids: np.ndarray | None
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Rows with so many tokens of context, and the probabilities of all rows by the pattern of these tokens."""
        width = min(self.width, contexts.shape[1])
        counted = np.full(len(contexts), width) if known is None else np.minimum(known, width)
        back = {d: contexts[:, -d].astype(np.int64) for d in range(1, width + 1)}
        for d, tokens in back.items():
            check_ids(tokens[counted >= d], self.vocab_size)
        if self.config.sentences == "reset":
            for d, tokens in sorted(back.items(), reverse=True):  # what stands before a sentence's begin is not seen
                counted = np.where(tokens == self.config.start_id, np.minimum(counted, d), counted)
        nodes = {0: np.zeros(len(contexts), np.int64)}
        above: dict[int, np.ndarray] = {}
        for mask in self._masks:
            if mask.bit_length() > width:
                continue
            if mask:
                oldest = mask.bit_length()
                nodes[mask] = self._context(mask, nodes[mask - (1 << (oldest - 1))], back[oldest])
            parts = [above[part] for part in _below(mask, self._skips)] or [lower]
            above[mask] = self._probabilities(
                self._table[mask], nodes[mask], sum(parts[1:], parts[0]) / len(parts), ids
            )
            # what only smaller patterns need is not kept
            for part in [part for part in above if part.bit_count() < mask.bit_count() - 1]:
                del above[part]
            if mask & (mask + 1) == 0:
                yield np.flatnonzero(counted == mask.bit_count()), above[mask]

    @property
    def _skips(self) -> bool:
        return self.config.estimation is not None and self.config.estimation.skips

    def _context(self, mask: int, node: np.ndarray, tokens: np.ndarray) -> np.ndarray:
        return find(self._table[mask].contexts, np.where(node >= 0, node * self.vocab_size + tokens, -1))

    def _probabilities(
        self, table: SkipTable, node: np.ndarray, mean: np.ndarray, ids: np.ndarray | None
    ) -> np.ndarray:
        rows = np.flatnonzero(node >= 0)
        found, factor = mean.copy(), np.exp(table.backoff[node[rows]])
        if ids is not None:
            at = find(table.keys, np.where(node >= 0, node * self.vocab_size + ids, -1))
            hit = at >= 0
            found[rows] *= factor
            found[hit] = np.exp(table.log_prob[at[hit]])
            return found
        found[rows] *= factor[:, None]
        first = np.searchsorted(table.keys, node[rows] * self.vocab_size)
        size = np.searchsorted(table.keys, (node[rows] + 1) * self.vocab_size) - first
        ends = np.cumsum(size)
        at = np.arange(size.sum()) + np.repeat(first - (ends - size), size)
        found[np.repeat(rows, size), table.keys[at] % self.vocab_size] = np.exp(table.log_prob[at])
        return found


def masks_of(config: NgramConfig) -> list[int]:
    """The patterns of a model, in the order of its tables."""
    every = patterns(config.order)
    skips = config.estimation is not None and config.estimation.skips
    return every if skips else [mask for mask in every if mask & (mask + 1) == 0]


def estimate_skips(
    ids: np.ndarray,
    vocab_size: int,
    start_id: int,
    config: KneserNeyConfig | None = None,
    starts: np.ndarray | None = None,
) -> SkipModel:
    """Estimate a model from a stream of tokens; arguments as of :func:`estimate_kneser_ney`.

    Without ``config.skips`` it is that function's model in tables of this kind.

    Raises:
        UsageError: see :func:`estimate_kneser_ney`.
    """
    config = config or KneserNeyConfig(skips=True)
    form, ids, position = positions_of(ids, vocab_size, start_id, config, starts)
    form = form.model_copy(update={"estimation": config})
    size, steps = vocab_size, np.arange(len(ids))
    back = {}
    for d in range(1, form.order):
        back[d] = np.where(position >= d, ids[np.maximum(steps - d, 0)], start_id)
    whole = (1 << (form.order - 1)) - 1
    numbers: dict[int, np.ndarray] = {0: np.zeros(len(ids), np.int64)}  # per token, its context's number
    contexts = {0: np.zeros(1, np.int64)}
    grams: dict[int, tuple[np.ndarray, np.ndarray]] = {}  # per token the number of its n-gram; probability of each
    tables, discounts, fallback = [], [], []
    for place, mask in enumerate(masks_of(form), 1):
        here = np.flatnonzero(position + 1 >= mask.bit_length())
        if mask:
            oldest = mask.bit_length()
            inner = numbers[mask - (1 << (oldest - 1))][here]
            keys, number = np.unique(inner * size + back[oldest][here], return_inverse=True)
            contexts[mask], numbers[mask] = keys, np.full(len(ids), -1)
            numbers[mask][here] = number
        keys, first, number, seen = np.unique(
            numbers[mask][here] * size + ids[here], return_index=True, return_inverse=True, return_counts=True
        )
        gram = np.full(len(ids), -1)
        gram[here] = number
        count = seen if mask == whole else _fillings(gram, mask, position, back, size, len(keys))
        subtracted, estimated = find_discounts(count, config.discount)
        discounts.append(subtracted)
        if not estimated:
            fallback.append(place)
        least = config.least(mask.bit_count() + 1)
        kept = seen >= least if mask else np.ones(len(keys), bool)
        discount = np.array([0.0, *subtracted])[np.minimum(count, 3)]
        context, many = keys // size, len(contexts[mask])
        total = np.bincount(context, count, minlength=many)
        free = np.bincount(
            context, np.where(kept, discount, count) if config.dropped == "interpolate" else discount, minlength=many
        )
        gamma = free / total
        below = np.full(len(keys), 1 / size)
        if mask:
            parts = [grams[part][1][grams[part][0][here[first]]] for part in _below(mask, config.skips)]
            below = sum(parts[1:], parts[0]) / len(parts)
        own = (count - discount) / total[context]
        backoff = gamma
        if config.dropped == "backoff" and not kept.all():
            backoff = gamma + unclaimed(context, kept, own, below, many)
        prob = np.where(kept, own + gamma[context] * below, backoff[context] * below)
        grams[mask] = gram, prob
        tables.append(SkipTable(contexts[mask], keys[kept], np.log(prob[kept]), np.log(backoff)))
    found = {"discounts": tuple(discounts), "fallback": tuple(fallback)}
    return SkipModel(form.model_copy(update=found), tuple(tables))


def _fillings(
    gram: np.ndarray, mask: int, position: np.ndarray, back: dict[int, np.ndarray], size: int, many: int
) -> np.ndarray:
    """Of each n-gram how many different tokens stand at the newest free distance, and how often there is none."""
    free = (~mask & (mask + 1)).bit_length()
    there = (gram >= 0) & (position + 1 >= free)
    pairs = np.unique(gram[there] * size + back[free][there])
    alone = gram[(gram >= 0) & (position + 1 < free)]
    return np.bincount(pairs // size, minlength=many) + np.bincount(alone, minlength=many)
