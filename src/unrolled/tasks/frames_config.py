"""Settings of the task of frames."""

from typing import Literal

from pydantic import Field

from unrolled.data.frames import FRAMES, AnyFramesConfig
from unrolled.model.frames import AnyFrameHeadConfig
from unrolled.model.frames.bernoulli import BernoulliConfig
from unrolled.task import TaskConfig
from unrolled.tasks.scheduled import SamplingConfig

__all__ = ["FramesTaskConfig"]


class FramesTaskConfig(TaskConfig):
    """Settings of a task of frames."""

    name: Literal["frames"] = "frames"
    frames: AnyFramesConfig = Field(
        default_factory=lambda: FRAMES.parse("chorales"), description="where the sequences come from"
    )
    head: AnyFrameHeadConfig = Field(default=BernoulliConfig(), description="the density of a frame")
    plain: bool = Field(
        default=False,
        description="frames go to the first layer as they are, for cells that know what a frame looks like (st_lstm); "
        "else through a linear map",
    )
    normalize: bool = Field(
        default=True,
        description="shift and scale real channels to mean 0 and deviation 1 over the training frames, inside the "
        "model: nats and draws stay in the channels' own units",
    )
    rows: int = Field(default=32, ge=1, le=1 << 16, description="sequences side by side in evaluation")
    given: int = Field(
        default=0,
        ge=0,
        le=1 << 20,
        description="evaluation also has the model go on by itself after so many frames of each sequence, each frame "
        "the mean of what it expects (0: it does not)",
    )
    sampling: SamplingConfig | None = Field(
        default=None,
        description="scheduled sampling: in training the model's own frames take the place of true ones, little by "
        "little (absent: all are true)",
    )
    shift: tuple[float, ...] | None = Field(default=None, description="of the real channels; kept in the run")
    scale: tuple[float, ...] | None = Field(default=None, description="of the real channels; kept in the run")
    bits: int | None = Field(default=None, ge=0, description="how many channels behind them are bits; kept in the run")
