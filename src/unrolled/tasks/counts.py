"""The task of a count model: n-grams of the training text, counted once."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.counts import (
    KneserNeyConfig,
    NgramModel,
    SkipModel,
    estimate_kneser_ney,
    estimate_skips,
    load_ngrams,
    read_arpa,
    save_ngrams,
)
from unrolled.counts.store import COUNTS
from unrolled.evaluate import EvalConfig, EvalResult, evaluate_predictor
from unrolled.predict import KneserNeyPredictor
from unrolled.runs import RunConfig
from unrolled.task import ClosedTask, Evaluation, Size, TaskConfig
from unrolled.task.values import Advance
from unrolled.tasks.text import LanguageTask
from unrolled.tokenizer.arpa import arpa_words

__all__ = ["Counts", "CountsConfig"]


class CountsConfig(TaskConfig, KneserNeyConfig):
    """How a Kneser-Ney model is estimated."""

    name: Literal["counts"] = "counts"

    def estimation(self) -> KneserNeyConfig:
        """The settings without the task's name."""
        return KneserNeyConfig.parse(self.model_dump(exclude={"name"}))


class Counts(LanguageTask, ClosedTask):
    """Kneser-Ney smoothing of the training text, or the tables of an ARPA file."""

    Config = CountsConfig
    EXAMPLES = (
        CountsConfig(order=2),
        CountsConfig(order=3, prune=(1, 1, 2), dropped="backoff", sentences="continuous"),
        CountsConfig(order=3, skips=True),
    )
    noun = "a count model"
    reads = ("tokenizer", "weights")
    files = COUNTS

    def solve(self, note: Callable[[str], None]) -> NgramModel | SkipModel:
        """Count, or read the file that ``weights`` names.

        Raises:
            UsageError, UnrolledError: in one sentence, whatever is wrong with the options or the file.
        """
        weights, tokenizer, train = self.config.weights, self.tokenizer, self.splits["train"]
        assert isinstance(self.config.task, CountsConfig)
        estimation = self.config.task.estimation()
        if weights is None:
            note(f"{self.corpus.name}: counting {len(train):,} tokens to order {estimation.order}")
            ids = train.ids(0, len(train))
            estimate = estimate_skips if estimation.skips else estimate_kneser_ney
            return estimate(ids, tokenizer.vocab_size, tokenizer.start_id, estimation, train.starts)
        if weights.layout != "arpa":
            raise UsageError("a count model begins with an ARPA file: set weights.layout to arpa.")
        if estimation.skips:
            raise UsageError("an ARPA file has no skip n-grams; leave out counts.skips, or the weights.")
        return read_arpa(weights.file, arpa_words(tokenizer), tokenizer.start_id)

    def keep(self, model: NgramModel | SkipModel, run: Path) -> None:
        """See :meth:`ClosedTask.keep`."""
        save_ngrams(model, run)

    @classmethod
    def kept(cls, run: Path) -> NgramModel | SkipModel:
        """See :meth:`ClosedTask.kept`."""
        return load_ngrams(run)

    @classmethod
    def identity(cls, model: NgramModel | SkipModel) -> str | None:
        """That of the saved tables."""
        return model.config.tables_sha256

    @classmethod
    def predictor(cls, model: NgramModel | SkipModel) -> KneserNeyPredictor:
        """See :meth:`ClosedTask.predictor`."""
        return KneserNeyPredictor(model)

    def evaluate(
        self, model: NgramModel | SkipModel, examples: Any, how: Evaluation, advance: Advance | None = None
    ) -> EvalResult:
        """See :meth:`Task.evaluate`; columns would save nothing."""
        config = EvalConfig(split=how.split, limit=how.limit)
        provenance = {**self.origin(how), **how.provenance}
        return evaluate_predictor(KneserNeyPredictor(model), examples, config, advance, provenance)

    def record(self, model: NgramModel | SkipModel) -> dict[str, Any]:
        """See :meth:`Task.record`."""
        return {
            "precision": "float64",
            **super().record(model),
            "ngrams": [len(table.keys) for table in model.tables],
            "discounts": model.config.discounts,
            "fallback": model.config.fallback,
        }

    @classmethod
    def size(cls, config: RunConfig) -> Size:
        """See :meth:`Task.size`."""
        task, settings = cls(config, RandomStreams(config.seed)), config.task
        assert isinstance(settings, CountsConfig)
        tokens = len(task.splits["train"])
        facts = {"order": settings.order, "vocabulary": task.tokenizer.vocab_size, "training_tokens": tokens}
        return Size(facts, per_epoch=tokens)
