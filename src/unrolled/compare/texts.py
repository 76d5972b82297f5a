"""Corpora, frames and synthetic problems as the systems of a plan read them."""

import copy
from typing import Any, NamedTuple

from unrolled.compare.problems import PlanProblem
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel, ModelConfig
from unrolled.task import TASKS
from unrolled.tasks.lm_size import Build
from unrolled.tasks.made import Made
from unrolled.train import ExperimentConfig

__all__ = ["OPENED", "Opened", "Text", "is_compared", "read_frames", "read_problem", "read_text"]

OPENED = ("train", "valid")
"""The splits that a comparison or a search opens."""


class Text(NamedTuple):
    """A corpus as a plan's systems read it, or a synthetic problem.

    characters: whether its tokens are characters. targets: of a batch of a problem, where nothing is asked at most
    positions, or of frames; None for a text. unit: what a loss is of, where it is not a token or character.
    """

    name: str
    vocabulary: int
    training_tokens: int
    validation_tokens: int
    characters: bool
    targets: int | None = None
    unit: str = ""


class Opened(NamedTuple):
    """text: what is read. build: makes a model that reads it. figures: of such models, that contrasts may ask of."""

    text: Text
    build: Build
    figures: tuple[str, ...] = ()


def is_compared(config: ExperimentConfig) -> bool:
    """Whether a comparison may be of such runs where it is not of synthetic problems: texts, and frames."""
    return config.task.name == "lm" or TASKS[config.task.name].frames


def read_frames(config: ExperimentConfig) -> Opened:
    """Sizes of the frames of a configuration, and models of them.

    Raises:
        UsageError: they have no validation split, or cannot be read.
    """
    settings: Any = config.task
    task: Any = TASKS[settings.name](config, RandomStreams(0))
    name = str(getattr(settings.frames, "corpus", None) or settings.frames.name)
    if "valid" not in task.splits:
        raise UsageError(f"the frames {name} have no validation split, which a comparison measures on; give it one.")
    source, train, valid = task.source(), task.splits["train"], task.splits["valid"]
    text = Text(
        name, train.channels, source.tokens_per_epoch(), len(valid), False, source.full_batch,
        task.unit.removesuffix("s"),
    )  # fmt: skip

    def build(model: ModelConfig) -> LanguageModel:
        one = copy.copy(task)  # which has read its frames
        one.config = task.config.model_copy(update={"model": model})
        return one.build()

    return Opened(text, build, ("mse", *(("mse_future",) if settings.given else ())))


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
