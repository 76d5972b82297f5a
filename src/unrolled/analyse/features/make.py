"""Units as features: how well the states of a model tell two classes of sentences apart.

After Radford, Jozefowicz and Sutskever (2017), who found a unit of a byte-level multiplicative LSTM that carries the
sentiment of a review.
"""

from typing import Any, NamedTuple

import numpy as np
from pydantic import Field, field_validator

from unrolled.analyse.labelled import Labelled
from unrolled.analyse.probe import (
    BestUnit,
    LogisticFit,
    auc,
    best_unit,
    fit_bag_of_words,
    fit_logistic,
    need_scikit_learn,
)
from unrolled.analyse.sentence_states import StatesConfig, sentence_states
from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.data.walk import Progress
from unrolled.predict import NeuralPredictor
from unrolled.runs import Run

__all__ = ["Features", "FeaturesConfig", "features_of_run", "hold_out"]


class FeaturesConfig(Config):
    """Which states, and how the regression is chosen."""

    states: StatesConfig = Field(default=StatesConfig(), description="the vector of a sentence")
    strengths: tuple[float, ...] = Field(
        default=tuple(2.0**power for power in range(-10, 3)),
        min_length=1,
        description="strengths C tried: weights of the loss against the L1 norm, smaller is sparser",
    )
    held_out: float = Field(
        default=0.1, gt=0, lt=1, description="share of the training sentences that chooses C where there is no dev file"
    )
    bins: int = Field(default=40, ge=2, description="bins of the histogram")
    seed: int = Field(default=1, ge=0, description="of the held-out part and the solver")

    @field_validator("strengths")
    @classmethod
    def _positive(cls, value: tuple[float, ...]) -> tuple[float, ...]:
        if min(value) <= 0:
            raise ValueError("every strength must be above 0")
        return value


class Features(NamedTuple):
    """What was found.

    name: of the run. layer, state: whose units. sizes: sentences in training, dev and test. regression: over the
    units. words: over words, None where it was not asked for. best: the best single unit. test_aucs: (units,) signed,
    above 0.5 where the positive class has the higher values. edges: (bins + 1,) and counts: (2, bins), negative first,
    the histogram of the best unit's values on test. classes: the negative label and the positive one.
    """

    name: str
    config: FeaturesConfig
    layer: int
    state: str
    sizes: dict[str, int]
    classes: tuple[str, str]
    regression: LogisticFit
    words: LogisticFit | None
    best: BestUnit
    test_aucs: np.ndarray
    edges: np.ndarray
    counts: np.ndarray
    provenance: dict[str, Any]


def hold_out(data: Labelled, share: float, seed: int) -> tuple[Labelled, Labelled]:
    """The data without a random part, and that part. Raises UsageError where one of them would lack a class."""
    order = np.random.default_rng(seed).permutation(len(data.texts))
    cut = round(share * len(order))
    kept, held = data.part(np.sort(order[cut:])), data.part(np.sort(order[:cut]))
    for part in (kept, held):
        if not 0 < part.positive.sum() < len(part.positive):
            raise UsageError("there are too few training sentences to hold some of both labels out; give a dev file.")
    return kept, held


def features_of_run(
    run: Run,
    train: Labelled,
    test: Labelled,
    dev: Labelled | None = None,
    config: FeaturesConfig | None = None,
    words: bool = True,
    progress: Progress | None = None,
) -> Features:
    """Read all sentences with a run, fit and measure.

    Args:
        dev: chooses the regression's strength; absent: a part of ``train`` that is then left out of the fit.
        words: fit the bag of words too.
        progress: hears of the sentences read.
    Raises:
        UsageError: a count model, which has no states; see also :func:`sentence_states`, :func:`hold_out`.
        UnrolledError: scikit-learn is not installed.
    """
    config = config or FeaturesConfig()
    need_scikit_learn()
    predictor = NeuralPredictor(run.model, run.tokenizer.start_id)
    layer, state = config.states.chosen(run.model.initial_state(1).cells)
    if dev is None:
        train, dev = hold_out(train, config.held_out, config.seed)
    for part in (train, test):
        if not 0 < part.positive.sum() < len(part.positive):
            raise UsageError(f"the sentences of {part.name} all have one label; give sentences of both.")
    parts = train, dev, test
    texts = [text for part in parts for text in part.texts]
    found = sentence_states(predictor, run.tokenizer, texts, config.states, progress)
    ends = np.cumsum([len(part.texts) for part in parts])
    x = np.split(found.astype(np.float64), ends[:-1])
    labels = [part.positive for part in parts]
    best = best_unit(x[0], labels[0], x[2], labels[2])
    values = x[2][:, best.unit]
    edges = np.histogram_bin_edges(values, config.bins)
    counts = np.stack([np.histogram(values[labels[2] == one], edges)[0] for one in (False, True)])
    fixed = config.strengths, config.seed
    return Features(
        name=run.path.resolve().name,
        config=config,
        layer=layer,
        state=state,
        sizes={name: len(part.texts) for name, part in zip(("train", "dev", "test"), parts, strict=True)},
        classes=train.classes,
        regression=fit_logistic(x[0], labels[0], x[1], labels[1], x[2], labels[2], *fixed),
        words=fit_bag_of_words(
            train.texts, labels[0], dev.texts, labels[1], test.texts, labels[2], *fixed
        ) if words else None,
        best=best,
        test_aucs=auc(x[2], labels[2]),
        edges=edges,
        counts=counts,
        provenance={**run.provenance(), "precision": predictor.precision, "train": train.name, "test": test.name},
    )  # fmt: skip
