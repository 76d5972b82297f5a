"""Configuration of training in several processes."""

from typing import Literal

from pydantic import Field

from unrolled.core.config import Config

__all__ = ["ParallelConfig"]


class ParallelConfig(Config):
    """How the processes that ``torchrun`` starts share a run. Alone, only ``shards`` matters."""

    kind: Literal["auto", "ddp", "fsdp", "none"] = Field(
        default="auto",
        description="ddp: every process holds the whole model; fsdp: each a part of every parameter, gradient and "
        "optimiser tensor; auto: ddp where that fits into memory; none: more than one process is refused",
    )
    shards: int | None = Field(
        default=None,
        ge=1,
        le=1 << 20,
        description="equal groups of the run's columns, each with its own states and masks, which processes share; "
        "fixed for the life of a run, a multiple of every number of processes that it has (absent: the number at its "
        "start)",
    )
    replicas: int = Field(
        default=1, ge=1, description="fsdp: groups of processes (nodes) that each hold the whole model between them"
    )
    reduce: Literal["float32", "bf16"] = Field(
        default="float32",
        description="precision in which gradients travel and are added up: float32 (that of the parameters), or bf16, "
        "half the traffic",
    )
    carried: Literal["save", "drop"] = Field(
        default="save",
        description="whether a training state keeps the states that are carried from window to window; dropped, they "
        "begin anew when a run is resumed, which is then not exact",
    )
