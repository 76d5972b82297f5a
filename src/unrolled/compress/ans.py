"""Asymmetric numeral systems over parallel lanes: ids with integer frequencies to 32-bit words, and back.

The coder is our own because the tables must be exactly ours. The package constriction, the obvious choice, takes the
probabilities of a categorical model as floats (0.5.0: ``Categorical(perfect=...)``) and makes its own integers from
them, by a rule that its releases have changed; there is no way to hand it integer weights for every symbol.

A lane's state x is an integer in [2^31, 2^63). To code an id with frequency f and interval start b, of a total 2^n,
x becomes (x // f) 2^n + b + x mod f, so log2 x grows by the id's n - log2 f bits; where x would leave its range, its
low 32 bits are written first. Decoding undoes this: x mod 2^n lies in the interval of the id. (Duda 2009, 2013.)
What is coded last is decoded first, hence the encoder runs backwards over a text whose tables are known.

All lanes step together and share one sequence of words: the decoder finds out itself which lanes take one, in
the order of the lanes (Giesen 2014). A lane costs its final state, 8 bytes, of which up to 4 carry text.
"""

from typing import NamedTuple

import numpy as np

__all__ = ["Coded", "Decoder", "encode"]

_LOW, _TOP, _WORD = 1 << 31, 63, 32


class Coded(NamedTuple):
    """states: (lanes,) int64, where decoding begins. words: (n,) uint32, in the order of decoding."""

    states: np.ndarray
    words: np.ndarray


def encode(starts: np.ndarray, lengths: np.ndarray, last: int, bits: int) -> Coded:
    """Code the intervals of a text.

    Args:
        starts, lengths: (steps, lanes) of each id's interval, see :func:`frequencies.intervals`.
        last: how many lanes, from the first, take part in the last step; all take part in the others.
        bits: log2 of the total of the tables.
    """
    steps, lanes = starts.shape
    states = np.full(lanes, _LOW, np.int64)
    written: list[np.ndarray] = []
    for step in range(steps - 1, -1, -1):
        active = last if step == steps - 1 else lanes
        x, length = states[:active], lengths[step, :active].astype(np.int64)
        full = (x >> (_TOP - bits)) >= length
        if full.any():
            written.append(x[full].astype(np.uint32)[::-1])  # keeps the low 32 bits
            x = np.where(full, x >> _WORD, x)
        quotient, rest = np.divmod(x, length)
        states[:active] = (quotient << bits) + starts[step, :active].astype(np.int64) + rest
    words = np.concatenate(written)[::-1] if written else np.zeros(0, np.uint32)
    return Coded(states, words)


class Decoder:
    """Gives back, step by step, the ids that :func:`encode` coded.

    Args:
        coded: what it returned. bits: as there.
    """

    def __init__(self, coded: Coded, bits: int):
        self._states, self._words, self._bits = coded.states.copy(), coded.words, bits
        self._next = 0

    def step(self, table: np.ndarray) -> np.ndarray | None:
        """The next id of each of the first lanes.

        Args:
            table: (lanes that take part, V), the same as when encoding.
        Returns:
            (lanes that take part,) int64, or None where there are no words left, as happens with other tables.
        """
        x = self._states[: len(table)]
        slot = x & ((1 << self._bits) - 1)
        rows, ends = np.arange(len(table)), table.cumsum(1)
        ids = (ends <= slot[:, None]).sum(1)
        lengths = table[rows, ids]
        x = lengths * (x >> self._bits) + slot - (ends[rows, ids] - lengths)
        short = x < _LOW
        count = int(short.sum())
        if count:
            words = self._words[self._next : self._next + count]
            if len(words) < count:
                return None
            self._next += count
            x[short] = x[short] << _WORD | words
        self._states[: len(table)] = x
        return ids

    def finished(self) -> bool:
        """Whether every word was used and every lane is back where encoding began."""
        return self._next == len(self._words) and bool((self._states == _LOW).all())
