"""An opened run directory."""

import os
from collections.abc import Iterable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from unrolled.core.device import pick_device
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import read_json
from unrolled.core.notes import note
from unrolled.core.random import RandomStreams
from unrolled.core.registry import unknown_name
from unrolled.counts import NgramModel, SkipModel
from unrolled.data import Corpus, CorpusConfig, TokenSplit, corpus_named, open_corpus
from unrolled.data.spec import WHOLE
from unrolled.kernels.dispatch import Compute
from unrolled.model import LanguageModel
from unrolled.runs.config import RunConfig
from unrolled.runs.names import CONFIG, MODEL, RECORD, STATE_TENSORS, TOKENIZER, saved_states
from unrolled.runs.weights import load_weights, refuse_larger
from unrolled.task import TASKS, ClosedTask, Saved, StepsTask, Task
from unrolled.tokenizer import Tokenizer, load_tokenizer
from unrolled.tokenizer.encode import encode_corpus

__all__ = ["Run", "own_tokenizer"]


def own_tokenizer(run: Path, record: Mapping[str, Any]) -> Tokenizer:
    """The tokenizer in a run directory, if it is the one that the record knows.

    Raises:
        UnrolledError: a missing or damaged file, or that of another run, whose ids mean other symbols.
    """
    tokenizer = load_tokenizer(run / TOKENIZER)
    if record.get("symbols") not in (None, tokenizer.symbols_checksum()):
        raise UnrolledError(
            f"{run / TOKENIZER} is not the tokenizer that the run was trained with; put that one back, or train anew."
        )
    return tokenizer


