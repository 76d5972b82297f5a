"""Stacks of cells: what all kinds of connection share."""

from collections import Counter
from collections.abc import Callable, MutableMapping, Sequence
from functools import partial
from typing import Any, Literal, Protocol

import torch
from pydantic import Field, field_validator
from torch import Tensor, nn

from unrolled.cells import CELLS, Cell, CellConfig, Noise, Place, StepCell
from unrolled.cells.feedforward.mlp import MLPKind
from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.registry import Registry
from unrolled.kernels.cell_loop import TableInput, dense
from unrolled.kernels.dispatch import Compute
from unrolled.model.blocks.glue import Drop, Glue, Layer, TensorGlue
from unrolled.model.blocks.norm import NormKind, RMSNorm, make_norm
from unrolled.model.dropout import apply_mask

__all__ = ["BLOCKS", "Around", "LayerTap", "Stack", "StackConfig", "make_stack"]

LayerTap = Callable[[int, str, Tensor], None]

BLOCKS: "Registry[type[Stack]]" = Registry(
    "kind of stack",
    {
        "plain": "unrolled.model.blocks.plain:PlainStack",
        "sum": "unrolled.model.blocks.plain:SumStack",
        "skip": "unrolled.model.blocks.plain:SkipStack",
        "residual": "unrolled.model.blocks.residual:ResidualStack",
    },
)


class Around(Protocol):
    """What stands around each layer within one call, such as the reading of a memory."""

    def before(self, layer: int, x: Tensor) -> Tensor:
        """What the layer reads, from what it would read."""
        ...

    def after(self, layer: int, y: Tensor) -> None:
        """Hears what the layer puts out."""
        ...


class StackConfig(Config):
    """How the layers are connected."""

    kind: str = Field(
        default="plain",
        description="plain: each layer reads the one below; sum: likewise, and the stack's output is the sum of all "
        "layers' outputs (Mogrifier LSTM); skip: each layer reads the input too, and the output is all layers' "
        "outputs side by side (Graves 2013); residual: x + cell(norm(x)), then x + mlp(norm(x)) where mlp is set",
    )
    norm: NormKind = Field(default="layer", description="normalisation of residual blocks: layer or rms")
    output_norm: NormKind | Literal["none"] = Field(
        default="none", description="normalisation of the stack's output (a residual stack always has its own)"
    )
    norm_epsilon: float | None = Field(
        default=None,
        gt=0,
        le=1,
        description="what all these norms add to the mean square (absent: layer 1e-5, rms 1e-6)",
    )
    norm_bias: bool = Field(default=True, description="whether layer norms among them have biases")
    input_norm: NormKind | Literal["none"] = Field(
        default="none", description="normalisation of the stack's input, the embedding (RWKV)"
    )
    mlp: float = Field(
        default=0.0,
        ge=0,
        le=1024,
        description="hidden width of a residual block's MLP, as a multiple of the width (0: none)",
    )
    mlp_kind: MLPKind = Field(
        default="gelu",
        description="that MLP: gelu, relu or relu2 (squared relu); swiglu, geglu or geglu_tanh (by tanh) with a gate",
    )
    mlp_bias: bool = Field(default=True, description="whether that MLP has biases")

    @field_validator("kind", mode="after")
    @classmethod
    def _known(cls, value: str) -> str:
        _ = BLOCKS[value]
        return value


