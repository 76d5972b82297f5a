"""The task of classes: one label for each row."""

from collections.abc import Iterator, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data import Window
from unrolled.data.labelled import LABELLED, AnyLabelledConfig, LabelledBatches, LabelledSource, LabelledSplit, padded
from unrolled.data.labelled.reading import words_of
from unrolled.model import LanguageModel
from unrolled.model.classes import ClassEnds, ClassHeadConfig
from unrolled.model.dropout import Masks
from unrolled.runs import TOKENIZER, RunConfig, own_tokenizer
from unrolled.task import Evaluation, Loss, Objective, Saved, TaskConfig, TaskResult, Watch, unwatched
from unrolled.task.values import Advance
from unrolled.tasks.labels import Labels, grouped
from unrolled.tasks.lm import window_loss
from unrolled.tasks.vocabulary import trained_on
from unrolled.tokenizer import Tokenizer, save_tokenizer
from unrolled.tokenizer.symbols import SymbolTokenizer

__all__ = ["Classify", "ClassifyConfig"]


class ClassifyConfig(TaskConfig):
    """Settings of a task of classes."""

    name: Literal["classify"] = "classify"
    data: AnyLabelledConfig = Field(default_factory=lambda: LABELLED.parse("sst2"), description="the rows")
    head: ClassHeadConfig = Field(default=ClassHeadConfig(), description="pooling and logits")
    rows: int = Field(
        default=32, ge=1, le=1 << 16, description="rows of a training batch, and side by side in evaluation"
    )
    words: bool = Field(
        default=True,
        description="texts: before the tokenizer in lower case, with blanks around each sign that is no part of a word",
    )
    longest: int = Field(default=512, ge=1, le=1 << 20, description="steps of a row; of longer ones the first are read")
    classes: tuple[str, ...] | None = Field(default=None, description="names of the labels; kept in the run")
    channels: int | None = Field(default=None, ge=0, description="numbers of a step, 0 of ids; kept in the run")