class Run:
    """An opened run directory.

    Args:
        path: the directory.
        device: where to put the model. backend, precision: in place of the run's own.
        weights: ``saved``, those of the best checkpoint, averaged where training averages; or ``raw``, those that
            training would go on from.

    Attributes:
        kept: what readers have made from the run and may need again.
    Raises:
        UsageError: no such run. UnrolledError: a broken, foreign or future file in it.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        device: str = "auto",
        backend: str | None = None,
        precision: str | None = None,
        weights: Literal["saved", "raw"] = "saved",
    ):
        if weights not in ("saved", "raw"):
            raise unknown_name("weights", weights, ["saved", "raw"])
        self.weights_kind = weights
        self.path = Path(path)
        if not (self.path / CONFIG).is_file():
            raise UsageError(
                f"{self.path} is not a run: it has no {CONFIG}; give the folder that `unrolled train` wrote."
            )
        self.config = RunConfig.load(self.path / CONFIG)
        self.task_class: type[Task] = TASKS[self.config.task.name]
        chosen = (
            weights != "saved",
            "model" not in self.task_class.reads and (precision or backend not in (None, "auto")),
        )
        if any(chosen) and issubclass(self.task_class, ClosedTask):
            raise UsageError(f"{self.path} is {self.task_class.noun}; leave out --weights, --precision and --backend.")
        if chosen[1]:
            raise UsageError(f"{self.path} is {self.task_class.noun}; leave out --precision and --backend.")
        self.device = pick_device(device)
        changes = {key: value for key, value in (("backend", backend), ("precision", precision)) if value is not None}
        self.kept: dict[str, Any] = {}
        self._compute = Compute.parse({**self.config.model.compute.model_dump(), **changes})

    @cached_property
    def task(self) -> Task:
        """What was learned, with the vocabularies of the run; its data are opened when they are asked for."""
        model = self.config.model.model_copy(update={"compute": self._compute})
        config = self.config.model_copy(update={"model": model})
        return self.task_class(config, RandomStreams(config.seed), Saved(self.path, self.record))

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer the model was trained with. Raises UnrolledError where another one is in its place, UsageError
        where the task reads no text."""
        tokenizer = self.task.tokenizer
        if tokenizer is None:
            raise UsageError(f"{self.path} is {self.task_class.noun}, which reads no text; use a run of another task.")
        return tokenizer

    @cached_property
    def trained(self) -> Any:
        """The model of any task, in evaluation mode: a module, or what a closed task keeps."""
        task = self.task
        if isinstance(task, ClosedTask):
            return task.kept(self.path)
        assert isinstance(task, StepsTask)
        file, prefix = self.weights_file, "model." if self.weights_kind == "raw" else ""
        if self.task_class.language:
            refuse_larger(file, prefix, self._numbers(), task.build)
        model = task.build()
        load_weights(model, file, prefix)
        return model.to(self.device).eval()

    def _numbers(self) -> int:
        """How many a language model has at least, roughly: its embedding and a square matrix a layer, or as many as it
        asks for."""
        model = self.config.model
        if model.params is not None:
            return model.params
        widths = model.layer_widths()
        part = model.embedding
        narrow = part.one_hot or part.cutoffs or part.kind == "spelling"
        table = 0 if narrow else part.size or widths[0]
        return self.tokenizer.vocab_size * table + sum(width * width for width in widths)

    @property
    def model(self) -> LanguageModel:
        """The neural language model, in evaluation mode. Raises UsageError for a run of another task."""
        if issubclass(self.task_class, ClosedTask) or not self.task_class.language:
            why = ", which has no neural weights" if issubclass(self.task_class, ClosedTask) else ""
            raise UsageError(f"{self.path} is {self.task_class.noun}{why}; use a run of a neural language model.")
        return self.trained

    @property
    def ngrams(self) -> NgramModel:
        """The tables of a count model. Raises UnrolledError for damaged ones, UsageError for a run of another task."""
        found = self.trained if issubclass(self.task_class, ClosedTask) else None
        if isinstance(found, SkipModel):
            raise UsageError(f"{self.path} has skip n-grams, which are no backoff tables; use a run without them.")
        if not isinstance(found, NgramModel):
            raise UsageError(f"{self.path} is {self.task_class.noun}; use a run of a count model.")
        return found

    def check_language(self) -> None:
        """Raises UsageError unless the run's model predicts the next token of a text."""
        if not self.task_class.language:
            raise UsageError(f"{self.path} is {self.task_class.noun}; use a run of a language model.")

    def identity(self) -> str | None:
        """A checksum that names a model without weights; None for one with weights."""
        return self.task_class.identity(self.trained) if issubclass(self.task_class, ClosedTask) else None

    @property
    def weights_file(self) -> Path:
        """Where the model's weights are. Raises UnrolledError when the run keeps no training state."""
        if self.weights_kind == "saved":
            return self.path / MODEL
        states = saved_states(self.path)
        if not states:
            raise UnrolledError(f"{self.path} has no training state, which holds the raw weights; use the saved ones.")
        if not (states[-1] / STATE_TENSORS).exists():
            raise UnrolledError(
                f"the training state of {self.path} is in the parts of several processes, which only training reads; "
                "use the saved weights."
            )
        return states[-1] / STATE_TENSORS

    @cached_property
    def record(self) -> dict[str, Any]:
        """The run record, empty where training has not written one yet."""
        value = read_json(self.path / RECORD) if (self.path / RECORD).exists() else {}
        step, texts = (value.get("best_step"), value.get("checksums", {})) if isinstance(value, dict) else ("", {})
        sound = step is None or (isinstance(step, int) and 0 <= step <= 2**53)
        if not sound or not isinstance(texts, dict) or not all(isinstance(text, str) for text in texts.values()):
            raise UnrolledError(f"{self.path / RECORD} is no run record: it is damaged, or of another program.")
        return value

    def provenance(self) -> dict[str, Any]:
        """What was measured: run, tokenizer, weights, number of parameters (None for a count model), training step."""
        return {
            "run": str(self.path),
            **self.task.provenance(),
            "weights": self.weights_kind,
            "parameters": None
            if issubclass(self.task_class, ClosedTask)
            else sum(p.numel() for p in self.trained.parameters()),
            "step": self.record.get("best_step"),
        }

    def splits(self, corpus: CorpusConfig | str | None = None) -> tuple[Corpus, dict[str, TokenSplit]]:
        """A corpus (its config, name or path; absent: the run's own) as tokens of this run's tokenizer."""
        opened = self._open(corpus, False)
        if corpus is None:
            self._check_text(opened, opened.splits)
        return opened, encode_corpus(opened, self.tokenizer)

    def to_measure(
        self, split: str, corpus: CorpusConfig | str | None = None
    ) -> tuple[str, TokenSplit, dict[str, TokenSplit]]:
        """A split of a corpus: the corpus's name, the split, and all splits.

        Args:
            split: train, valid or test; or whole, all of a text of your own.
            corpus: see :meth:`splits`.
        Raises:
            UsageError: no such split.
        """
        self._check_files()
        opened = self._open(corpus, split == WHOLE)
        if split not in opened.splits:
            raise UsageError(f"corpus {opened.name} has no split {split!r}; it has: {', '.join(opened.splits)}.")
        if corpus is None:
            self._check_text(opened, (split,))
        splits = encode_corpus(opened, self.tokenizer)
        return opened.name, splits[split], splits

    def _check_files(self) -> None:
        """Read what is small: a damaged run is told before a split that its text lacks."""
        _ = self.tokenizer, self.record, issubclass(self.task_class, ClosedTask) and self.trained

    def _open(self, corpus: CorpusConfig | str | None, whole: bool) -> Corpus:
        if isinstance(corpus, str):
            corpus = corpus_named(corpus)
        if corpus is None:
            if not self.task_class.reads_text:
                raise UsageError(f"{self.path} learned from no text; name one with --corpus.")
            if whole:  # of the parts alone it is known what they were
                parts = open_corpus(self.config.corpus)
                self._check_text(parts, parts.splits)
            return open_corpus(self.config.corpus, whole)
        opened, own = open_corpus(corpus, whole), self.config.corpus
        if own.time is not None and corpus.own and corpus.time is None:
            note(
                f"{opened.name} is read as plain text, while {self.path} was trained on documents with a date; --slice "
                "reads such documents"
            )
        same = corpus.places() == own.places() and corpus.slice == own.slice
        if not whole and corpus.own and own.own and same and self._changed(opened):
            note(
                f"{opened.name} is not as it was when {self.path} was trained on it: cut anew, its parts may hold text "
                "that the model has seen"
            )
        elif corpus.own and not whole and opened.cut and corpus.places() != own.places():
            note(
                f"{opened.name} is cut into train, valid and test, and one of these is measured; --split whole "
                "measures all of it"
            )
        return opened

    def check_text(self) -> None:
        """Raises UsageError where any part of the run's own text is another one than it was trained with."""
        if not self.task_class.reads_text:
            return
        opened = open_corpus(self.config.corpus)
        self._check_text(opened, opened.splits)

    def _changed(self, corpus: Corpus) -> list[str]:
        """The splits that are others than those that the record knows."""
        known = self.record.get("checksums", {})
        return [split for split in corpus.splits if split in known and corpus.checksum(split) != known[split]]

    def _check_text(self, corpus: Corpus, splits: Iterable[str]) -> None:
        """Raises UsageError where the run's own text is another one than it was trained with."""
        for split in self._changed(corpus):
            if split in splits:
                had = self.record.get("bytes")
                had = had.get(split) if isinstance(had, dict) else None
                sizes = f" ({corpus.size(split):,} bytes, and {had:,} then)" if isinstance(had, int) else ""
                raise UsageError(
                    f"the {split} text of corpus {corpus.name} ({corpus.parts(split)[0].name}) is not the one that "
                    f"{self.path} was trained with{sizes}: another text, or one that has changed and is cut elsewhere; "
                    "bring that text back, or name this one with --corpus."
                )
