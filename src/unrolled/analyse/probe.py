"""What two classes differ in: L1-regularised logistic regression, and the best single unit."""

import importlib
import math
import warnings
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.evaluate.text.pairs import wilson

__all__ = [
    "BestUnit",
    "LogisticFit",
    "Measured",
    "auc",
    "best_unit",
    "fit_bag_of_words",
    "fit_logistic",
    "need_scikit_learn",
]

_MISSING = 'the logistic regression needs scikit-learn; install it with: pip install "unrolled[probe]".'


class Measured(NamedTuple):
    """Accuracy on a set of n sentences with its 95 % interval (Wilson), and the area under the ROC curve."""

    accuracy: float
    low: float
    high: float
    auc: float
    n: int


class LogisticFit(NamedTuple):
    """A logistic regression with the strength that did best on the held-out sentences.

    strength: C, the weight of the loss against the L1 norm. tried: accuracy on the held-out sentences by strength.
    at_end: whether the chosen one is the first or last tried. nonzero: weights that are not 0, of ``features``.
    weights: (features,), of the features as they were given; bias belongs to them.
    """

    strength: float
    tried: dict[float, float]
    at_end: bool
    nonzero: int
    features: int
    weights: np.ndarray
    bias: float
    test: Measured


class BestUnit(NamedTuple):
    """The unit that divides the classes of the training sentences best by itself.

    unit: from 0. sign: 1 where the positive class has the higher values, else -1. threshold: sign * value above it
    means positive; of all thresholds one with the highest accuracy in training. aucs: (units,), of every unit in
    training, 0.5 and more whatever the sign. gaps: (units,), between the means of the two classes in training. ties:
    how many units have the best AUC.
    """

    unit: int
    sign: int
    threshold: float
    train: Measured
    test: Measured
    aucs: np.ndarray
    gaps: np.ndarray
    ties: int


def need_scikit_learn() -> None:
    """Raises UnrolledError where it is not installed; for before the sentences are read, which takes long."""
    try:
        importlib.import_module("sklearn")
    except ImportError as error:
        raise UnrolledError(_MISSING) from error


def auc(values: np.ndarray, positive: np.ndarray) -> np.ndarray:
    """Probability that a positive row has a higher value than a negative one, ties count half; (units,).

    From the ranks (Mann and Whitney 1947).

    Args:
        values: (n, units). positive: boolean (n,), both classes present.
    """
    count, ups = len(positive), int(positive.sum())
    found = np.empty(values.shape[1])
    for unit in range(values.shape[1]):
        _, inverse, counts = np.unique(values[:, unit], return_inverse=True, return_counts=True)
        ends = np.cumsum(counts)
        ranks = ends - (counts - 1) / 2  # the mean rank of equal values, from 1
        found[unit] = ranks[inverse][positive].sum()
    return (found - ups * (ups + 1) / 2) / (ups * (count - ups))


def best_unit(train: np.ndarray, positive: np.ndarray, test: np.ndarray, test_positive: np.ndarray) -> BestUnit:
    """Choose by the AUC on the training sentences, and measure on the test sentences.

    Of units with the same AUC, which many can have where the classes are easy to tell apart, the one counts whose means
    of the two classes are furthest apart: the AUC knows nothing of size, and a unit that hardly moves does not steer.
    """
    signed = auc(train, positive)
    every = np.maximum(signed, 1 - signed)
    gaps = np.abs(train[positive].mean(0, dtype=np.float64) - train[~positive].mean(0, dtype=np.float64))
    tied = every == every.max()
    unit = int(np.where(tied, gaps, -1).argmax())
    sign = 1 if signed[unit] >= 0.5 else -1
    threshold = _threshold(sign * train[:, unit].astype(np.float64), positive)

    def measure(values: np.ndarray, labels: np.ndarray) -> Measured:
        scores = sign * values[:, unit].astype(np.float64)
        return _measured(scores > threshold, scores, labels)

    on_train, on_test = measure(train, positive), measure(test, test_positive)
    return BestUnit(unit, sign, threshold, on_train, on_test, every, gaps, int(tied.sum()))


