"""Integer frequencies from log-probabilities: what the coder works with, and all that both sides must agree on."""

import numpy as np
from torch import Tensor

from unrolled.core.errors import UnrolledError

__all__ = ["intervals", "quantise", "total_bits"]


def total_bits(vocab_size: int) -> int:
    """log2 of the total of a table: 24, and more from 4,096 ids on, at most 30.

    Every id has at least 1, which costs log2(total / (total - V)) bits a token: below 0.0004 up to a million ids.
    """
    return min(max(24, vocab_size.bit_length() + 12), 30)


def quantise(log_prob: Tensor, bits: int) -> np.ndarray:
    """Frequencies of each row: integers of at least 1 with the sum 2^bits.

    The rule: float64 probabilities that sum to 1, times 2^bits - V, rounded down, plus 1; what is missing to the
    sum goes to the largest frequency, and among equals to the lowest id. Rounding down cannot exceed the sum:
    the floors add up to an integer, and float64 is wrong by far less than 1 at 2^30. So equal log-probabilities
    give equal tables, whatever ties there are.

    Log-probabilities are not rounded to a grid first. Where two machines differ by 1e-7, some of millions of values
    lie next to an edge of any grid that still tells probabilities apart, and one is enough to lose the rest of the
    text. Agreement is verified (:mod:`unrolled.compress.agreement`), not hoped for.

    Args:
        log_prob: (rows, V) nats, of any float type; their exponentials need not sum to exactly 1, and minus
            infinity is allowed.
    Returns:
        (rows, V) int64.
    Raises:
        UnrolledError: a row holds NaN, plus infinity, or nothing above minus infinity.
    """
    nats = log_prob.detach().double().cpu().numpy()
    largest = nats.max(1, keepdims=True)
    if not np.isfinite(largest).all():  # the largest of a row with NaN is NaN
        raise UnrolledError("the model gives no finite probabilities; its weights are damaged or diverged.")
    share = np.exp(nats - largest)
    share *= ((1 << bits) - nats.shape[1]) / share.sum(1, keepdims=True)
    table = share.astype(np.int64) + 1
    table[np.arange(len(table)), table.argmax(1)] += (1 << bits) - table.sum(1)
    return table


def intervals(table: np.ndarray, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where the interval of each row's id begins in 0..2^bits-1, and its length: two (rows,) int64 arrays."""
    rows = np.arange(len(ids))
    lengths = table[rows, ids]
    return table.cumsum(1)[rows, ids] - lengths, lengths
