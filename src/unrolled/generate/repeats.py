"""How much a text repeats itself."""

from collections.abc import Sequence

__all__ = ["repeated", "repeats"]

_LENGTHS = (1, 2, 3, 4)


def repeated(tokens: Sequence[int], n: int) -> float | None:
    """repeat-n: the share of a text's n-grams that occurred in it before; None for a text shorter than n.

    That is 1 minus the number of distinct n-grams over that of all (Jiang et al. 2020; Welleck et al. 2020).

    Args:
        tokens: ids of one text. n: length of an n-gram, at least 1.
    """
    grams = [tuple(tokens[start : start + n]) for start in range(len(tokens) - n + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else None


def repeats(tokens: Sequence[int]) -> dict[str, float | None]:
    """:func:`repeated` for n = 1 to 4, by n, as JSON values."""
    return {str(n): repeated(tokens, n) for n in _LENGTHS}
