"""Asymmetric numeral systems: ids with integer frequencies to 32-bit words, and back.

The coder is our own because the tables must be exactly ours. The package constriction, the obvious choice, takes the
probabilities of a categorical model as floats (0.5.0: ``Categorical(perfect=...)``) and makes its own integers from
them, by a rule that its releases have changed; there is no way to hand it integer weights for every symbol.

The state x is an integer in [2^32, 2^64). To code an id with frequency f and interval start b, of a total 2^n, x
becomes (x // f) 2^n + b + x mod f, so log2 x grows by the id's n - log2 f bits; where x would leave its range, its low
32 bits are written first. Decoding undoes this: x mod 2^n lies in the interval of the id. (Duda 2009, 2013.) What is
coded last is decoded first, hence the encoder runs backwards over a text whose tables are known.

All lanes share one state, in the order step by step, lane by lane. With a state for each lane the arithmetic could be
done for all of them at once, but a lane would cost 6 bytes: more than it costs a small LSTM to begin without a past. A
token takes 0.5 us to code and 2.5 us to decode, a tenth of what the smallest useful models take to predict one.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["Coded", "Decoder", "encode"]

_LOW, _TOP, _WORD = 1 << 32, 64, 32
_BLOCK = 1 << 16


class Coded(NamedTuple):
    """state: where decoding begins, below 2^64. words: (n,) uint32, in the order of decoding."""

    state: int
    words: np.ndarray


def encode(starts: np.ndarray, lengths: np.ndarray, bits: int) -> Coded:
    """Code a text.

    Args:
        starts, lengths: (tokens,) intervals of the ids in the order of decoding, see :func:`frequencies.intervals`.
        bits: log2 of the total of the tables.
    """
    x, shift, words = _LOW, _TOP - bits, list[int]()
    for high in range(len(starts), 0, -_BLOCK):  # Python integers take 10 times the memory of the arrays
        now = slice(max(high - _BLOCK, 0), high)
        for start, length in zip(starts[now][::-1].tolist(), lengths[now][::-1].tolist(), strict=True):
            if x >> shift >= length:
                words.append(x & 0xFFFFFFFF)
                x >>= _WORD
            x = (x // length << bits) + start + x % length
    return Coded(x, np.array(words[::-1], np.uint32))


class Decoder:
    """Gives back, in their order, the ids that :func:`encode` coded.

    Args:
        coded: what it returned. bits: as there.
    """

    def __init__(self, coded: Coded, bits: int):
        self._x, self._words, self._bits = coded.state, coded.words, bits
        self._next = 0

    def take(self, table: np.ndarray) -> np.ndarray | None:
        """The next ids, one for each row.

        Args:
            table: (rows, V) frequencies, the same as when encoding.
        Returns:
            (rows,) int64, or None where there are no words left, as happens with other tables.
        """
        x, bits, mask = self._x, self._bits, (1 << self._bits) - 1
        ids = np.zeros(len(table), np.int64)
        for row, (lengths, ends) in enumerate(zip(table, table.cumsum(1), strict=True)):
            slot = x & mask
            ids[row] = found = int(ends.searchsorted(slot, "right"))
            length = int(lengths[found])
            x = length * (x >> bits) + slot - int(ends[found]) + length
            if x < _LOW:
                if self._next == len(self._words):
                    return None
                x = x << _WORD | int(self._words[self._next])
                self._next += 1
        self._x = x
        return ids

    def finished(self) -> bool:
        """Whether every word was used and the state is back where encoding began."""
        return self._next == len(self._words) and self._x == _LOW
