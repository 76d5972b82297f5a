"""What is to be measured, and how often."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PositiveInt, SerializeAsAny, field_validator, model_validator

from unrolled.bench.ways import parse_way
from unrolled.cells import CELLS, CellConfig
from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.kernels import OPERATIONS
from unrolled.kernels.dispatch import measurable, operation_named

__all__ = ["BenchConfig", "Mode", "Precision"]

# A table of one cell ends in about a minute, and a larger one has as much time for each row.
_SECONDS, _SECONDS_A_ROW = 60.0, 8.0
# what a run says itself
_OF_RUN = ("cells", "backends", "widths", "layers", "vocabulary", "text")

Mode = Literal["forward", "both", "step", "decode"]
Precision = Literal["float32", "bf16", "int8"]


def _subject(value: Any) -> Any:
    if isinstance(value, str) and value.partition(":")[0] in OPERATIONS:
        operation = operation_named(value)
        # an operation whose input is a cell is measured by that
        return value if operation.cell is None else CELLS.parse(operation.cell)
    if isinstance(value, str) and value not in CELLS:
        raise unknown_name("cell or operation", value, [*CELLS, *measurable()])
    return CELLS.parse(value)


AnySubject = Annotated[SerializeAsAny[CellConfig] | str, BeforeValidator(_subject)]


class BenchConfig(Config):
    """Which rows are measured: every combination of cells, backends, sizes, passes and precisions."""

    cells: tuple[AnySubject, ...] = Field(
        default=tuple(_subject(name) for name in ("lstm", "gru", "mlstm", "mgru", "mogrifier")),
        min_length=1,
        description="cells by name or as tables, or operations by name",
    )
    backends: tuple[str, ...] = Field(
        default=(),
        description="backends by name (absent: every one that serves the cell, the reference as a peer); decoding has "
        "none to choose",
    )
    widths: tuple[PositiveInt, ...] = Field(default=(256, 512), min_length=1, description="widths of input and cell")
    batches: tuple[PositiveInt, ...] = Field(default=(32,), min_length=1, description="sequences side by side")
    windows: tuple[PositiveInt, ...] = Field(default=(100,), min_length=1, description="steps of a window")
    passes: tuple[Mode, ...] = Field(
        default=("both",),
        min_length=1,
        description="forward (without gradients), both (forward and backward), step (one step a call, no gradients), "
        "decode (a whole model predicts and reads one token a call)",
    )
    precisions: tuple[Precision, ...] = Field(
        default=("float32",),
        min_length=1,
        description="float32 or bf16 products; for decode the weights, which may be int8 too",
    )
    layers: PositiveInt = Field(default=2, description="layers of the model that decodes")
    vocabulary: PositiveInt = Field(default=256, description="ids of the model that decodes")
    ways: tuple[str, ...] = Field(
        default=(),
        description="ways of writing, each timed as texts of the pass decode beside plain draws: settings with commas "
        "between, of the sampler, a method (beams, search, draft, guidance, contrast), a constraint, or at test time",
    )
    run: str | None = Field(
        default=None,
        description="folder of a run whose model decodes and writes, in place of models of cells with random weights; "
        "cells, width, layers and vocabulary are its own",
    )
    text: PositiveInt = Field(
        default=20_000,
        description="bytes of the random words that ways with a memory or statistics of a training text are given, "
        "where the model comes from no run",
    )
    repeats: int = Field(default=7, ge=1, description="repetitions; in each of them every row is timed once")
    seconds: float | None = Field(
        default=None,
        gt=0,
        description="for the whole measurement, checks and peaks too: no repetition that would end later is begun, but "
        "one there is (absent: 60, or 8 for each row where that is more)",
    )
    peers: bool = Field(default=True, description="time torch.nn.LSTM or GRU, the reference and the published loop too")
    clock: Literal["wall", "cpu"] = Field(
        default="wall",
        description="what is timed: wall-clock time, or CPU time of the process, all its threads added up, which other "
        "programs disturb less; the limit of seconds is of the same clock",
    )
    seed: int = Field(default=0, description="draws the order of the rows in each repetition")
    peak_size: PositiveInt = Field(
        default=2048, description="rows and columns, at most, of the matrices whose product is the peak"
    )
    copy_bytes: int = Field(
        default=256_000_000, ge=4, description="bytes copied, at most, to measure the bandwidth of memory"
    )
    read_bytes: int = Field(
        default=16_000_000, ge=4, description="bytes read, at most, to measure how fast weights are read"
    )
    least_seconds: float = Field(default=0.02, gt=0, description="a call is repeated until it has taken so long")

    def budget(self, rows: int) -> float:
        """Seconds for the whole measurement of so many rows."""
        return max(_SECONDS, _SECONDS_A_ROW * rows) if self.seconds is None else self.seconds

    @model_validator(mode="after")
    def _choosing(self) -> "BenchConfig":
        for way in self.ways:
            parse_way(way)
        if self.run is not None:
            given = [name for name in _OF_RUN if self._says(name)]
            if given:
                raise UsageError(f"a run has its own cells, sizes, ids and text; leave out {given[0]}, or the run.")
            if self.passes != ("decode",):
                raise UsageError("the model of a run is measured with the pass decode alone; give --pass decode.")
        elif self.ways and ("decode" not in self.passes or self.vocabulary != 256):
            raise UsageError("ways of writing are timed with the pass decode over bytes; give it, and 256 ids.")
        return self

    def _says(self, name: str) -> bool:
        return getattr(self, name) != type(self).model_fields[name].default

    @field_validator("backends")
    @classmethod
    def _known(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        known = {name for operation in OPERATIONS for name in OPERATIONS[operation].backends} | {"auto"}
        for name in value:
            if name not in known:
                raise unknown_name("backend", name, known)
        return value
