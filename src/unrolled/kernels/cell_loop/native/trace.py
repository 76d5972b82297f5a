"""Runs a cell's ``step`` on symbols and so learns the graph of one step.

Any StepCell whose step is made of products by ``w.linear`` and of what :class:`Symbol` knows gets a native form this
way, without a line of its own. A step that does anything else (a softmax, a look at values) is refused with the reason.
"""

import contextlib
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.core.tree import leaves, map_tree
from unrolled.kernels.cell_loop.loop import SteppedCell, noisy_step, silent
from unrolled.kernels.cell_loop.native.graph import Node, Ref, apply
from unrolled.kernels.cell_loop.native.symbols import ROWS, Symbol, SymbolicWeights, Unsupported
from unrolled.kernels.cell_loop.weights import Weights

__all__ = ["Kind", "Step", "check_field", "field_widths", "followed", "trace_step"]


class Kind(NamedTuple):
    """What else than inputs and state goes into a step: flags of resets, masks (see :class:`Noise`).

    varies: whether gradients of the masks are wanted.
    """

    reset: bool = False
    state_in: bool = False
    state_out: bool = False
    zoneout: tuple[str, ...] = ()
    varies: bool = False


class Step(NamedTuple):
    """The graph of one step. y: the output. state: the new fields by name. inputs: ``pre.0`` ..., ``state.h`` ...,
    ``reset``, ``state_in``, ``state_out``, ``zoneout.h`` ... by name."""

    y: Ref
    state: dict[str, Ref]
    inputs: dict[str, Node]


@contextlib.contextmanager
def followed(what: str) -> Iterator[None]:
    """Whatever goes wrong in a cell's own code means that it cannot be followed; a mistake in it will show itself again
    in the backend that then runs it on tensors."""
    try:
        yield
    except Unsupported:
        raise
    except Exception as error:
        raise Unsupported(f"its {what} cannot be followed ({type(error).__name__}: {error})") from error


def field_widths(state: Any) -> dict[str, int]:
    """The widths of a State's fields, by name. Raises Unsupported where they are not (batch, width) tensors."""
    if not hasattr(state, "_fields") or any(not isinstance(one, Tensor) or one.dim() != 2 for one in state):
        raise Unsupported("its state is not a flat record of (batch, width) tensors")
    return {name: one.shape[1] for name, one in zip(state._fields, state, strict=True)}


def check_field(name: str, value: Any, width: int) -> None:
    """Raises Unsupported unless a field of the new state is a row of its width."""
    if not isinstance(value, Symbol) or value.shape != (ROWS, width):
        raise Unsupported(f"its step changes the form of the state's {name}")


def trace_step(cell: SteppedCell, state: Any, kind: Kind, in_width: int) -> Step:
    """Learn the graph of a cell's step.

    Args:
        state: a State of (batch, width) tensors, for its structure.
    Raises:
        Unsupported: the step, or the state, is not made of what the native library has.
    """
    named = {name: tensor.detach() for name, tensor in cell.effective_weights().items()}
    widths = field_widths(state)
    inputs: dict[str, Node] = {}

    def given(name: str, width: int, varies: bool) -> Symbol:
        inputs[name] = Node("input", width, name=name, varies=varies)
        return Symbol(Ref(inputs[name], 0, width))

    meta = {name: tensor.to("meta") for name, tensor in named.items()}
    with followed("project"):
        projected = cell.project(torch.empty(1, in_width, device="meta"), Weights(meta))
    if any(tensor.dim() != 2 for tensor in leaves(projected)):
        raise Unsupported("its projection gives something else than rows")
    numbers = count()
    pre = map_tree(lambda tensor: given(f"pre.{next(numbers)}", tensor.shape[-1], True), projected)
    fields = {name: given(f"state.{name}", width, True) for name, width in widths.items()}
    if kind.reset:
        fresh = given("reset", 1, False)
        fields = {name: Symbol(apply("select", one.ref, fresh.ref)) for name, one in fields.items()}
    symbols = type(state)(**fields)
    weights: Any = SymbolicWeights({name: tuple(w.shape) for name, w in named.items()})
    mask_in: Any = given("state_in", widths["h"], kind.varies) if kind.state_in else None
    mask_out: Any = given("state_out", widths["h"], kind.varies) if kind.state_out else None
    zoneout: Any = {name: given(f"zoneout.{name}", widths[name], kind.varies) for name in kind.zoneout}
    with followed("step"):
        y, new = noisy_step(cell, pre, symbols, weights, silent, mask_in, mask_out, zoneout)
    for name, width in widths.items():
        check_field(name, getattr(new, name), width)
    if not isinstance(y, Symbol) or len(y.shape) != 2:
        raise Unsupported("its step gives something else than rows")
    return Step(y.ref, {name: getattr(new, name).ref for name in widths}, inputs)
