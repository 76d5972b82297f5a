"""What every reader of a run needs to know of it."""

from typing import Any, ClassVar, Literal

from pydantic import Field

from unrolled.core.config import Config, VersionedConfig
from unrolled.core.errors import UsageError
from unrolled.counts import KneserNeyConfig
from unrolled.data import CorpusConfig, StreamConfig
from unrolled.model import ModelConfig
from unrolled.runs.weights import WeightsConfig
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


class RunConfig(VersionedConfig):
    """What every reader of a run needs. Training's own part is kept as it is (see unrolled.train)."""

    kind: ClassVar[str] = "unrolled run"
    current_version: ClassVar[int] = 2
    migrations: ClassVar = {1: _reads_exactly}

    title: str = Field(default="", description="one line about the experiment")
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
    counts: KneserNeyConfig | None = Field(
        default=None, description="a count model in place of the neural one (Kneser-Ney)"
    )
    weights: WeightsConfig | None = Field(default=None, description="weights to begin with (absent: random ones)")
    train: Any = Field(default=None, description="training")
    seed: int = Field(default=1, ge=0, description="the one seed of the run")

    def check_vocabulary(self, corpus: str, size: int) -> None:
        """Raises UsageError where the recipe pins another number of ids than the text gives."""
        if self.vocabulary not in (None, size):
            raise UsageError(
                f"corpus {corpus} gives {size:,} ids where the recipe states {self.vocabulary:,}; "
                "bring the text that the recipe names, or train on another one with --corpus."
            )
