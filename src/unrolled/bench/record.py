"""The record of a measurement, as it is printed, written and read."""

import json
import os
from typing import Any, ClassVar, Literal, Self

from pydantic import Field

from unrolled.bench.figures import Spread
from unrolled.core.config import Config, VersionedConfig
from unrolled.core.errors import UnrolledError, UsageError

__all__ = ["BenchRecord", "PeakRecord", "RowRecord"]


class PeakRecord(Config):
    """All measurements of one kind of peak."""

    unit: str = Field(description="GFLOP/s or GB/s")
    size: int | None = Field(
        default=None, description="rows and columns of the matrices multiplied, or bytes; None in older records"
    )
    median: float = Field(description="median of all measurements")
    lowest: float = Field(description="lowest of them")
    highest: float = Field(description="highest of them")
    measured: int = Field(description="number of measurements")


class RowRecord(Config):
    """One row of the table. Where it was not measured, ``reason`` says why and the figures are absent."""

    name: str = Field(description="the cell with the options that differ from its defaults")
    subject: str = Field(description="name of the cell or operation, or torch.nn.LSTM and the like, or a run")
    config: dict[str, Any] | None = Field(description="the cell's whole configuration")
    backend: str = Field(description="backend; published for the published loop, torch.nn for a module of torch")
    precision: str = Field(description="float32 or bf16 products")
    width: int = Field(description="width of input and cell")
    batch: int = Field(description="sequences side by side")
    window: int = Field(description="steps")
    mode: str = Field(description="forward, both, step or decode")
    layers: int = Field(default=0, description="of the model that decodes; 0 in other passes")
    vocabulary: int = Field(default=0, description="likewise, its ids")
    run: str = Field(
        default="", description="folder of the run whose model decodes; empty where its weights are random"
    )
    way: str = Field(default="", description="how the model chooses; empty where it reads what is given")
    status: Literal["measured", "refused", "cannot"] = Field(
        description="measured; refused: its check failed; cannot: its backend does not serve it"
    )
    reason: str | None = Field(default=None, description="why it was not measured")
    amount: int = Field(
        description="operations of the matrix products of one call; bytes where memory bounds it, or weights decoded"
    )
    seconds: Spread | None = Field(
        default=None, description="seconds of one call; where texts end early, of batch x window tokens at that speed"
    )
    share: Spread | None = Field(default=None, description="share of the peak measured beside it")
    tokens_per_second: float | None = Field(default=None, description="batch x window / median seconds")
    faster_than: dict[str, float] = Field(
        default={},
        description="how many times faster than a peer: torch.nn by arithmetic a second, all others by "
        "time; medians over the repetitions",
    )
    memory: int | None = Field(default=None, description="bytes by which one call makes the process grow at most")
    times: tuple[float, ...] = Field(default=(), description="seconds of one call in each repetition")

    def key(self) -> tuple[Any, ...]:
        """What makes a row of two records the same row."""
        config = None if self.config is None else json.dumps(self.config, sort_keys=True)
        sizes = self.width, self.batch, self.window, self.mode, self.layers, self.vocabulary, self.run, self.way
        return self.subject, config, self.backend, self.precision, *sizes


class BenchRecord(VersionedConfig):
    """Rows with the machine that they were measured on."""

    kind: ClassVar[str] = "bench"

    config: dict[str, Any] = Field(description="what was to be measured, and how often")
    environment: dict[str, Any] = Field(description="versions and hardware")
    native: str = Field(description="instruction set that the native library uses, or why there is none")
    instruction_sets: tuple[str, ...] = Field(description="those of the native library that the processor has")
    repetitions: int = Field(description="repetitions that were made")
    wall_seconds: float = Field(description="seconds of the repetitions together, by the clock of the config")
    peaks: dict[str, PeakRecord] = Field(description="what the machine reached of each kind that bounds a row")
    rows: tuple[RowRecord, ...] = Field(description="the table")

    def as_json(self) -> dict[str, Any]:
        """The record as plain JSON values, with the kind and version of its format."""
        return {"kind": self.kind, "version": self.current_version, **self.model_dump(mode="json")}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what ``unrolled bench --out`` wrote.

        Raises:
            UnrolledError: missing, damaged, of another kind, or of a newer version.
        """
        try:
            return super().load(path)
        except UsageError as error:
            raise UnrolledError(f"{path} is no bench record that can be read: {error}") from error
