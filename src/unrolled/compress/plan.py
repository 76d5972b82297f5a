"""How the tokens of a text lie in lanes, and what that takes."""

from typing import NamedTuple

import numpy as np

from unrolled.core.errors import UnrolledError

__all__ = ["MOST_LANES", "Plan", "most_lanes", "room"]

MOST_LANES = 65536
_FEW_LANES, _MOST_FREQUENCIES = 1024, 1 << 23


def most_lanes(vocab_size: int) -> int:
    """How many lanes a vocabulary allows: a step holds some five tables of lanes x V numbers of 8 bytes."""
    return min(MOST_LANES, max(_FEW_LANES, _MOST_FREQUENCIES // vocab_size))


class Plan(NamedTuple):
    """How the tokens lie in lanes: contiguous parts, the first of which may be one token longer than the others."""

    tokens: int
    lanes: int
    bits: int
    check_every: int

    @property
    def steps(self) -> int:
        """Steps of one token in every lane."""
        return -(-self.tokens // self.lanes)

    @property
    def last(self) -> int:
        """Lanes that take part in the last step."""
        return (self.tokens - 1) % self.lanes + 1

    @property
    def between(self) -> int:
        """Steps between two checksums."""
        return max(1, self.check_every // self.lanes)

    @property
    def checks(self) -> int:
        """Number of checksums."""
        return self.steps // self.between

    def active(self, step: int) -> int:
        """Lanes that take part in a step."""
        return self.last if step == self.steps - 1 else self.lanes

    def places(self, step: int) -> np.ndarray:
        """The position in the text of each lane that takes part in a step."""
        short, longer = divmod(self.tokens, self.lanes)
        lane = np.arange(self.active(step))
        return step + lane * short + np.minimum(lane, longer)


def room(plan: Plan, vocab_size: int, words: int) -> np.ndarray:
    """Zeros for the ids that ``words`` code words are decoded to.

    The system gives the memory when it is first written: what a file claims beyond its text is noticed while it is
    decoded, and costs nothing before.

    Raises:
        UnrolledError: no text has so many tokens in so few words, as the likeliest token has a frequency of
            2^bits - V + 1 at most; more lanes than a vocabulary allows; more tokens than can be addressed.
    """
    least = -np.log2(1 - (vocab_size - 1) / 2**plan.bits)  # bits of a token
    if plan.tokens * least > 32 * words + 64 or plan.lanes > most_lanes(vocab_size):
        raise UnrolledError("the compressed file is damaged (its header does not fit its text); copy it again.")
    try:
        return np.zeros(plan.tokens, np.int64)
    except (MemoryError, ValueError) as error:
        raise UnrolledError(
            f"the text has {plan.tokens:,} tokens, more than fit the memory; decompress it on a larger machine."
        ) from error
