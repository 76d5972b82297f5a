"""What every reader of a run needs to know of it."""

from collections.abc import Mapping
from typing import Any, ClassVar, Literal, Self

from pydantic import BaseModel, Field

from unrolled.core.config import Config, VersionedConfig
from unrolled.core.errors import UsageError
from unrolled.data import CorpusConfig, StreamConfig
from unrolled.model import ModelConfig
from unrolled.runs.weights import WeightsConfig
from unrolled.task import TASKS, AnyTaskConfig
from unrolled.tokenizer import AnyTokenizerConfig

__all__ = ["PublishedFigure", "RunConfig"]


class PublishedFigure(Config):
    """A published figure of the system that a recipe states: what to compare with, and how it was measured."""

    system: str = Field(description="name of the system, with what was added (fine-tuned, dynamic evaluation...)")
    metric: Literal["perplexity", "bits per character"] = Field(description="perplexity is per token")
    valid: float | None = Field(default=None, description="on the validation split")
    test: float | None = Field(default=None, description="on the test split")
    parameters: str = Field(description="number of parameters as published, such as 24M")
    protocol: str = Field(description="how it was measured, as far as known")
    source: str = Field(description="where it was published")

    def __str__(self) -> str:
        """One readable line."""
        shown = [
            f"{split} {value:g}" for split, value in (("valid", self.valid), ("test", self.test)) if value is not None
        ]
        return f"{self.system}, {self.parameters}: {', '.join(shown)} {self.metric} ({self.protocol}; {self.source})"


def _reads_exactly(value: dict[str, Any]) -> dict[str, Any]:
    """Version 1 read every text to the byte."""
    corpus = value.get("corpus")
    if isinstance(corpus, dict) and (corpus.get("path") or corpus.get("train")):
        return {**value, "corpus": {**corpus, "reading": "exact"}}
    return value


def _names_its_task(value: Mapping[str, Any]) -> dict[str, Any]:
    """``counts = {...}``, the settings of the count model, as the task ``counts``. Recipes may write it so, and
    versions before 3 did, with null for a language model.

    Raises:
        UsageError: another task beside it.
    """
    rest, given = {key: inner for key, inner in value.items() if key != "counts"}, value.get("counts")
    if given is None:
        return rest
    task = rest.get("task")
    if (task.get("name") if isinstance(task, Mapping) else getattr(task, "name", task)) not in (None, "lm"):
        raise UsageError("counts.* are the settings of the task counts; give them as task.*, or leave task out.")
    options = given.model_dump() if isinstance(given, BaseModel) else given
    if not isinstance(options, Mapping) or "name" in options:
        raise UsageError("config key 'counts': give a table of the count model's options, such as counts.order=5.")
    return {**rest, "task": {"name": "counts", **options}}


class RunConfig(VersionedConfig):
    """What every reader of a run needs. Training's own part is kept as it is (see unrolled.train)."""

    kind: ClassVar[str] = "unrolled run"
    current_version: ClassVar[int] = 3
    migrations: ClassVar = {1: _reads_exactly, 2: _names_its_task}

    title: str = Field(default="", description="one line about the experiment")
    task: AnyTaskConfig = Field(
        default_factory=lambda: TASKS.parse("lm"), description="what is learned, and the settings of that"
    )
    corpus: CorpusConfig = Field(default=CorpusConfig(), description="the text")
    tokenizer: AnyTokenizerConfig | None = Field(
        default=None, description="text to tokens (absent: the corpus's convention)"
    )
    stream: StreamConfig = Field(default=StreamConfig(), description="how the text is cut into windows")
    vocabulary: int | None = Field(
        default=None, ge=1, description="number of ids that the published figure used; another one is refused"
    )
    published: tuple[PublishedFigure, ...] = Field(
        default=(), description="published figures of this system on this corpus"
    )
    model: ModelConfig = Field(default=ModelConfig(), description="the language model")
    weights: WeightsConfig | None = Field(default=None, description="weights to begin with (absent: random ones)")
    train: Any = Field(default=None, description="training")
    seed: int = Field(default=1, ge=0, description="the one seed of the run")

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """See :meth:`Config.parse`; ``counts = {...}`` is short for the task ``counts``."""
        try:
            return super().parse(_names_its_task(value))
        except UsageError as error:
            if value.get("counts") is None:
                raise
            # what is wrong is named as it was written
            raise UsageError(str(error).replace("config key 'task.", "config key 'counts.", 1)) from error

    def check_vocabulary(self, corpus: str, size: int) -> None:
        """Raises UsageError where the recipe pins another number of ids than the text gives."""
        if self.vocabulary not in (None, size):
            raise UsageError(
                f"corpus {corpus} gives {size:,} ids where the recipe states {self.vocabulary:,}; "
                "bring the text that the recipe names, train on another one with --corpus, or leave the number open "
                "with --set vocabulary=null."
            )
