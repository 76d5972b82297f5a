"""Corpora and synthetic problems as the systems of a plan read them."""

from typing import Any, NamedTuple

from unrolled.compare.problems import PlanProblem
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.task import TASKS
from unrolled.tasks.made import Made
from unrolled.train import ExperimentConfig

__all__ = ["OPENED", "Text", "read_problem", "read_text"]

OPENED = ("train", "valid")
"""The splits that a comparison or a search opens."""


class Text(NamedTuple):
    """A corpus as a plan's systems read it, or a synthetic problem.

    characters: whether its tokens are characters. targets: of a batch of a problem, where nothing is asked at most
    positions; None for a text.
    """

    name: str
    vocabulary: int
    training_tokens: int
    validation_tokens: int
    characters: bool
    targets: int | None = None


def read_text(name: str, config: ExperimentConfig) -> Text:
    """Sizes of a corpus as a configuration reads it; the test split is not opened.

    Args:
        name: of the corpus, for sentences.
    Raises:
        UsageError: it has no validation split, or cannot be read.
    """
    corpus = config.corpus.model_copy(update={"splits": OPENED})
    opened: Any = TASKS["lm"](config.model_copy(update={"corpus": corpus}), RandomStreams(0))
    splits = opened.splits
    if "valid" not in splits:
        raise UsageError(f"corpus {name} has no validation split, which a comparison measures on; give it one.")
    size = opened.tokenizer.vocab_size
    units = splits["valid"].units(0, len(splits["valid"]))
    return Text(name, size, len(splits["train"]), len(splits["valid"]), units.characters == units.tokens)


def read_problem(problem: PlanProblem, config: ExperimentConfig) -> Text:
    """Sizes of a synthetic problem as a configuration reads it."""
    task = TASKS["made"](config, RandomStreams(0))
    assert isinstance(task, Made)
    source = task.source()
    rows = task.splits["valid"]
    return Text(
        problem.label, len(task.problem.symbols), source.tokens_per_epoch(), len(rows) * task.problem.time(), False,
        source.full_batch,
    )  # fmt: skip
