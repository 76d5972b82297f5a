"""A source of known probabilities, and the language model of its tokens that is exact."""

import itertools
import math
from collections import defaultdict
from collections.abc import Callable

import torch
from torch import Tensor

from unrolled.predict import Prediction, Predictor

__all__ = ["FIRST", "MOVES", "TableLM", "chance", "texts"]

MOVES = {"A": {"A": 0.6, "B": 0.4}, "B": {"A": 0.3, "B": 0.7}}
FIRST = {"A": 0.5, "B": 0.5}


def chance(text: str) -> float:
    """The probability of a text that begins so."""
    found = FIRST[text[0]] if text else 1.0
    for one, other in itertools.pairwise(text):
        found *= MOVES[one][other]
    return found


def texts(length: int) -> list[str]:
    """All texts of a length."""
    return ["".join(one) for one in itertools.product("AB", repeat=length)]


class TableLM(Predictor):
    """The exact probabilities of the tokens of texts of 12 symbols; after the last token nothing is likely.

    Args:
        encode: text to ids. size: of the vocabulary.
    """

    gives_hidden = False

    def __init__(self, encode: Callable[[str], list[int]], size: int):
        self.vocab_size, self.start_id = size, 0
        mass: dict[tuple[int, ...], float] = defaultdict(float)
        for text in texts(12):
            ids = tuple(encode(text))
            for stop in range(len(ids) + 1):
                mass[ids[:stop]] += chance(text)
        names = list(mass)
        self.places = {ids: place for place, ids in enumerate(names)}
        self.rows = torch.full((len(names) + 1, size), -math.inf, dtype=torch.float64)
        self.after = torch.full((len(names) + 1, size), len(names))
        for ids, place in self.places.items():
            if ids:
                before = self.places[ids[:-1]]
                self.rows[before, ids[-1]] = math.log(mass[ids] / mass[ids[:-1]])
                self.after[before, ids[-1]] = place
        self.read = 0

    def begin(self, batch: int, first: Tensor | None = None) -> Tensor:
        """(batch, 1) the row of the table."""
        return torch.full((batch, 1), self.places[()])

    def predict(self, state: Tensor) -> Prediction:
        """The row."""
        return Prediction(self.rows[state[:, 0]], None)

    def observe(self, state: Tensor, ids: Tensor) -> Tensor:
        """The next row."""
        self.read += len(ids)
        return self.after[state[:, 0], ids].unsqueeze(1)
