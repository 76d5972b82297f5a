r"""Interpolated Kneser-Ney estimation (Kneser and Ney 1995; Chen and Goodman 1998, "modified").

.. math::
    p(w|h) = \frac{c(hw) - D(c(hw))}{\sum_v c(hv)} + \gamma(h)\, p(w|h'),
    \qquad \gamma(h) = \frac{\sum_v D(c(hv))}{\sum_v c(hv)}

h' is h without its oldest token; below order 1 stands the uniform 1/V, so that every id has a probability. c is
the count in the text at the highest order. At a lower order it is the number of different tokens that precede the
n-gram, plus the number of its occurrences at the begin of a text, which nothing precedes (SRILM and KenLM take
the plain count of n-grams that begin with ``<s>``, which is the same).

An n-gram that the text holds less often than ``prune`` asks for is dropped after counting, at every order by its
count in the text, and discounts are those of all n-grams (as by ``lmplz --prune``, which names the highest count
that is dropped; SRILM's ``-gtNmin`` names the lowest that is kept).
With ``dropped = interpolate`` the sum over D in gamma takes the whole count of a dropped n-gram (lmplz). With
``backoff`` gamma stays as it is, and what the kept n-grams leave is shared by all other tokens (SRILM):

.. math::
    p(w|h) = \frac{1 - \sum_{v\,kept} p(v|h)}{1 - \sum_{v\,kept} p(v|h')}\, p(w|h') \quad (hw \text{ not kept})
"""

from typing import NamedTuple

import numpy as np

from unrolled.core.errors import UsageError
from unrolled.counts.config import KneserNeyConfig, NgramConfig
from unrolled.counts.ngrams import NgramModel, Table, check_ids, text_begins

__all__ = ["estimate_kneser_ney", "find_discounts", "positions_of", "unclaimed"]

_FALLBACK = {"modified": (0.5, 1.0, 1.5), "single": (0.5, 0.5, 0.5)}


class _Level(NamedTuple):
    """The n-grams of one order, before pruning.

    keys: (n,) see ``ngrams``. suffix: (n,) the number of each without its first token, one order below.
    seen: (n,) occurrences. alone: (n,) those that no token precedes.
    """

    keys: np.ndarray
    suffix: np.ndarray
    seen: np.ndarray
    alone: np.ndarray


def estimate_kneser_ney(
    ids: np.ndarray,
    vocab_size: int,
    start_id: int,
    config: KneserNeyConfig | None = None,
    starts: np.ndarray | None = None,
) -> NgramModel:
    """Estimate a model from a stream of tokens.

    Args:
        ids: (n,) integers, n >= 1.
        vocab_size: number of ids V, unseen ones included.
        start_id: the end symbol of a sentence; it also stands before the first token of each text.
        config: see :class:`KneserNeyConfig`.
        starts: positions at which a text begins; None: the stream is one text. Contexts never reach back
            beyond a text's begin.
    Raises:
        UsageError: ids outside the vocabulary, no ids, starts out of order, too many n-grams for 64 bits.
    """
    config = config or KneserNeyConfig()
    if config.skips:
        raise UsageError("skip n-grams have tables of their own; see estimate_skips.")
    form, ids, position = positions_of(ids, vocab_size, start_id, config, starts)
    levels = _count(ids, position, form)
    return _smooth(levels, form, config)


def positions_of(
    ids: np.ndarray, vocab_size: int, start_id: int, config: KneserNeyConfig, starts: np.ndarray | None
) -> tuple[NgramConfig, np.ndarray, np.ndarray]:
    """What is to be counted: the form of the tables, the ids as int64, and of each its place in its sentence or text.

    Arguments and errors as of :func:`estimate_kneser_ney`.
    """
    form = NgramConfig.parse(
        {"order": config.order, "vocab_size": vocab_size, "start_id": start_id, "sentences": config.sentences}
    )
    ids = np.asarray(ids)
    check_ids(ids, vocab_size)
    if not len(ids):
        raise UsageError("there is no token to count; give a text.")
    if max(vocab_size, len(ids)) * vocab_size >= 2**63:
        raise UsageError(
            "the n-grams of this text may be too many to be numbered in 64 bits; use a smaller vocabulary."
        )
    begins = np.zeros(len(ids), bool)
    begins[0] = True
    begins[text_begins(starts, len(ids))] = True
    if config.sentences == "reset":
        begins[1:] |= ids[:-1] == start_id
    steps = np.arange(len(ids))
    return form, ids.astype(np.int64), steps - np.maximum.accumulate(np.where(begins, steps, 0))


