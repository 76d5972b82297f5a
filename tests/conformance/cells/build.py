"""Cells with known weights, inputs, masks, and everything that can be computed from them."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from conformance.material import wave
from unrolled.cells import CELLS, Cell, Noise
from unrolled.cells.encoders.base import EncoderCell
from unrolled.core.errors import UsageError
from unrolled.core.tree import flatten, leaves, map_tree
from unrolled.kernels.cell_loop import TableInput
from unrolled.kernels.dispatch import Compute

__all__ = [
    "BATCH",
    "CASES",
    "CAUSAL",
    "IN",
    "WIDTH",
    "Case",
    "Fitted",
    "MakeCell",
    "build",
    "fitted",
    "noises",
    "outcome",
    "values",
]

MakeCell = Callable[[int, int], Cell]
"""(in_width, width) -> a cell with fresh weights."""

# All different, and none equal to the sizes in the cells' examples, so that no mix-up of sizes goes unseen.
BATCH, IN, WIDTH = 2, 5, 4
# A cell accepts some width among so many.
_WIDEST = 64
# It has at most so many streams.
_STREAMS = 4


class Case(NamedTuple):
    """A row of the table with one of its example configs; called, it makes the cell."""

    name: str
    index: int

    def __call__(self, in_width: int, width: int) -> Cell:
        cls = CELLS[self.name]
        return cls(in_width, width, cls.EXAMPLES[self.index])

    def __str__(self) -> str:
        return f"{self.name}-{self.index}"


CASES = [Case(name, index) for name in CELLS for index in range(len(CELLS[name].EXAMPLES))]

CAUSAL = [case for case in CASES if not CELLS[case.name].causal_from(CELLS[case.name].EXAMPLES[case.index])]
"""Those of which a language model can be made."""


class Fitted(NamedTuple):
    """Makes a cell of the next width and the next width of input that it accepts. first: whether it is the first
    example of its cell, or the only one."""

    make: MakeCell
    first: bool = True

    def __call__(self, in_width: int, width: int) -> Cell:
        for wider in range(width, width + _WIDEST):
            for entry in range(in_width, in_width + _STREAMS):
                try:
                    return self.make(entry, wider)
                except UsageError as refusal:
                    if "is a multiple of" not in str(refusal) and "streams side by side" not in str(refusal):
                        raise
        raise AssertionError(f"no width from {width} to {width + _WIDEST} is accepted")


def fitted(make_cell: MakeCell) -> Fitted:
    """See :class:`Fitted`."""
    return make_cell if isinstance(make_cell, Fitted) else Fitted(make_cell, getattr(make_cell, "index", 0) == 0)


def build(
    make_cell: MakeCell,
    dtype: torch.dtype = torch.float64,
    backend: str = "auto",
    precision: Any = "float32",
    sizes: tuple[int, int] = (IN, WIDTH),
) -> Any:
    """The cell with the weights of its own initialisation, moved a little, so that no bias is zero and no gain one."""
    torch.manual_seed(0)
    cell = fitted(make_cell)(*sizes).to(dtype)
    with torch.no_grad():
        for k, parameter in enumerate(cell.parameters()):
            parameter.add_(0.2 * wave(*parameter.shape, phase=k).to(dtype))
    cell.compute = Compute(backend=backend, precision=precision)
    return cell


def values(cell: Any, batch: int, time: int, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Any]:
    """An input and a state, neither of them special, but that what is never negative is not. What is no real number in
    the state (a count, a position), and what only tokens make, is as it is after some tokens, since not every value of
    it can be; the tokens that are not causal are behind it. Rows of a fixed length have that."""
    if isinstance(cell, EncoderCell):
        time = cell.row_steps(cell.config) or time
    x = wave(batch, time, cell.in_width, phase=0.5, dtype=dtype)
    state: Any = cell.initial_state(batch, dtype=dtype)
    reached = getattr(cell, "reached_fields", ())
    kept = {}
    if reached or any(not part.is_floating_point() for part in leaves(state)):
        read = max(3, cell.causal_from(cell.config))
        with torch.no_grad():
            state = cell(wave(batch, read, cell.in_width, phase=0.25, dtype=dtype), state)[1]
        kept = {name: getattr(state, name) for name in reached}

    def moved(part: Tensor) -> Tensor:
        other = 0.5 * wave(*part.shape, phase=len(part.shape))
        return (part + other.to(part.dtype) if part.is_floating_point() else part).detach()

    state = map_tree(moved, state)
    names = [name for name in getattr(cell, "positive_fields", ()) if hasattr(state, name)]
    return x, state._replace(**{name: getattr(state, name).abs() for name in names}, **kept)


def noises(cell: Cell, state: Any, time: int) -> dict[str, Noise]:
    """Every kind of mask that the cell takes, for the whole window and per step, and all at once; each of the shape of
    its field."""
    generator = torch.Generator().manual_seed(5)

    def mask(part: Tensor, steps: int) -> Tensor:
        shape = (part.shape[0], steps, *part.shape[1:])
        return (torch.rand(shape, generator=generator, dtype=part.dtype) > 0.3) * 1.25

    def zones(steps: int) -> dict[str, Tensor]:
        return {name: 0.6 * mask(getattr(state, name), steps) for name in cell.zoneout_fields}

    def inside(like: Tensor, steps: int) -> dict[str, Tensor]:
        return {site: mask(like.new_empty(len(like), width), steps) for site, width in cell.inner_sites.items()}

    found = {}
    for label, steps in (("window", 1), ("step", time)):
        if cell.masks_state:
            found[f"state_in {label}"] = Noise(state_in=mask(state.h, steps))
            found[f"state_out {label}"] = Noise(state_out=mask(state.h, steps))
        if cell.zoneout_fields:
            found[f"zoneout {label}"] = Noise(zoneout=zones(steps))
        if cell.inner_sites:
            found[f"inner {label}"] = Noise(inner=inside(state[0], steps))
    return found | {"all": Noise(mask(state.h, 1), mask(state.h, time), zones(time))} if cell.masks_state else found


def outcome(
    cell: Any, x: Tensor | TableInput, state: Any, reset: Tensor | None = None, noise: Noise | None = None
) -> dict[str, Tensor]:
    """Outputs, final state, and the gradients of a weighted sum of both, by name."""
    entry = (x.table if isinstance(x, TableInput) else x).detach().requires_grad_()
    x = TableInput(entry, x.ids) if isinstance(x, TableInput) else entry
    state = map_tree(lambda part: part.detach().requires_grad_(part.is_floating_point()), state)
    noise = map_tree(lambda mask: mask.detach().requires_grad_(), noise)
    y, final = cell(x, state, reset, noise)
    ends = {f"final state {name}": part for name, part in flatten(final).items()}
    loss = (y * wave(*y.shape, phase=1.0)).sum()
    for name, part in ends.items():
        if part.requires_grad:
            loss = loss + (part * wave(*part.shape, phase=len(name))).sum()
    wanted = {"input": entry}
    wanted |= {f"initial state {name}": part for name, part in flatten(state).items()}
    wanted |= {f"mask {name}": part for name, part in flatten(noise).items()}
    wanted |= dict(cell.named_parameters())
    wanted = {name: part for name, part in wanted.items() if part.requires_grad}
    found = torch.autograd.grad(loss, list(wanted.values()), allow_unused=True)
    grads = {
        f"gradient of {name}": torch.zeros_like(wanted[name]) if grad is None else grad
        for name, grad in zip(wanted, found, strict=True)
    }
    return {"output": y.detach(), **{name: part.detach() for name, part in ends.items()}, **grads}


def finite(tree: Any) -> bool:
    """Whether every number of a tree is finite."""
    return all(bool(part.isfinite().all()) for part in leaves(tree))
