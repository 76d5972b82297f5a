"""The task of writing: frames of a pen, given the text that is to be written."""

from collections.abc import Sequence
from functools import cached_property
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unrolled.cells.gated.gaussian_window import GaussianWindow, GaussianWindowConfig
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.frames import FrameSplit, frame_rows
from unrolled.model import LanguageModel, ModelState
from unrolled.task import Loss, Objective, Saved, Watch, unwatched
from unrolled.tasks.frames import Frames, FramesTaskConfig
from unrolled.tasks.lm import window_loss

__all__ = ["Written", "WrittenConfig", "letters_of"]

# Letters that can be written, at least, where a recipe does not say it.
_LENGTH = 16


class WrittenConfig(FramesTaskConfig):
    """Settings of the task of writing."""

    name: Literal["written"] = "written"  # type: ignore[assignment]
    batch: int = Field(default=32, ge=1, le=1 << 16, description="lines of a training batch")


class WrittenWindow(NamedTuple):
    """As :class:`unrolled.data.Window`, of whole lines; text: (rows, letters) ids, -1 behind a text's end."""

    inputs: Tensor
    targets: Tensor
    reset: Tensor | None
    weight: Tensor
    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, as in Window
    carried: bool
    restart: Tensor | None
    text: Tensor


class WrittenSource:
    """Batches of whole lines, in a new order each epoch; the tail that does not fill a batch is left out.

    Raises:
        UsageError: fewer lines than a batch.
    """

    def __init__(self, split: FrameSplit, texts: Tensor, batch: int, streams: RandomStreams):
        self._split, self._texts, self._batch, self._streams = split, texts, batch, streams
        self._lengths = split.lengths()
        if len(self._lengths) < batch:
            raise UsageError(f"{len(self._lengths)} lines are fewer than task.batch = {batch}; lower it.")

    @property
    def full_batch(self) -> int:
        """Points of a batch, on average."""
        return max(1, round(self._batch * float(self._lengths.mean())))

    def windows_per_epoch(self) -> int:
        """Batches of an epoch."""
        return len(self._lengths) // self._batch

    def tokens_per_epoch(self) -> int:
        """Points of an epoch, on average."""
        return self.full_batch * self.windows_per_epoch()

    def at(self, position: int) -> WrittenWindow:
        """The batch with this number, counted from the start of training."""
        epoch, index = divmod(position, self.windows_per_epoch())
        order = torch.randperm(len(self._lengths), generator=self._streams.generator("order", epoch))
        chosen = order[index * self._batch : (index + 1) * self._batch]
        parts = [self._split.ids(int(b), int(b + n)) for b, n in zip(*self._places(chosen), strict=True)]
        lines = FrameSplit.of(parts)
        longest = int(lines.lengths().max())
        (rows,) = frame_rows(lines, self._batch, longest)
        text = self._texts[chosen[torch.from_numpy(rows.order)]]
        return WrittenWindow(rows.inputs, rows.targets, None, rows.weight, epoch, index, True, None, text)

    def _places(self, chosen: Tensor) -> tuple[np.ndarray, np.ndarray]:
        numbers = chosen.numpy()
        return self._split.starts[numbers], self._lengths[numbers]


def letters_of(texts: Sequence[str], letters: Sequence[str]) -> Tensor:
    """Texts as ids of letters (texts, longest), -1 behind the end of each.

    Raises:
        UsageError: an empty text, or a letter that there is not.
    """
    places = {letter: number for number, letter in enumerate(letters)}
    for text in texts:
        if not text or set(text) - set(places):
            raise UsageError(f"a text to be written has letters of {''.join(letters)} and no others; give such a text.")
    ids = torch.full((len(texts), max(map(len, texts))), -1)
    for row, text in zip(ids, texts, strict=True):
        row[: len(text)] = torch.tensor([places[letter] for letter in text])
    return ids


class Written(Frames):
    """As :class:`Frames`, given what is written (synthesis of Graves 2013): the first layer is a ``gaussian_window``,
    whose state holds the text of each line; where a recipe has none there, one is put around its first cell. Lines are
    whole in training too."""

    Config = WrittenConfig
    EXAMPLES: ClassVar[Any] = (
        WrittenConfig.parse({
            "frames": {"name": "strokes", "lines": 12, "held": 3}, "head": {"name": "mixture", "components": 3},
            "batch": 4,
        }),
    )  # fmt: skip
    noun = "a model of writing"
    unit = "points"
    reads = ("model", "train")
    writes = True
    rows_setting = ""

    def __init__(self, config: Any, streams: RandomStreams, saved: Saved | None = None):
        if config.task.sampling is not None:
            raise UsageError("the task written has no scheduled sampling; leave out task.sampling.")
        super().__init__(config, streams, saved)
        if not self.frame_source.letters:
            raise UsageError("these frames have no texts; set task.frames.name=strokes, or task.name=frames.")
        first, *others = self.config.model.layer_cells()
        if saved is None and first.name != "gaussian_window":
            length = max(_LENGTH, *(found.shape[1] for found in self.texts.values()))
            first = GaussianWindowConfig.parse({"cell": first, "symbols": len(self.letters), "length": length})
            model = self.config.model.model_copy(update={"cell": (first, *others)})
            self.config = self.config.model_copy(update={"model": model})

    @property
    def letters(self) -> tuple[str, ...]:
        """What can be written."""
        return self.frame_source.letters

    @cached_property
    def texts(self) -> dict[str, Tensor]:
        """What is written on each line of each split, see :func:`letters_of`."""
        return {split: letters_of(found, self.letters) for split, found in self.frame_source.texts().items()}

    def build(self) -> LanguageModel:
        """See :meth:`StepsTask.build`. Raises UsageError where the first layer reads another alphabet, or no text."""
        first = self.config.model.layer_cells()[0]
        if first.name != "gaussian_window" or first.symbols != len(self.letters):
            raise UsageError(
                f"a model of writing begins with a layer gaussian_window of {len(self.letters)} symbols; set the first "
                "of model.cell so."
            )
        return super().build()

    def source(self) -> Any:
        """See :meth:`StepsTask.source`."""
        config: Any = self.config.task
        return WrittenSource(self.splits["train"], self.texts["train"], config.batch, self.streams)

    def rows(self) -> None:
        """Lines differ in length: one process trains."""
        return

    def initial_state(self, model: LanguageModel) -> None:
        """Nothing is carried from batch to batch."""
        return

    def begun(self, model: LanguageModel, ids: Tensor) -> ModelState:
        """The state before the first frame of lines that are to be these texts (rows, letters)."""
        state, layer = model.initial_state(len(ids)), model.stack.cells()[0]
        assert isinstance(layer, GaussianWindow)
        first = layer.with_text(state.cells[0], ids.to(model.device))
        return ModelState((first, *state.cells[1:]), state.head)

    def loss(
        self,
        model: LanguageModel,
        batch: Any,
        state: None,
        drawn: Any,
        objective: Objective,
        watch: Watch = unwatched,
    ) -> Loss:
        """See :meth:`StepsTask.loss`."""
        like = batch._replace(inputs=batch.inputs.to(model.dtype), targets=batch.targets.to(model.dtype))
        return window_loss(model, like, self.begun(model, batch.text), drawn, objective, watch)._replace(state=None)

    def _first(self, model: LanguageModel, split: str, order: np.ndarray) -> ModelState:
        return self.begun(model, self.texts[split][torch.from_numpy(order)])