def _count(ids: np.ndarray, position: np.ndarray, form: NgramConfig) -> list[_Level]:
    """The n-grams of every order that end at a token of the text."""
    size = form.vocab_size
    seen = np.bincount(ids, minlength=size)
    nothing = np.zeros(size, np.int64)
    levels = [_Level(np.arange(size), nothing, seen, nothing)]
    gram = ids  # per token, the number of the n-gram that ends with it, at the order below
    for order in range(2, form.order + 1):
        # The start symbol counts as a token before the first of a text, and so as its context of one token.
        here = np.flatnonzero(position >= order - 2)
        context = np.concatenate([ids[:1], gram[:-1]])
        context[position == 0] = form.start_id
        keys, first, number, seen = np.unique(
            context[here] * size + ids[here], return_index=True, return_inverse=True, return_counts=True
        )
        alone = np.bincount(number[position[here] == order - 2], minlength=len(keys))
        levels.append(_Level(keys, gram[here[first]], seen, alone))
        gram = np.full(len(ids), -1)
        gram[here] = number
    return levels


def _smooth(levels: list[_Level], form: NgramConfig, config: KneserNeyConfig) -> NgramModel:
    """Probabilities and backoff factors, order by order from below; see the module's equation."""
    size = form.vocab_size
    tables: list[Table] = []
    discounts, fallback = [], []
    lower = np.full(1, 1 / size)  # probabilities one order below
    kept_lower = np.ones(1, bool)
    for order, level in enumerate(levels, start=1):
        count = level.seen
        if order < form.order:
            above = levels[order]
            count = level.alone + np.bincount(above.suffix, minlength=len(level.keys))
        subtracted, estimated = find_discounts(count, config.discount)
        discounts.append(subtracted)
        if not estimated:
            fallback.append(order)
        kept = level.seen >= config.least(order) if order > 1 else np.ones(size, bool)
        discount = np.array([0.0, *subtracted])[np.minimum(count, 3)]
        context = level.keys // size  # 0, the empty context, for all of order 1
        total = np.bincount(context, count, minlength=len(lower))
        lost = np.where(kept, discount, count) if config.dropped == "interpolate" else discount
        free = np.bincount(context, lost, minlength=len(lower))
        gamma = np.divide(free, total, out=np.ones(len(lower)), where=total > 0)
        below = lower[level.suffix]
        own = (count - discount) / total[context]
        backoff = gamma
        if config.dropped == "backoff" and not kept.all():
            backoff = gamma + unclaimed(context, kept, own, below, len(lower))
        prob = np.where(kept, own + gamma[context] * below, backoff[context] * below)
        if tables:
            tables[-1] = tables[-1]._replace(backoff=np.log(backoff[kept_lower]))
        number = np.cumsum(kept_lower) - 1  # of the contexts, after pruning
        keys = number[context[kept]] * size + level.keys[kept] % size
        tables.append(Table(keys, np.log(prob[kept]), np.zeros(0)))
        lower, kept_lower = prob, kept
    found = {"estimation": config, "discounts": tuple(discounts), "fallback": tuple(fallback)}
    return NgramModel(form.model_copy(update=found), tuple(tables))


def unclaimed(context: np.ndarray, kept: np.ndarray, own: np.ndarray, below: np.ndarray, contexts: int) -> np.ndarray:
    """What gamma lacks to the factor of the equation for ``dropped = backoff``, (contexts,).

    1 - sum of the kept p(v|h) is gamma (1 - sum of the kept p(v|h')) + the dropped n-grams' own share: in this
    form nothing cancels.

    Args:
        context: (n,) of each n-gram. kept: (n,). own: (n,) (c - D) / total. below: (n,) p(w|h').
    """
    share = np.bincount(context, np.where(kept, 0, own), minlength=contexts)
    rest = 1 - np.bincount(context, np.where(kept, below, 0), minlength=contexts)
    # Where the kept n-grams hold nearly all of p(.|h'), the dropped ones are at least there.
    rest = np.maximum(rest, np.bincount(context, np.where(kept, 0, below), minlength=contexts))
    return np.divide(share, rest, out=np.zeros(contexts), where=share > 0)


def find_discounts(count: np.ndarray, kind: str) -> tuple[tuple[float, float, float], bool]:
    """What is subtracted from a count of 1, 2, 3 or more, and whether the counts of counts gave it.

    n_r is the number of n-grams of count r, Y = n_1 / (n_1 + 2 n_2). single: D = Y. modified:
    D_r = r - (r + 1) Y n_{r+1} / n_r (Chen and Goodman 1998, equation 26). Where an n_r that the formula
    needs is zero or a D_r is not in (0, r], as in tiny texts, all three are 1/2, 1, 3/2 (lmplz's
    ``--discount_fallback``); a single discount is 1/2 then.
    """
    n = np.bincount(np.minimum(count, 5), minlength=6)[:5].tolist()
    needed = n[1:5] if kind == "modified" else n[1:3]
    if min(needed) == 0:
        return _FALLBACK[kind], False
    y = n[1] / (n[1] + 2 * n[2])
    if kind == "single":
        return (y, y, y), True
    one, two, three = (r - (r + 1) * y * n[r + 1] / n[r] for r in (1, 2, 3))
    if 0 < one <= 1 and 0 < two <= 2 and 0 < three <= 3:
        return (one, two, three), True
    return _FALLBACK[kind], False
