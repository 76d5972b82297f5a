"""BM25: which documents have the words of a query."""

import math
import re
from collections import Counter, defaultdict
from collections.abc import Sequence

import numpy as np

__all__ = ["BM25", "words_of"]

_WORD = re.compile(r"\w+")
_K1, _B = 1.5, 0.75


def words_of(text: str) -> list[str]:
    """The runs of letters and digits, in small letters."""
    return _WORD.findall(text.lower())


class BM25:
    r"""Scores of documents for a query (Robertson and Zaragoza 2009, with k1 = 1.5 and b = 0.75).

    .. math::
        s(d, x) = \sum_{w \in x} \ln\Bigl(1 + \frac{N - n_w + 0.5}{n_w + 0.5}\Bigr)
            \frac{f_{w,d} \, (k_1 + 1)}{f_{w,d} + k_1 (1 - b + b \, |d| / \overline{|d|})}

    with f the count of the word w in d and n the number of documents that have it; a word counts as often as the query
    has it.

    Args:
        documents: their words.
    """

    def __init__(self, documents: Sequence[Sequence[str]]):
        self.count = len(documents)
        lengths = np.array([len(words) for words in documents], np.float64)
        mean = float(lengths.mean()) if self.count and lengths.any() else 1.0
        self._long = _K1 * (1 - _B + _B * lengths / mean)
        found: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for index, words in enumerate(documents):
            for word, times in Counter(words).items():
                found[word].append((index, times))
        self._found = {word: np.array(places, np.int64).T for word, places in found.items()}

    def scores(self, query: Sequence[str]) -> np.ndarray:
        """s(d, x) of every document, (documents,) float64."""
        total = np.zeros(self.count)
        for word, times in Counter(query).items():
            if word in self._found:
                places, counts = self._found[word]
                rare = math.log(1 + (self.count - len(places) + 0.5) / (len(places) + 0.5))
                total[places] += times * rare * counts * (_K1 + 1) / (counts + self._long[places])
        return total
