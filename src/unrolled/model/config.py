"""Configuration of a whole language model."""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from unrolled.cells import CELLS, AnyCellConfig
from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.graph import Graph
from unrolled.core.registry import cut
from unrolled.kernels.dispatch import Compute
from unrolled.model.blocks import StackConfig
from unrolled.model.dropout import DropoutConfig
from unrolled.model.embedding import EmbeddingConfig
from unrolled.model.heads import AnyHeadConfig
from unrolled.model.heads.softmax import SoftmaxConfig
from unrolled.model.memory import AnyMemoryConfig

__all__ = ["ModelConfig"]


class ModelConfig(Config):
    """A whole language model, but for the vocabulary size, which the tokenizer gives."""

    width: int = Field(default=256, ge=1, le=1 << 20, description="width of every layer")
    layers: int = Field(default=1, ge=1, le=1024, description="number of layers")
    params: int | None = Field(
        default=None,
        ge=1,
        le=1 << 40,
        description="take the largest width whose model has at most so many parameters, in place of width; widths that "
        "are given keep their proportion",
    )
    widths: tuple[Annotated[int, Field(ge=1, le=1 << 20)], ...] | None = Field(
        default=None, description="width of each layer, in place of width (absent: all equal)"
    )
    cell: AnyCellConfig | tuple[AnyCellConfig, ...] = Field(
        default_factory=lambda: CELLS.parse("lstm"),
        description="the cell, or a list with one cell a layer",
    )
    embedding: EmbeddingConfig = Field(default=EmbeddingConfig(), description="token embedding")
    stack: StackConfig = Field(default=StackConfig(), description="connection of the layers")
    memory: AnyMemoryConfig | None = Field(
        default=None, description="what is carried from one segment of a text to the next (absent: no segments)"
    )
    head: AnyHeadConfig = Field(default=SoftmaxConfig(), description="output layer")
    dropout: DropoutConfig = Field(default=DropoutConfig(), description="dropout rates by site")
    init_std: float | None = Field(
        default=None,
        gt=0,
        le=1e4,
        description="draw every matrix anew from a normal distribution of this standard deviation, but for those that "
        "a cell begins in a way of its own (absent: each part's initialisation)",
    )
    compute: Compute = Field(default=Compute(), description="backend and precision of the operations")

    @model_validator(mode="before")
    @classmethod
    def _pattern(cls, value: Any) -> Any:
        """Layers as a pattern, ``"mamba, window_attention*2, mlp"``: the list of cells in short. It is repeated where
        ``layers`` asks for a multiple of its length. A table ``{pattern = "mamba*2, mlp", mlp = {factor = 2}}`` gives
        cells of the pattern options."""
        if not isinstance(value, Mapping):
            return value
        pattern, options = value.get("cell"), {}
        if isinstance(pattern, Mapping) and "pattern" in pattern:
            options = dict(pattern)
            pattern = options.pop("pattern")
        if not isinstance(pattern, str) or not (options or "," in pattern or "*" in pattern):
            return value
        cells = _with_options(_layers_of(pattern), options)
        layers = value.get("layers", len(cells))
        times = layers // len(cells) if isinstance(layers, int) and layers % len(cells) == 0 else 1
        return {**value, "cell": cells * times, "layers": layers}

    @model_validator(mode="after")
    def _consistent(self) -> "ModelConfig":
        for name, value in (("widths", self.widths), ("cell", self.cell if isinstance(self.cell, tuple) else None)):
            if value is not None and len(value) != self.layers:
                raise UsageError(f"model.{name} has {len(value)} entries for {self.layers} layers; give one a layer.")
        return self

    def layer_cells(self) -> tuple[Any, ...]:
        """The cell config of each layer."""
        return self.cell if isinstance(self.cell, tuple) else (self.cell,) * self.layers

    def with_graph(self, graph: Callable[[], Graph]) -> Self:
        """The configuration for data whose numbers are nodes of a graph; see :meth:`CellConfig.with_graph`."""
        cells = tuple(cell.with_graph(graph) for cell in self.layer_cells())
        return self.model_copy(update={"cell": cells if isinstance(self.cell, tuple) else cells[0]})

    def layer_widths(self) -> tuple[int, ...]:
        """The width of each layer."""
        return self.widths or (self.width,) * self.layers


def _with_options(names: list[str], options: Mapping[str, Any]) -> list[Any]:
    """The cells of a pattern. Raises UsageError for options of a cell that is not in it, or that are no table."""
    for name, given in options.items():
        if name not in names:
            raise UsageError(
                f"model.cell gives options of {cut(str(name))!r}, which its pattern does not name; it names "
                f"{', '.join(dict.fromkeys(names))}."
            )
        if not isinstance(given, Mapping) or "name" in given:
            raise UsageError(f"model.cell.{name} are the options of {name} in the pattern; give a table of them.")
    return [{"name": name, **options[name]} if name in options else name for name in names]


def _layers_of(pattern: str) -> list[str]:
    """The names of a pattern's layers. Raises UsageError for what is no pattern, or names no cell."""
    found: list[str] = []
    for part in pattern.split(","):
        name, star, times = (piece.strip() for piece in part.partition("*"))
        if not name or (star and not times.isdecimal()) or times == "0" or len(times) > 4:
            raise UsageError(
                f"{cut(pattern)!r} is no pattern of layers: write names with commas between, as in lstm*2, mlp."
            )
        _ = CELLS[name]
        found += [name] * (int(times) if star else 1)
    return found