class Stack(nn.Module):
    """Layers of cells, each of its own kind and width. A subclass says how they are connected.

    Args:
        in_width: width of the input. cells: one config a layer. widths: one a layer.

    Attributes:
        one_width: whether all outputs must have one width. beside: whether each layer reads the input beside the one
            below, and the output is that of all layers side by side. passed: how many numbers of the first layer's
            output those above the second read too, see :meth:`unrolled.cells.Cell.passes`. residual: whether one width
            is that of what the layers read.
        streams: vectors side by side between the layers, see :meth:`unrolled.cells.Cell.streams`; all start as the
            input.
        compute: backend and precision of what stands between the cells; set by the model that holds the stack.
        shows_below: whether what the last layer reads is among what is handed upwards, as ``below``, where there are
            several layers.
    Raises:
        UsageError: outputs that differ in width where they may not; a width that a cell does not accept; a
            StepCell that hands values upwards; cells beside others of another number of streams.
    """

    one_width = residual = beside = False
    shows_below = False

    def __init__(self, in_width: int, cells: Sequence[CellConfig], widths: Sequence[int], config: StackConfig):
        super().__init__()
        self.config, self.compute, self.in_width = config, Compute(), in_width
        outs = [CELLS[c.name].output_width(c, w) for c, w in zip(cells, widths, strict=True)]
        self.streams = self._streams(cells)
        if self.beside and self.streams > 1:
            raise UsageError(
                f"a {config.kind} stack has no streams side by side; set stack.kind=plain, or other cells."
            )
        if self.one_width and len(set(outs)) > 1:
            raise UsageError(f"a {config.kind} stack needs layers of one output width, not {outs}.")
        start = outs[0] // self.streams if self.residual else in_width
        self.widen = nn.Linear(in_width, start, bias=False) if in_width != start else None
        self.passed = CELLS[cells[0].name].passes(cells[0]) if self.beside else 0
        layers: list[Cell] = []
        width = start * self.streams
        for cell, size, out in zip(cells, widths, outs, strict=True):
            layers.append(CELLS[cell.name](width, size, cell))
            above = self.passed if layers[1:] else 0  # the second layer reads it in the output below
            width = start + above + out if self.beside else out
        self.layers = nn.ModuleList(layers)
        _place(layers)
        self.out_width = width = sum(outs) if self.beside else width
        begins = config.input_norm != "none"
        self.first_norm = (
            make_norm(config.input_norm, in_width, config.norm_epsilon, config.norm_bias) if begins else None
        )
        final = config.output_norm if config.output_norm != "none" else config.norm if self.residual else None
        each = width // self.streams
        self.final_norm = None if final is None else make_norm(final, each, config.norm_epsilon, config.norm_bias)
        self.build()

    def _streams(self, cells: Sequence[CellConfig]) -> int:
        found = [CELLS[cell.name].streams(cell) for cell in cells]
        for cell, count in zip(cells, found, strict=True):
            if count != found[0]:
                raise UsageError(
                    f"a layer of {cell.name} has {count} streams side by side and the first layer {found[0]}; give all "
                    "as many."
                )
        return found[0]

    def apart(self, act: Callable[[Any], Any], x: Any) -> Any:
        """act(x), of each stream by itself."""
        return act(x) if self.streams == 1 else act(x.unflatten(-1, (self.streams, -1))).flatten(-2)

    @property
    def branches(self) -> int:
        """How many values are added to what the layers read; 0 where they read each other."""
        return 0

    def build(self) -> None:
        """Make what stands between the layers, which exist."""

    def connect(self, x: Any, layer: Layer, drop: Drop, glue: Glue) -> Any:
        """The stack's output, before its norm, from its input; on tensors or on symbols, as ``glue`` has it.

        Args:
            x: the input. layer: runs one cell. drop: drops one layer's output, or one MLP's.
        """
        raise NotImplementedError

    def through(self, x: Any, layer: Layer, drop: Drop, glue: Glue) -> Any:
        """:meth:`connect`, with the norms of input and output."""
        if self.first_norm is not None:
            x = glue.norm(self.first_norm, glue.dense(x))
        if self.widen is not None:
            x = glue.linear(glue.dense(x), self.widen.weight)
        if self.streams > 1:
            x = glue.dense(x).repeat(1, 1, self.streams)
        y = self.connect(x, layer, drop, glue)
        final = self.final_norm
        return y if final is None else self.apart(partial(glue.norm, final), y)

    def glue(self) -> Glue:
        """The operations between the layers, on tensors."""
        return TensorGlue(self.compute)

    def cells(self) -> list[Cell]:
        """The layers, as cells."""
        return [layer for layer in self.layers if isinstance(layer, Cell)]

    def between(self) -> list[nn.Parameter]:
        """The parameters of what stands between the cells and acts on each stream."""
        outside = [*self.layers.parameters(), *(() if self.widen is None else self.widen.parameters())]
        held = set(map(id, outside))
        return [parameter for parameter in self.parameters() if id(parameter) not in held]

    def takes_table(self) -> bool:
        """Whether an input of rows of a table saves work: the first layer alone reads it, and projects it ahead."""
        return not self.residual and self.first_norm is None and isinstance(self.layers[0], StepCell)

    def rms_norms(self) -> list[RMSNorm]:
        """The norms by root mean square."""
        return [part for part in self.modules() if isinstance(part, RMSNorm)]

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> tuple[Any, ...]:
        """The initial state of every layer."""
        return tuple(layer.initial_state(batch, device, dtype) for layer in self.cells())

    def forward(
        self,
        x: Tensor | TableInput,
        state: tuple[Any, ...],
        reset: Tensor | None = None,
        between: Sequence[Tensor | None] = (),
        noise: Sequence[Noise | None] = (),
        tap: LayerTap | None = None,
        branch: Sequence[Tensor | None] = (),
        handed: MutableMapping[str, Tensor] | None = None,
        around: Around | None = None,
    ) -> tuple[Tensor, tuple[Any, ...]]:
        """Run all layers over a window.

        Args:
            x: (batch, time, in_width), or rows of a table. state: one a layer. reset: boolean (batch, time).
            between: dropout masks between layers, one for each but the last. noise: one a layer.
            tap: receives (layer, name, value).
            branch: dropout masks on what a residual stack adds, :attr:`branches` of them.
            handed: receives what the cells hand upwards, see :attr:`Cell.hands`.
            around: stands around every layer; None: nothing does.
        Returns:
            the output (batch, time, out_width), undropped, and the layers' states.
        """
        states: list[Any] = []
        given: MutableMapping[str, Tensor] = {} if handed is None else handed

        def run(i: int, entry: Tensor | TableInput) -> Tensor:
            layer: Any = self.layers[i]
            if around is not None:
                entry = around.before(i, dense(entry))
            options: dict[str, Any] = {"noise": noise[i] if noise else None}
            if tap is not None:
                options["tap"] = partial(tap, i)
            if layer.hands:
                options["handed"] = given
            if self.shows_below and i and i + 1 == len(self.layers):
                given["below"] = entry  # type: ignore[assignment]  # the first layer alone reads a table
            y, new = layer(entry, state[i], reset, **options)
            states.append(new)
            if around is not None:
                around.after(i, y)
            return y

        def drop(i: int, y: Tensor) -> Tensor:
            y = apply_mask(y, between[i]) if between and i < len(self.layers) - 1 else y
            return apply_mask(y, branch[i]) if branch else y

        return self.through(x, run, drop, self.glue()), tuple(states)


def _place(layers: Sequence[Cell]) -> None:
    """Tell each cell where it stands, and those of a kind what they share."""
    kinds: dict[Any, list[int]] = {}
    turns: Counter[Any] = Counter()
    turn: list[int] = []
    for i, cell in enumerate(layers):
        if cell.hands and isinstance(cell, StepCell):
            raise UsageError(
                f"{cell.name} goes step by step, so that it cannot hand values upwards; make it a MixerCell."
            )
        kind = type(cell), cell.config.model_dump_json()
        kinds.setdefault((*kind, cell.in_width, cell.width), []).append(i)
        turn.append(turns[kind])
        turns[kind] += 1
    for places in kinds.values():
        first = layers[places[0]]
        shared = first.make_shared(first.config, first.in_width, first.width, len(places))
        for index, i in enumerate(places):
            layers[i].take_place(Place(i, len(layers), index, len(places), shared, turn[i]))


def make_stack(in_width: int, cells: Sequence[CellConfig], widths: Sequence[int], config: StackConfig) -> Stack:
    """The stack of the kind that ``config`` names; see :class:`Stack`."""
    return BLOCKS[config.kind](in_width, cells, widths, config)
