"""The distribution of a number that a model writes, and one number for it."""

from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.tree import repeat_rows
from unrolled.predict import Predictor
from unrolled.tokenizer.number import NumberTokenizer

__all__ = ["Cells", "number_cells", "point"]

_MOST = 1 << 16


class Cells(NamedTuple):
    """Every number that can be written, in rising order. value: (cells,) float64. log_prob: (cells,) nats, of
    probabilities that sum to one; without an exponent the density in a cell is B^K times its probability."""

    value: np.ndarray
    log_prob: np.ndarray


def number_cells(predictor: Predictor, tokenizer: NumberTokenizer, state: Any) -> Cells:
    """The probability of every number after a state, by the whole tree of its tokens.

    Args:
        state: of one row. What is no token of a number in its place is left out, the rest renormalised.
    Raises:
        UsageError: more than 65,536 numbers; draw samples instead.
    """
    count = 1
    for place in range(tokenizer.length):
        count *= len(tokenizer.choices(place))
    if count > _MOST:
        raise UsageError(f"the tree of {count:,} numbers is too large; draw numbers with --constrain number instead.")
    log_prob, paths = torch.zeros(1, dtype=torch.float64), torch.zeros(1, 0, dtype=torch.int64)
    for place in range(tokenizer.length):
        ids = torch.tensor(tokenizer.choices(place))
        given = torch.log_softmax(predictor.predict(state).log_prob.double().cpu()[:, ids], -1)
        log_prob = (log_prob[:, None] + given).flatten()
        paths = torch.cat([paths.repeat_interleave(len(ids), 0), ids.repeat(len(paths))[:, None]], 1)
        if place + 1 < tokenizer.length:
            state = predictor.observe(repeat_rows(state, len(ids)), paths[:, -1].to(predictor.device))
    values = np.array([tokenizer.decode_number(path) for path in paths.tolist()])
    order = np.argsort(values, kind="stable")
    return Cells(values[order], _array(log_prob)[order])


def point(cells: Cells, kind: Literal["mean", "median", "mode"] = "mean") -> float:
    """One number for a distribution: the least squared error, the least absolute error, or the likeliest."""
    weights = np.exp(cells.log_prob)
    if kind == "mean":
        return float(weights @ cells.value / weights.sum())
    if kind == "median":
        return float(cells.value[np.searchsorted(weights.cumsum(), weights.sum() / 2)])
    return float(cells.value[weights.argmax()])


def _array(values: Tensor) -> np.ndarray:
    return values.numpy()
