"""The cell contract: one file and one line make a recurrent cell that trains, generates and is tested."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn
from torch.func import functional_call

from unrolled.cells.config import CellConfig
from unrolled.core.errors import UsageError
from unrolled.core.parameters import ParameterRule
from unrolled.kernels.cell_loop import BACKENDS, Noise, TableInput, Tap, Weights, cell_loop
from unrolled.kernels.dispatch import Compute

__all__ = [
    "Cell",
    "CellConfig",
    "HiddenState",
    "Noise",
    "ParameterRule",
    "Place",
    "StepCell",
    "Tap",
    "Weights",
]


class HiddenState(NamedTuple):
    """State of a cell that carries its output alone. h: (batch, width)."""

    h: Tensor


class Place(NamedTuple):
    """Where a cell stands in a stack.

    layer, layers: counted over all of its cells, from 0. index, count: over those of its class, config and sizes.
    shared: what these share, made by :meth:`Cell.make_shared`; or None. turn: over those of its class and config.
    """

    layer: int = 0
    layers: int = 1
    index: int = 0
    count: int = 1
    shared: nn.Module | None = None
    turn: int = 0


class Cell(nn.Module):
    """A recurrent cell or mixer, unrolled over time by its own ``forward``.

    Args:
        in_width: width of the input.
        width: width of the cell.
        config: the cell's frozen Config.

    Attributes:
        Config: the config class; State: the NamedTuple of the state, batch-first tensors of any shapes and types.
        EXAMPLES: configs that cover the cell's options, the rows of the conformance suite.
        out_width: width of the output.
        recurrent_weights: names of the parameters that weight drop may mask.
        zoneout_fields: fields of the state that zoneout may keep; () is none.
        masks_state: whether the cell takes dropout masks on the field h of its state.
        inner_sites: name -> width of the values inside the cell that dropout masks may multiply; {} is none.
        memory: whether an output depends on earlier inputs.
        normed: whether a residual stack puts its norm before the cell.
        even_steps: whether every step takes as many operations; else :meth:`flops_per_token` is their mean over steps.
        parameter_rules: parameter's name -> how it is trained, where that differs from the rest.
        no_graph: why one step is no fixed graph of operations (a loop whose length depends on what is read, say), so
            that it cannot be exported as one; None where it is.
        hands: names of the values that the cell hands to the layers above, within a window. Such a cell's ``forward``
            takes one more argument, ``handed``, a mapping name -> tensor (batch, time, ...): what cells below have put
            there, and where it puts its own; an empty one where it stands alone.
        encodes: whether every output may see the whole row, so that no language model can be made of it; see
            :class:`unrolled.cells.encoders.base.EncoderCell`.
        place: where it stands in its stack; see :meth:`take_place`.
        compute: backend and precision; set by the model that holds the cell.
    Raises:
        UsageError: a width that is not a multiple of :meth:`width_multiple`, or an input that is not one of
            :meth:`streams`.
    """

    Config: ClassVar[type[CellConfig]]
    State: ClassVar[type]
    EXAMPLES: ClassVar[tuple[CellConfig, ...]]
    EQUATION: ClassVar[str]
    recurrent_weights: tuple[str, ...] = ()
    zoneout_fields: tuple[str, ...] = ()
    masks_state: bool = False
    inner_sites: Mapping[str, int] = {}
    memory: bool = True
    normed: bool = True
    even_steps: bool = True
    parameter_rules: Mapping[str, ParameterRule] = {}
    no_graph: str | None = None
    hands: tuple[str, ...] = ()
    encodes: bool = False

    def __init__(self, in_width: int, width: int, config: Any):
        super().__init__()
        multiple = self.width_multiple(config)
        if width % multiple:
            below = width - width % multiple
            near = f"{below} or {below + multiple}" if below else str(multiple)
            raise UsageError(f"the width of a {config.name} is a multiple of {multiple} here, not {width}; try {near}.")
        if in_width % self.streams(config):
            raise UsageError(
                f"the input of a {config.name} is {self.streams(config)} streams side by side here, and {in_width} "
                "cannot be divided by that; give it a multiple."
            )
        self.in_width, self.width, self.config = in_width, width, config
        self.out_width = self.output_width(config, width)
        self.place = Place()
        self.compute = Compute()

    @property
    def name(self) -> str:
        return self.config.name

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """The state before the first token: a State of (batch, ...) tensors."""
        raise NotImplementedError

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        reset: Tensor | None = None,
        noise: Noise | None = None,
        tap: Tap | None = None,
    ) -> tuple[Tensor, Any]:
        """Run over a window; one step is time = 1.

        Args:
            x: (batch, time, in_width), time >= 1.
            state: what the last call returned; None is the initial state.
            reset: boolean (batch, time); where true, the row's initial state is restored before the token.
            noise: drawn masks, see :class:`Noise`.
            tap: receives named internals, step by step.
        Returns:
            y (batch, time, out_width) and the state after the last token.
        """
        raise NotImplementedError

    def under_masks(self, noise: Noise | None, window: Callable[[Noise | None], Any]) -> Any:
        """Compute a window with the products of parameters and ``noise.weight`` in the parameters' place, which stay as
        they are and receive the gradient. Within ``forward``, where parameters spread over processes are whole.

        Args:
            window: what ``forward`` does, given the rest of the noise.
        """
        if noise is None or not noise.weight:
            return window(noise)
        products = {f"cell.{name}": self.get_parameter(name) * mask for name, mask in noise.weight.items()}
        rest = noise._replace(weight=None)
        return functional_call(_Window(self, window), products, (rest if any(p is not None for p in rest) else None,))

    def take_place(self, place: Place) -> None:
        """Learn where the cell stands. Called once, by the stack, before training. A cell whose parameters depend on it
        extends this; one that shares some puts ``place.shared`` in the place of its own."""
        self.place = place

    @classmethod
    def make_shared(cls, config: Any, in_width: int, width: int, count: int) -> nn.Module | None:
        """Parameters that ``count`` cells of one stack share; None where they share nothing."""
        return None

    @classmethod
    def causal_from(cls, config: Any) -> int:
        """From which token of a document on the cell is causal. 0: everywhere. P: the outputs of the first P tokens see
        all of these, which come in one window then. A language model takes 0 alone."""
        return 0

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The widths that the cell accepts are the multiples of this (of its heads, its blocks)."""
        return 1

    @classmethod
    def streams(cls, config: Any) -> int:
        """How many sequences of vectors the cell carries through side by side, of the same tokens: its input and its
        output hold so many vectors, one after another. A stack of such cells begins with as many copies of its input,
        and treats each by itself."""
        return 1

    @classmethod
    def passes(cls, config: Any) -> int:
        """How many of the last numbers of the output all layers above read too, where it is the first layer of a stack
        of kind ``skip``."""
        return 0

    @classmethod
    def output_width(cls, config: Any, width: int) -> int:
        """Width of the output; that of the cell unless the cell says otherwise."""
        return width

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """Number of parameters, by formula."""
        raise NotImplementedError

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """Floating-point operations of the matrix products of one forward step of one sequence."""
        raise NotImplementedError

    def backends(self) -> list[str]:
        """Names of the backends that can run this cell in the plain case."""
        return []

    def state_size(self) -> int:
        """Numbers of state kept per sequence."""
        state = self.initial_state(1, "meta")
        return sum(part.numel() for part in state)


