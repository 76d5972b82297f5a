"""N-gram tables and what is asked of them: log-probabilities in backoff form.

The n-grams of order k are numbered 0, 1, ... in the order of their keys, and the key of an n-gram is
``number of its first k - 1 tokens among those of order k - 1  *  V  +  its last token``. So the n-grams that
continue one context lie side by side, keys fit 64 bits at any order, and the tables form a trie.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from unrolled.core.errors import UsageError
from unrolled.counts.config import NgramConfig
from unrolled.counts.contexts import Recent, begin, slide

__all__ = ["NgramModel", "Table", "check_ids", "text_begins"]

_BLOCK = 1 << 18


class Table(NamedTuple):
    """The n-grams of one order.

    keys: (n,) int64, rising. log_prob: (n,) float64, nats of the last token after the others. backoff: (n,)
    float64, the logarithm of the factor for tokens that do not follow this n-gram; none in the highest order.
    """

    keys: np.ndarray
    log_prob: np.ndarray
    backoff: np.ndarray


class NgramModel:
    r"""A language model of n-gram tables (Katz's backoff form, also of interpolated models).

    .. math::
        \log p(w|h) = \begin{cases} \log p_{table}(hw) & hw \text{ in the tables} \\
        b(h) + \log p(w|h') & \text{otherwise} \end{cases}

    with h' the context without its oldest token and b(h) = 0 where h is not in the tables. All V ids are in the
    table of order 1. ``start_id`` is both the end of a sentence, where it is predicted, and what stands before
    the first token of a text, where it opens a context. Where ``sentences`` is ``reset`` no n-gram runs across it,
    so that a context that does matches only from its last ``start_id`` on.

    Args:
        config: what the tables mean.
        tables: one per order.
    """

    def __init__(self, config: NgramConfig, tables: tuple[Table, ...]):
        self.config = config
        self.tables = tables

    @property
    def vocab_size(self) -> int:
        """Number of ids V."""
        return self.config.vocab_size

    @property
    def width(self) -> int:
        """Tokens of context that are looked at: the order less one."""
        return self.config.order - 1

    def log_prob(self, contexts: np.ndarray, ids: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """Log-probabilities of tokens, (n,) float64 nats.

        Args:
            contexts: (n, any) ids, the newest last; only the last ``width`` are read.
            ids: (n,) the tokens.
            known: (n,) how many of the last columns of ``contexts`` count; default: all.
        Raises:
            UsageError: an id outside the vocabulary.
        """
        check_ids(ids, self.vocab_size)
        result = self.tables[0].log_prob[ids]
        for order, node in self._nodes(contexts, known):
            found = self._child(order + 1, node, ids)
            seen, hit = np.flatnonzero(node >= 0), np.flatnonzero(found >= 0)
            result[seen] += self.tables[order - 1].backoff[node[seen]]
            result[hit] = self.tables[order].log_prob[found[hit]]
        return result

    def distribution(self, contexts: np.ndarray, known: np.ndarray | None = None) -> np.ndarray:
        """Log-probabilities of every id, (n, V) float64 nats; arguments as of :meth:`log_prob`."""
        result = np.repeat(self.tables[0].log_prob[None], len(contexts), 0)
        for order, node in self._nodes(contexts, known):
            rows = np.flatnonzero(node >= 0)
            result[rows] += self.tables[order - 1].backoff[node[rows], None]
            keys, log_prob, _ = self.tables[order]
            first = np.searchsorted(keys, node[rows] * self.vocab_size)
            size = np.searchsorted(keys, (node[rows] + 1) * self.vocab_size) - first
            # Per row the numbers first, first + 1, ..., first + size - 1, all rows in one array.
            ends = np.cumsum(size)
            found = np.arange(size.sum()) + np.repeat(first - (ends - size), size)
            result[np.repeat(rows, size), keys[found] % self.vocab_size] = log_prob[found]
        return result

    def score(
        self, ids: np.ndarray, starts: np.ndarray | None = None, recent: Recent | None = None
    ) -> tuple[np.ndarray, Recent]:
        """Log-probability of every token of a stream, each after those before it.

        Args:
            ids: (n,). starts: rising positions at which a text begins (``start_id`` stands before it).
            recent: what was read before, as this method returns it; default: ``start_id``.
        Returns:
            (n,) float64 nats, and what the next part of the stream continues.
        """
        check_ids(ids, self.vocab_size)
        flags = np.zeros(len(ids), bool)
        flags[text_begins(starts, len(ids))] = True
        if recent is None:
            recent = begin(np.array([self.config.start_id]), self.width)
        parts = [np.zeros(0)]
        for low in range(0, len(ids), _BLOCK):
            block = np.asarray(ids[low : low + _BLOCK], np.int64)
            contexts = slide(recent, block[None], flags[None, low : low + _BLOCK], self.config.start_id)
            parts.append(self.log_prob(contexts.ids[0], block, contexts.known[0]))
            recent = contexts.after
        return np.concatenate(parts), recent

    def _nodes(self, contexts: np.ndarray, known: np.ndarray | None) -> Iterator[tuple[int, np.ndarray]]:
        """Per order 1, 2, ... of contexts: their numbers in that table, -1 where there is none."""
        width = contexts.shape[1]
        counted = np.full(len(contexts), width) if known is None else np.minimum(known, width)
        for order in range(1, min(self.width, width) + 1):
            rows = np.flatnonzero(counted >= order)
            used = contexts[rows, width - order :]
            check_ids(used, self.vocab_size)
            node = np.full(len(contexts), -1)
            inner = used[:, 0].astype(np.int64)  # keys overflow smaller types
            for length in range(2, order + 1):
                inner = self._child(length, inner, used[:, length - 1])
            node[rows] = inner
            yield order, node

    def _child(self, order: int, node: np.ndarray, ids: np.ndarray) -> np.ndarray:
        """The numbers of the n-grams of ``order`` that continue ``node`` by ``ids``, -1 where there is none."""
        return find(self.tables[order - 1].keys, np.where(node >= 0, node * self.vocab_size + ids, -1))


def find(keys: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Positions in rising ``keys``, -1 where absent."""
    if not len(keys):
        return np.full(len(wanted), -1)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return np.where(keys[at] == wanted, at, -1)


def check_ids(ids: np.ndarray, vocab_size: int) -> None:
    """Raises UsageError unless ``ids`` are integers from 0 to ``vocab_size`` - 1."""
    if not np.issubdtype(ids.dtype, np.integer):
        raise UsageError(f"token ids are integers, not {ids.dtype}; encode the text with a tokenizer.")
    if ids.size and not 0 <= ids.min() <= ids.max() < vocab_size:
        odd = ids.min() if ids.min() < 0 else ids.max()
        raise UsageError(f"token id {odd} is outside the vocabulary of {vocab_size}; use the tokenizer of the model.")


def text_begins(starts: np.ndarray | None, length: int) -> np.ndarray:
    """``starts`` as int64. Raises UsageError unless they rise and lie within a stream of ``length`` tokens."""
    begins = np.zeros(0, np.int64) if starts is None else np.asarray(starts, np.int64)
    if len(begins) and not (begins[0] >= 0 and begins[-1] < length and bool((np.diff(begins) > 0).all())):
        raise UsageError(f"starts are rising positions from 0 to {length - 1}; give each text's first position once.")
    return begins