def _threshold(scores: np.ndarray, positive: np.ndarray) -> float:
    """Half-way between two values, or outside all of them; the lowest of those with the highest accuracy."""
    values, inverse = np.unique(scores, return_inverse=True)
    ups = np.bincount(inverse, positive, len(values))
    downs = np.bincount(inverse, ~positive, len(values))
    # right with a threshold below the i-th value: the negative ones before it and the positive ones from it on
    right = np.concatenate([[0], np.cumsum(downs)]) + np.concatenate([np.cumsum(ups[::-1])[::-1], [0]])
    cuts = np.concatenate([[values[0] - 1], (values[1:] + values[:-1]) / 2, [values[-1] + 1]])
    return float(cuts[int(right.argmax())])


def _measured(guess: np.ndarray, scores: np.ndarray, positive: np.ndarray) -> Measured:
    share = float((guess == positive).mean())
    both = 0 < positive.sum() < len(positive)
    area = float(auc(scores[:, None], positive)[0]) if both else math.nan
    return Measured(share, *wilson(share, len(positive)), area, len(positive))


def fit_logistic(
    train: Any,
    positive: np.ndarray,
    dev: Any,
    dev_positive: np.ndarray,
    test: Any,
    test_positive: np.ndarray,
    strengths: Sequence[float],
    seed: int = 1,
) -> LogisticFit:
    """Fit one regression for each strength; the best on ``dev`` counts, of equals the most regularised.

    Dense features are standardised by the training sentences, so that the penalty means the same for every unit;
    sparse ones, which are counts, stay as they are. The bias is penalised as one more weight, of a constant feature of
    10, hence hardly.

    Args:
        train, dev, test: (n, features), dense or sparse.
    Raises:
        UnrolledError: scikit-learn is not installed.
    """
    try:
        linear = importlib.import_module("sklearn.linear_model")
        exceptions = importlib.import_module("sklearn.exceptions")
    except ImportError as error:
        raise UnrolledError(_MISSING) from error
    if not 0 < positive.sum() < len(positive):
        raise UsageError("the training sentences all have one label; give sentences of both.")
    mean, scale = np.zeros(train.shape[1]), np.ones(train.shape[1])
    x, held, last = train, dev, test
    if isinstance(train, np.ndarray):
        mean, scale = train.mean(0, dtype=np.float64), train.std(0, dtype=np.float64)
        scale[scale == 0] = 1
        x, held, last = ((part - mean) / scale for part in (train, dev, test))
    fits: dict[float, Any] = {}
    for strength in sorted(strengths):
        model = linear.LogisticRegression(
            C=strength, l1_ratio=1.0, solver="liblinear", intercept_scaling=10.0, max_iter=1000, random_state=seed
        )
        with warnings.catch_warnings():
            # a weak penalty may not settle in time; what it is worth shows on dev
            warnings.simplefilter("ignore", exceptions.ConvergenceWarning)
            fits[strength] = model.fit(x, positive)
    tried = {strength: float((model.predict(held) == dev_positive).mean()) for strength, model in fits.items()}
    strength = max(tried, key=lambda one: (tried[one], -one))
    model = fits[strength]
    scores = np.asarray(model.decision_function(last), np.float64)
    weights = np.asarray(model.coef_[0], np.float64) / scale
    return LogisticFit(
        strength, tried, strength in (min(tried), max(tried)), int((weights != 0).sum()), len(weights),
        weights, float(model.intercept_[0] - weights @ mean), _measured(scores > 0, scores, test_positive),
    )  # fmt: skip


def fit_bag_of_words(
    train: Sequence[str],
    positive: np.ndarray,
    dev: Sequence[str],
    dev_positive: np.ndarray,
    test: Sequence[str],
    test_positive: np.ndarray,
    strengths: Sequence[float],
    seed: int = 1,
) -> LogisticFit:
    """The same regression over which words (and punctuation marks, in lower case) of the training text occur."""
    try:
        text = importlib.import_module("sklearn.feature_extraction.text")
    except ImportError as error:
        raise UnrolledError(_MISSING) from error
    words = text.CountVectorizer(binary=True, token_pattern=r"\w+|[^\w\s]")
    try:
        x = words.fit_transform(train)
    except ValueError as error:  # "empty vocabulary"
        raise UsageError("the training sentences hold no words; give text.") from error
    return fit_logistic(
        x, positive, words.transform(dev), dev_positive, words.transform(test), test_positive, strengths, seed
    )
