"""Scheduled sampling: a model of frames that is trained on frames of its own, little by little."""

import math
from typing import Any, NamedTuple

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data import Window
from unrolled.model import LanguageModel, ModelOutput, ModelState
from unrolled.model.dropout import Masks

__all__ = ["Sampled", "SamplingConfig", "read_sampled"]


class SamplingConfig(Config):
    """Settings of scheduled sampling; what is counted are windows of training, which are updates without
    ``train.accumulate``."""

    begin: int = Field(default=0, ge=0, le=1 << 40, description="windows before the chance of a true frame falls")
    end: int = Field(ge=1, le=1 << 40, description="windows after which it is 0; between, it falls on a line")
    first: float = Field(default=1.0, ge=0, le=1, description="the chance before it falls (PredRNN: 0.5)")
    context: float | None = Field(
        default=None,
        ge=0,
        le=1,
        description="reverse scheduled sampling (PredRNN: 0.5): the chance of a true frame among the first task.given "
        "of a sequence, which rises to 1 (absent: these are true)",
    )
    rise: float = Field(
        default=2500.0, gt=0, le=1e12, description="windows in which what is missing of that chance falls to 1/e"
    )

    @model_validator(mode="after")
    def _order(self) -> "SamplingConfig":
        if self.end <= self.begin:
            raise UsageError(f"sampling ends at {self.end} and begins at {self.begin}; let it end later.")
        return self

    def chances(self, position: int) -> tuple[float, float]:
        """Of a true frame, in the context and behind it, in the window with this number."""
        gone = max(0.0, position - self.begin)
        inside = 1.0
        if self.context is not None and position < self.end:
            inside = 1 - (1 - self.context) * math.exp(-gone / self.rise)
        return inside, self.first * max(0.0, 1 - gone / (self.end - self.begin))

    def draw(
        self, reset: Tensor | None, shape: tuple[int, int], given: int, streams: RandomStreams, position: int
    ) -> Tensor:
        """Where the model's own frame takes the place of the true one, boolean (columns, time).

        Args:
            reset: (columns, time), where sequences begin; frames of a window before the first belong to no context.
            shape: of all columns of the run. given: frames of a sequence that are its context. position: the window's.
        """
        inside, behind = self.chances(position)
        drawn = torch.rand(shape, generator=streams.generator("sampling", position), dtype=torch.float64)
        own = streams.part(shape[0])
        drawn = drawn[own.start : own.stop]
        steps = torch.arange(shape[1])
        begun = torch.full_like(drawn, -1) if reset is None else torch.where(reset.cpu(), steps, -1).cummax(1).values
        # the input of place p is the frame p - 1 of its sequence
        context = (begun >= 0) & (steps - begun <= given)
        taken = drawn >= torch.where(context, inside, behind)
        return taken & (begun != steps)


class Sampled(NamedTuple):
    """masks: of dropout. own: see :meth:`SamplingConfig.draw`."""

    masks: Masks | None
    own: Tensor


def read_sampled(model: LanguageModel, batch: Window, state: ModelState, own: Tensor) -> ModelOutput:
    """A window read frame by frame, where the mean of what the model expects takes the place of the true frame before
    (Bengio, Vinyals, Jaitly and Shazeer 2015, arXiv:1506.03099; for frames as Wang et al. 2021, arXiv:2103.09504).
    Gradients go through these frames. The first input of a window is always true, since what the model expected of it
    belongs to the window before.

    Args:
        own: boolean (columns, time).
    Returns:
        the same as the model's call.
    """
    head: Any = model.head
    own = own.to(batch.inputs.device)
    parts: list[ModelOutput] = []
    for t in range(batch.inputs.shape[1]):
        x = batch.inputs[:, t : t + 1]
        if parts and bool(own[:, t].any()):
            expected = head.scale.own(head.centre(head.outputs(parts[-1].dropped)))
            x = torch.where(own[:, t].view(-1, 1, 1), expected, x)
        parts.append(model(x, state, None if batch.reset is None else batch.reset[:, t : t + 1]))
        state = parts[-1].state
    handed = {name: torch.cat([part.handed[name] for part in parts], 1) for name in parts[0].handed}
    raw, dropped = (torch.cat([getattr(part, name) for part in parts], 1) for name in ("raw", "dropped"))
    return ModelOutput(raw, dropped, state, handed)