class Classify(Labels):
    """Minimises the nats of each row's label; validations watch how many are right.

    Rows are independent, padded on the left, and read by any cells, also such as see a whole row
    (:data:`unrolled.cells.ENCODERS`). The model's last outputs are pooled.
    """

    Config = ClassifyConfig
    EXAMPLES = (
        ClassifyConfig.parse({"data": {"name": "listops", "rows": 40, "depth": 2}, "rows": 8}),
        ClassifyConfig.parse({
            "data": {"name": "shapes", "rows": 24, "side": 6}, "rows": 5,
            "head": {"pool": "max", "hidden": 4, "smoothing": 0.1},
        }),
    )  # fmt: skip
    noun = "a classifier"
    reads = ("model", "tokenizer", "train")
    examples = "rows"

    config: RunConfig

    def __init__(self, config: RunConfig, streams: RandomStreams, saved: Saved | None = None):
        super().__init__(config, streams, saved)
        if saved is None:
            own = self._settings
            if own.classes is not None or own.channels is not None:
                raise UsageError("task.classes and task.channels are found from the rows; leave them out.")
            _ = self.splits
            source = self.labelled
            settled = own.model_copy(update={"classes": source.classes, "channels": source.channels})
            update: dict[str, Any] = {"task": settled}
            if source.kind == "text" and self.tokenizer is not None:
                update["tokenizer"] = self.tokenizer.config
            self.config = self.config.model_copy(update=update)

    @property
    def _settings(self) -> ClassifyConfig:
        assert isinstance(self.config.task, ClassifyConfig)
        return self.config.task

    @cached_property
    def labelled(self) -> LabelledSource:
        """Where the rows come from."""
        config = self._settings.data
        return LABELLED[config.name](config)

    @cached_property
    def tokenizer(self) -> Tokenizer | None:  # type: ignore[override]
        """The saved run's, or of the symbols, or trained on the training texts (words, unless the config says another);
        None for frames."""
        if self.labelled.kind == "frames":
            return None
        if self.saved is not None:
            return own_tokenizer(self.saved.path, self.saved.record)
        if self.labelled.kind == "symbols":
            return SymbolTokenizer.of(self.labelled.symbols)
        return trained_on(self.config.tokenizer, [self._plain(text) for text in self._texts["train"][0]])

    @cached_property
    def _texts(self) -> dict[str, tuple[list[str], np.ndarray]]:
        return self.labelled.texts()

    def _plain(self, text: str) -> str:
        return " ".join(words_of(text)) if self._settings.words else " ".join(text.split())

    def row(self, text: str) -> np.ndarray:
        """The ids of a text. Raises UsageError for one without any."""
        tokenizer = self.tokenizer
        if tokenizer is None:
            raise UsageError("this run classifies frames, not texts; give it arrays.")
        plain = self._plain(text) if self.labelled.kind == "text" else text
        ids = tokenizer.encode(plain)
        if not ids:
            raise UsageError(f"{text[:60]!r} has no token; leave empty texts out.")
        return np.array(ids, np.int64)

    @cached_property
    def splits(self) -> dict[str, LabelledSplit]:
        """See :class:`unrolled.task.Task`."""
        if self.labelled.kind != "text":
            found = self.labelled.splits()
        else:
            found = {
                split: LabelledSplit([self.row(text) for text in texts], labels, name=f"the {split} rows")
                for split, (texts, labels) in self._texts.items()
            }
        return {split: part.cut(self._settings.longest) for split, part in found.items()}

    def save(self, run: Path) -> None:
        """See :meth:`Task.save`."""
        if self.tokenizer is not None:
            save_tokenizer(self.tokenizer, run / TOKENIZER)

    def build(self) -> LanguageModel:
        """See :meth:`StepsTask.build`."""
        own = self._settings
        vocabulary = 1 if self.tokenizer is None else self.tokenizer.vocab_size
        return LanguageModel(self.config.model, vocabulary, ClassEnds(len(self.classes), own.head, own.channels or 0))

    def source(self) -> LabelledBatches:
        """See :meth:`StepsTask.source`."""
        return LabelledBatches(self.splits["train"], self._settings.rows, self.streams)

    def draw(self, model: LanguageModel, batch: Window, position: int) -> Masks | None:
        """Dropout masks."""
        rows, time = batch.inputs.shape[:2]
        return model.draw_masks(rows, time, self.streams, position)

    def loss(
        self,
        model: LanguageModel,
        batch: Window,
        state: None,
        drawn: Masks | None,
        objective: Objective,
        watch: Watch = unwatched,
    ) -> Loss:
        """See :meth:`StepsTask.loss`; nothing is carried on."""
        if batch.inputs.is_floating_point():
            batch = batch._replace(inputs=batch.inputs.to(model.dtype))
        return window_loss(model, batch, None, drawn, objective, watch)._replace(state=None)

    @torch.no_grad()
    def log_probs(self, model: LanguageModel, rows: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers of rows and log-probabilities (classes,) of their labels, float64, the shortest rows first."""
        model.eval()
        order = sorted(range(len(rows)), key=lambda place: (len(rows[place]), place))
        for low in range(0, len(order), self._settings.rows):
            chosen = order[low : low + self._settings.rows]
            inputs, reset = padded([rows[place] for place in chosen])
            inputs = inputs.to(model.dtype) if inputs.is_floating_point() else inputs
            reset = reset.to(model.device)
            out = model(inputs.to(model.device), None, reset)
            found = model.head.class_logits(out.dropped, reset).double().log_softmax(-1).cpu().numpy()
            yield from zip(chosen, found, strict=True)

    def text_log_probs(self, model: LanguageModel, texts: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
        """See :meth:`Labels.text_log_probs`."""
        return self.log_probs(model, [self.row(text)[: self._settings.longest] for text in texts])

    def evaluate(
        self, model: LanguageModel, examples: LabelledSplit, how: Evaluation, advance: Advance | None = None
    ) -> TaskResult:
        """See :meth:`Task.evaluate`; the fast form and the exact one are the same. Accuracies by length, and by the
        groups of the rows, are among the figures."""
        split = examples.beginning(how.limit)
        nats, right = np.zeros(len(split)), np.zeros(len(split), bool)
        for done, (place, log_prob) in enumerate(self.log_probs(model, split.rows), 1):
            nats[place] = -log_prob[split.labels[place]]
            right[place] = log_prob.argmax() == split.labels[place]
            if advance is not None:
                advance(done, len(split), float(nats.sum()) / done)
        powers = np.ceil(np.log2(split.lengths)).astype(int)
        groups = {f"length_{2 ** (p - 1) + 1 if p else 1}_{2**p}": powers == p for p in np.unique(powers)}
        for name, values in split.groups.items():
            groups |= grouped(name, values)
        return self.measured(nats, right, groups, len(split), how)

    def provenance(self) -> dict[str, Any]:
        """See :meth:`Task.provenance`."""
        return {} if self.tokenizer is None else {"tokenizer": self.tokenizer.fingerprint()}

    def record(self, model: LanguageModel) -> dict[str, Any]:
        """See :meth:`Task.record`."""
        symbols = {} if self.tokenizer is None else {"symbols": self.tokenizer.symbols_checksum()}
        return {
            "precision": self.config.model.compute.precision,
            "data": self._settings.data.model_dump(mode="json"),
            "classes": list(self.classes),
            "cut": {split: part.rows_cut for split, part in self.splits.items()},
            **self.provenance(),
            **symbols,
            "parameters": model.num_params(),
        }

    def describe(self, model: LanguageModel) -> str:
        """See :meth:`StepsTask.describe`."""
        config, train = model.config, self.splits["train"]
        cells = ", ".join(dict.fromkeys(cell.name for cell in config.layer_cells()))
        return (
            f"{self._settings.data.name}: {len(train):,} training rows of up to {train.lengths.max():,} steps, "
            f"{len(self.classes)} classes; {config.layers} x {cells} {config.layer_widths()[0]}, "
            f"{model.num_params():,} parameters"
        )
