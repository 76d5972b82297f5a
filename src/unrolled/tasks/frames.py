"""The task of frames: the next vector of numbers of a sequence, in parallel columns with the state carried on."""

from functools import cached_property, partial
from typing import Any

import numpy as np
import torch

from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.core.graph import Graph
from unrolled.core.random import RandomStreams
from unrolled.data import MissingCorpusError, Window
from unrolled.data.frames import FRAMES, FrameSource, FrameSplit, FrameStream, frame_rows
from unrolled.generate.pictures import continue_frames
from unrolled.model import LanguageModel, ModelState
from unrolled.model.dropout import Masks
from unrolled.model.frames import Scale
from unrolled.model.frames.ends import FrameEnds
from unrolled.runs import RunConfig
from unrolled.task import (
    Evaluation,
    Goal,
    Loss,
    Objective,
    Saved,
    Size,
    StepsTask,
    TaskResult,
    Watch,
    unwatched,
)
from unrolled.task.values import Advance
from unrolled.tasks.frames_config import FramesTaskConfig
from unrolled.tasks.lm import window_loss
from unrolled.tasks.scheduled import Sampled, read_sampled

__all__ = ["Frames", "FramesTaskConfig"]


class Frames(StepsTask):
    """Minimises the nats of the next frame, summed over its numbers. A sequence begins with a frame of zeros and a
    fresh state; evaluation reads every sequence from its beginning, in rows of similar length."""

    Config = FramesTaskConfig
    EXAMPLES = (
        FramesTaskConfig.parse({"frames": {"name": "chorales", "pieces": 24, "held": 4}}),
        FramesTaskConfig.parse({
            "frames": {"name": "strokes", "lines": 12, "held": 3}, "head": {"name": "mixture", "components": 3},
        }),
        FramesTaskConfig.parse({
            "frames": {"name": "squares", "side": 5, "square": 2, "length": 4, "sequences": 20},
            "head": {"name": "values"}, "given": 2, "plain": True,
        }),
    )  # fmt: skip
    noun = "a model of frames"
    unit = "frames"
    reads = ("model", "stream", "train")
    reads_text = False
    frames = True
    goal = Goal("nats")
    rows_setting = "stream.columns"

    config: RunConfig

    def __init__(self, config: RunConfig, streams: RandomStreams, saved: Saved | None = None):
        super().__init__(config, streams, saved)
        if saved is None:
            own = self._settings
            if own.shift is not None or own.scale is not None or own.bits is not None:
                raise UsageError("task.shift, task.scale and task.bits are found from the frames; leave them out.")
            train, source = self.splits["train"], self.frame_source
            reals = train.channels - source.bits
            shift, scale = (0.0,) * reals, (1.0,) * reals
            if own.normalize and reals:
                mean, deviation = train.moments(reals)
                if not deviation.all():
                    raise UsageError("a channel of the training frames is constant; leave it out, or the scaling.")
                shift, scale = tuple(mean.tolist()), tuple(deviation.tolist())
            settled = own.model_copy(update={"shift": shift, "scale": scale, "bits": source.bits})
            self.config = config.model_copy(update={"task": settled})

    @property
    def _settings(self) -> FramesTaskConfig:
        assert isinstance(self.config.task, FramesTaskConfig)
        return self.config.task

    @cached_property
    def frame_source(self) -> FrameSource:
        """Where the sequences come from."""
        config = self._settings.frames
        return FRAMES[config.name](config)

    @cached_property
    def splits(self) -> dict[str, FrameSplit]:
        """See :class:`unrolled.task.Task`."""
        return self.frame_source.splits()

    @property
    def scale(self) -> Scale:
        """What frames are. Raises UsageError where a run's config does not say it."""
        own = self._settings
        if own.shift is None or own.scale is None or own.bits is None or len(own.shift) != len(own.scale):
            raise UsageError("the config of this run does not say what its frames are: it is damaged; train anew.")
        return Scale(own.shift, own.scale, own.bits)

    def build(self) -> LanguageModel:
        """See :meth:`StepsTask.build`; cells that need it are told the graph of the frames."""
        own = self.config.model.with_graph(self._graph)
        self.config = self.config.model_copy(update={"model": own})
        return LanguageModel(own, self.scale.channels, FrameEnds(self.scale, self._settings.head, self._settings.plain))

    def _graph(self) -> Graph:
        """Of the frames. Raises UsageError where they are not those of nodes."""
        graph = self.frame_source.graph
        if graph is None:
            raise UsageError(
                f"frames of kind {self._settings.frames.name} have no graph here; set model.cell.graph=ring, or give "
                "model.cell.nodes and model.cell.edges (frames of kind files: task.frames.graph)."
            )
        return graph

    def source(self) -> FrameStream:
        """See :meth:`StepsTask.source`."""
        own = self.streams.part(self.config.stream.columns)
        return FrameStream(self.splits["train"], self.config.stream, self.streams, own)

    def rows(self) -> int:
        """See :meth:`StepsTask.rows`."""
        return self.config.stream.columns

    def initial_state(self, model: LanguageModel) -> ModelState:
        """See :meth:`StepsTask.initial_state`."""
        return model.initial_state(len(self.streams.part(self.config.stream.columns)))

    def draw(self, model: LanguageModel, batch: Window, position: int) -> Masks | Sampled | None:
        """Dropout masks, and which frames are the model's own."""
        columns, time = batch.inputs.shape[:2]
        masks, how = model.draw_masks(columns, time, self.streams, position), self._settings.sampling
        if how is None:
            return masks
        if masks is not None:
            raise UsageError("scheduled sampling reads frame by frame, without dropout; leave out model.dropout.")
        shape = (self.rows() or columns, time)
        return Sampled(masks, how.draw(batch.reset, shape, self._settings.given, self.streams, position))

    def loss(
        self,
        model: LanguageModel,
        batch: Window,
        state: ModelState | None,
        drawn: Masks | Sampled | None,
        objective: Objective,
        watch: Watch = unwatched,
    ) -> Loss:
        """See :meth:`StepsTask.loss`."""
        own = None
        if isinstance(drawn, Sampled):
            drawn, own = drawn.masks, drawn.own
        read = None if own is None or not own.any() else partial(read_sampled, own=own)
        like = batch._replace(inputs=batch.inputs.to(model.dtype), targets=batch.targets.to(model.dtype))
        return window_loss(model, like, state, drawn, objective, watch, read)

    def chance(self) -> float | None:
        """Of a standard normal of the scaled numbers and of even bits; None where that is no sensible bound, since
        nats of real numbers may be below zero."""
        with torch.device("meta"):
            nats = self.build().head.uniform_nats()
        return nats if nats > 0 else None

    @torch.no_grad()
    def evaluate(
        self, model: LanguageModel, examples: FrameSplit, how: Evaluation, advance: Advance | None = None
    ) -> TaskResult:
        """See :meth:`Task.evaluate`; the fast form and the exact one are the same."""
        model.eval()
        split = examples.beginning(how.limit)
        nats, frames, state = 0.0, 0, None
        squares, copied = 0.0, 0.0
        for part in frame_rows(split, self._settings.rows):
            inputs, targets = (one.to(model.device, model.dtype) for one in (part.inputs, part.targets))
            state = self._first(model, how.split, part.order) if part.first else tree.detach(state)
            out = model(inputs, state)
            nll, state = model.score(out, targets)[1:]
            counts = part.weight.to(nll.device) > 0
            squares += float((model.head.mean(out.dropped) - targets)[counts].double().square().sum())
            copied += float((inputs - targets)[counts].double().square().sum())
            nats, frames = nats + float(nll[counts].double().sum()), frames + int(counts.sum())
            if advance is not None:
                advance(frames, len(split), nats / frames)
        return TaskResult(
            task=self._settings.name,
            figures={
                "nats": nats / frames,
                "nats_per_number": nats / frames / split.channels,
                "mse": squares / frames / split.channels,
                "mse_of_copying": copied / frames / split.channels,
                **self._future(model, split, how.split),
            },
            counts={"frames": frames, "sequences": len(split.starts)},
            protocol={"frames": self._settings.frames.name, "split": how.split},
            provenance={**self.provenance(), **how.provenance},
        )

    def _future(self, model: LanguageModel, split: FrameSplit, name: str) -> dict[str, float]:
        """Mean squared errors of the frames after ``task.given`` ones, each made from the model's own before it, beside
        those of the last given frame."""
        given = self._settings.given
        if not given:
            return {}
        found, count = np.zeros(2), 0
        for part in frame_rows(split, self._settings.rows, int(split.lengths().max())):
            kept = part.weight.sum(1) > given
            if not kept.any():
                continue
            targets = part.targets[kept].to(model.device, model.dtype)
            there = part.weight[kept][:, given:].to(model.device) > 0
            state = self._first(model, name, part.order[kept.numpy()])
            made = continue_frames(model, targets[:, :given], targets.shape[1] - given, state)
            last = targets[:, given - 1 : given]
            wanted = targets[:, given:]
            for place, frames in enumerate((made, last.expand_as(wanted))):
                found[place] += float((frames - wanted)[there].double().square().sum())
            count += int(there.sum()) * split.channels
        if not count:
            raise UsageError(f"no sequence is longer than the {given} frames that are given; lower task.given.")
        return {"mse_future": found[0] / count, "mse_future_of_copying": found[1] / count}

    def _first(self, model: LanguageModel, split: str, order: np.ndarray) -> ModelState:
        """The state before sequences of a split, by their numbers."""
        return model.initial_state(len(order))

    @classmethod
    def told(cls, result: TaskResult) -> str:
        """See :meth:`Task.told`."""
        return f"{result.figures['nats']:.4f} nats per frame"

    def changed(self, split: str, run: Any) -> str:
        """See :meth:`Task.changed`."""
        return (
            f"the {split} frames are not those that {run} was begun with; bring these back, or train anew with another "
            "--out."
        )

    def record(self, model: LanguageModel) -> dict[str, Any]:
        """See :meth:`Task.record`."""
        return {
            "precision": self.config.model.compute.precision,
            "frames": self._settings.frames.model_dump(mode="json"),
            "channels": self.scale.channels,
            "parameters": model.num_params(),
            "flops_per_token": model.flops_per_token(),
        }

    def describe(self, model: LanguageModel) -> str:
        """See :meth:`StepsTask.describe`."""
        config, train = model.config, self.splits["train"]
        cells = ", ".join(dict.fromkeys(cell.name for cell in config.layer_cells()))
        return (
            f"{self._settings.frames.name}: {len(train):,} training frames of {train.channels} numbers in "
            f"{len(train.starts):,} sequences; {config.layers} x {cells} {config.layer_widths()[0]}, "
            f"{model.num_params():,} parameters"
        )

    def operations(self, model: LanguageModel, targets: int) -> dict[str, int]:
        """See :meth:`StepsTask.operations`."""
        whole = targets * model.flops_per_token()
        return {"forward": whole, "backward": 2 * whole}

    @classmethod
    def size(cls, config: RunConfig) -> Size:
        """See :meth:`Task.size`; frames that are absent are told."""
        try:
            return super().size(config)
        except MissingCorpusError as error:
            per_batch = config.stream.columns * config.stream.window
            return Size({"parameters": None}, None, None, None, per_batch, f"absent: {error}")
