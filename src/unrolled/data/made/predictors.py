"""Exact predictions of sources: fast for many rows, and by their definitions in plain Python for one."""

import math
from collections.abc import Sequence

import numpy as np

__all__ = [
    "backward_evidence",
    "forward",
    "partition_evidence",
    "partition_tree",
    "renewal_evidence",
    "run_lengths",
    "segment_evidence",
]


def run_lengths(x: np.ndarray, kinds: int, hazard: np.ndarray) -> np.ndarray:
    """Predictions for a source whose segments end by a hazard; cost per symbol in proportion to those before.

    Args:
        x: (rows, time) symbols below ``kinds``. hazard: (time - 1,), after 1, 2, ... symbols of a segment.
    Returns:
        (rows, time, kinds) probabilities of each symbol before it is read.
    """
    rows, time = x.shape
    # a component is the place where the segment under way may have begun
    weight, counts = np.zeros((rows, time)), np.full((rows, time, kinds), 0.5)
    found, each = np.zeros((rows, time, kinds)), np.arange(rows)
    weight[:, 0] = 1
    for t in range(time):
        if t:
            ends = hazard[np.arange(t, 0, -1) - 1]
            weight[:, t] = (weight[:, :t] * ends).sum(1)
            weight[:, :t] *= 1 - ends
        size = np.arange(t, -1, -1) + kinds / 2
        found[:, t] = np.einsum("rc,rck->rk", weight[:, : t + 1] / size, counts[:, : t + 1])
        weight[:, : t + 1] *= counts[each, : t + 1, x[:, t]] / size
        weight[:, : t + 1] /= weight[:, : t + 1].sum(1, keepdims=True)
        counts[each, : t + 1, x[:, t]] += 1
    return found


def partition_tree(x: np.ndarray, kinds: int, depth: int) -> np.ndarray:
    """Predictions by partition tree weighting (Veness et al. 2013); cost per symbol in proportion to ``depth``.

    Args:
        x: (rows, time), time at most 2^depth.
    Returns:
        (rows, time, kinds) probabilities of each symbol before it is read.
    """
    rows, time = x.shape
    found, each = np.zeros((rows, time, kinds)), np.arange(rows)
    # of the stretch of each size that is being read: counts, nats of it as one segment, and nats of its left half
    counts, one = np.full((depth + 1, rows, kinds), 0.5), np.zeros((depth + 1, rows))
    left, whole = np.zeros((depth + 1, rows)), np.zeros((depth + 1, rows))
    for t in range(time):
        for level in range(depth + 1):
            if t % (1 << level) == 0:
                counts[level], one[level], left[level] = 0.5, 0.0, 0.0
            elif t % (1 << level) == 1 << (level - 1):
                left[level] = whole[level - 1]
        shares = counts / counts.sum(2, keepdims=True)
        after = one[:, :, None] + np.log(shares)
        mixed = [after[0]]
        for level in range(1, depth + 1):
            mixed.append(np.logaddexp(after[level], left[level][:, None] + mixed[-1]) - math.log(2))
        top = mixed[-1] - mixed[-1].max(1, keepdims=True)
        found[:, t] = np.exp(top) / np.exp(top).sum(1, keepdims=True)
        for level in range(depth + 1):
            one[level], whole[level] = after[level][each, x[:, t]], mixed[level][each, x[:, t]]
            counts[level, each, x[:, t]] += 1
    return found


def forward(x: np.ndarray, moves: np.ndarray, emit: np.ndarray) -> np.ndarray:
    """Predictions of a hidden Markov source that begins in any state.

    Args:
        x: (rows, time). moves: (states, states) and emit: (states, kinds), rows sum to 1.
    Returns:
        (rows, time, kinds) probabilities of each symbol before it is read.
    """
    belief, found = np.full((len(x), len(moves)), 1 / len(moves)), np.zeros((*x.shape, emit.shape[1]))
    for t in range(x.shape[1]):
        found[:, t] = belief @ emit
        belief = belief * emit[:, x[:, t]].T
        belief = belief / belief.sum(1, keepdims=True) @ moves
    return found


def segment_evidence(x: Sequence[int], kinds: int) -> float:
    """Probability of symbols whose probabilities are drawn from Dirichlet(1/2), by gamma functions."""
    log = math.lgamma(kinds / 2) - math.lgamma(len(x) + kinds / 2)
    for symbol in set(x):
        log += math.lgamma(x.count(symbol) + 0.5) - math.lgamma(0.5)
    return math.exp(log)


def renewal_evidence(x: list[int], kinds: int, hazard: Sequence[float]) -> float:
    """Probability of symbols of a switching source: a sum over the last switch, again and again."""
    began = [1.0]  # that of the symbols before a place, and of a segment that begins there
    for end in range(1, len(x) + 1):
        lasts = 0.0
        for begin in range(end):
            size = end - begin
            lives = math.prod(1 - hazard[n - 1] for n in range(1, size))
            part = began[begin] * segment_evidence(x[begin:end], kinds) * lives
            lasts += part if end == len(x) else part * hazard[size - 1]
        began.append(lasts)
    return began[-1]


def partition_evidence(x: list[int], kinds: int, depth: int) -> float:
    """Probability of symbols under partition tree weighting, by its recursive definition."""
    if not x:
        return 1.0
    if depth == 0:
        return segment_evidence(x, kinds)
    half = 1 << (depth - 1)
    split = partition_evidence(x[:half], kinds, depth - 1) * partition_evidence(x[half:], kinds, depth - 1)
    return (segment_evidence(x, kinds) + split) / 2


def backward_evidence(x: list[int], moves: list[list[float]], emit: list[list[float]]) -> float:
    """Probability of symbols of a hidden Markov source that begins in any state, from the last symbol to the first."""
    states, after = range(len(moves)), [1.0] * len(moves)
    inner = after
    for symbol in reversed(x):
        inner = [emit[state][symbol] * after[state] for state in states]
        # before the first symbol there is no move
        after = [sum(moves[state][to] * inner[to] for to in states) for state in states]
    return sum(inner) / len(moves)