class _Window(nn.Module):
    """A window of a cell as a module of its own, whose call does not count as one of the cell."""

    def __init__(self, cell: Cell, window: Callable[[Noise | None], Any]):
        super().__init__()
        self.cell, self.window = cell, window

    def forward(self, noise: Noise | None) -> Any:
        return self.window(noise)


class StepCell(Cell):
    """A cell whose gates need h(t-1): two pure functions, ``project`` and ``step``; ``forward`` is inherited.

    The State must have a field ``h``, which is what state dropout masks. Where the output is h itself,
    ``step`` returns that very tensor.
    """

    masks_state = True

    @property
    def zoneout_fields(self) -> tuple[str, ...]:  # type: ignore[override]
        """All fields of the state."""
        return self.initial_state(1, "meta")._fields

    def effective_weights(self) -> Mapping[str, Tensor]:
        """Name -> tensor as ``project`` and ``step`` see them, derived once per window from the parameters."""
        return dict(self.named_parameters())

    def backends(self) -> list[str]:
        """Names of the backends of ``cell_loop`` that can run this cell without resets, noise or tracing."""
        x = torch.zeros(1, 1, self.in_width)
        call = (self, x, self.initial_state(1), None, None, None)
        return [backend.name for backend in BACKENDS.values() if backend.refuse(*call) is None]

    def project(self, x: Tensor, w: Weights) -> Any:
        """What depends on the input alone, for all steps at once.

        Args:
            x: (..., in_width); the leading dimensions may be anything and must not mix.
        Returns:
            a tensor, or a tree of tensors, with the same leading dimensions.
        """
        raise NotImplementedError

    def step(self, pre: Any, state: Any, w: Weights, tap: Tap) -> tuple[Tensor, Any]:
        """One step.

        Args:
            pre: the projection of this step's input, (batch, ...).
            state: the State before the step.
            w: the weights; every product with a matrix goes through ``w.linear(name, v, add)``.
            tap: ``tap(name, value)`` names an internal for tracing.
        Returns:
            y (batch, out_width) and the new State.
        """
        raise NotImplementedError

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """Zeros in every field, each (batch, width), which suits most cells."""
        zeros = [torch.zeros(batch, self.width, device=device, dtype=dtype) for _ in self.State._fields]  # type: ignore[attr-defined]
        return self.State(*zeros)

    def forward(
        self,
        x: Tensor | TableInput,
        state: Any = None,
        reset: Tensor | None = None,
        noise: Noise | None = None,
        tap: Tap | None = None,
    ) -> tuple[Tensor, Any]:
        """See :meth:`Cell.forward`; computed by the operation ``cell_loop``. The input may be rows of a table."""
        if noise is not None and noise.inner:
            raise UsageError(f"the {self.name} has no sites for dropout inside; set model.dropout.inner to 0.")
        if state is None:
            state = self.initial_state(x.shape[0], x.device, x.dtype)
        return self.under_masks(noise, lambda rest: cell_loop(self, x, state, reset, rest, tap))
