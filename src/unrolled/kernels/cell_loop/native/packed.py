"""Whole steps with their matrices prepared once, for decoding: one token a call, as fast as the weights can be read.

A stack of cells is one program: the input products are inside it, since there is one step at a time, and all layers'
states are one tensor side by side. A chain of products (the output layer) is another.
"""

import copy
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.kernels.cell_loop.loop import SteppedCell, noisy_step, silent
from unrolled.kernels.cell_loop.native.compile import Compiled, compile_step
from unrolled.kernels.cell_loop.native.execute import make_call, pack_matrices
from unrolled.kernels.cell_loop.native.glue import SymbolGlue
from unrolled.kernels.cell_loop.native.graph import Node, Ref, apply, assemble
from unrolled.kernels.cell_loop.native.symbols import Symbol, SymbolicWeights, Unsupported
from unrolled.kernels.cell_loop.native.trace import Step, check_field, field_widths, followed
from unrolled.kernels.cpu import Call, Library, Products

__all__ = ["Between", "Prepared", "Ready", "prepare_chain", "trace_stack"]

# Calls that are kept ready, one for each number of steps and rows: of windows, and of single steps, which take little
# memory and come with as many rows as there are texts at the moment.
_READY, _READY_STEPS = 4, 64


class Ready(NamedTuple):
    """A call with the memory that it reads and writes: fill, call, read; the next call writes over it.

    given: to fill, (steps, batch, width) by name. x: the one of that name, (steps * batch, width). start: the state to
    begin with, (batch, all fields' widths); end: that after the window; None without state. y: (steps, batch, width).
    last: (batch, width), its last step. held: all memory.
    """

    call: Call
    given: dict[str, Tensor]
    x: Tensor
    start: Tensor | None
    end: Tensor | None
    y: Tensor
    last: Tensor
    held: dict[str, Tensor]


class Prepared:
    """A step whose matrices are packed. It holds copies: a later change of the parameters is not seen.

    One call at a time: the memory of a call is used again by the next one of its shape.

    Args:
        step: with at most one field of state, named ``state``.
        weights: by the names in ``step``. products: how the matrices are kept.
    """

    def __init__(self, library: Library, step: Step, weights: Mapping[str, Tensor], products: Products):
        self._library = library
        self._products: Products = products
        self._compiled: Compiled = compile_step(step, False)
        self._widths = {name: node.width for name, node in step.inputs.items()}
        program = self._compiled.forward
        self._vectors = {
            place.storage: weights[place.storage].detach().clone() for place in program.places if place.kind == "vector"
        }
        self._like = next(iter(weights.values())).detach().new_empty(0)
        self._packed = pack_matrices(library, program, {n: w.detach() for n, w in weights.items()}, products)
        self._ready: dict[tuple[int, int, int], Ready] = {}

    def ready(self, steps: int, batch: int) -> Ready:
        """The call for a window of ``steps`` and ``batch`` rows; kept for the next one of that shape."""
        key = steps, batch, torch.get_num_threads()
        found = self._ready.get(key)
        if found is None:
            alike = [one for one in self._ready if (one[0] == 1) == (steps == 1)]
            if len(alike) >= (_READY_STEPS if steps == 1 else _READY):
                self._ready.pop(alike[0])
            found = self._ready[key] = self._prepare(steps, batch)
        return found

    def twin(self) -> "Prepared":
        """The same step with memory of its own, for another thread; the packed weights are shared."""
        made = copy.copy(self)
        made._ready = {}
        return made

    def _prepare(self, steps: int, batch: int) -> Ready:
        program, compiled = self._compiled.forward, self._compiled
        storages = {name: self._like.new_empty(steps, batch, self._widths[name]) for name in compiled.inputs}
        given, start, end = dict(storages), None, None
        if "state.state" in self._widths:
            state = storages["state.state"] = self._like.new_empty(2, batch, self._widths["state.state"])
            start, end = state[0], state[steps % 2]
        call = make_call(
            self._library, program, storages, self._vectors, self._packed, steps, batch, self._like, self._products
        )
        at, width = compiled.y.at, compiled.y.width
        y = storages[compiled.y.place.storage][compiled.y.place.first :, :, at : at + width]
        return Ready(call, given, given["x"].flatten(0, 1), start, end, y, y[-1], storages)

    def __call__(self, given: Mapping[str, Tensor], state: Tensor | None = None) -> tuple[Tensor, Tensor | None]:
        """Run over a window.

        Args:
            given: (steps, batch, width) by name. state: (batch, all fields' widths).
        Returns:
            y (steps, batch, width) and the state after the last step; both are the caller's own.
        """
        ready = self.ready(*next(iter(given.values())).shape[:2])
        for name, memory in ready.given.items():
            memory.copy_(given[name])
        if ready.start is not None and state is not None:
            ready.start.copy_(state)
        ready.call()
        return ready.y.clone(), None if ready.end is None else ready.end.clone()


Between = Callable[[Any, Callable[[int, Any], Any], SymbolGlue], Any]
"""(input, number of a cell and its input -> its output, operations) -> output: what is between the cells of a stack."""


def trace_stack(
    cells: Sequence[SteppedCell],
    between: Between,
    in_width: int,
    own: Mapping[str, Tensor],
    zoneout: Mapping[str, float] | None = None,
    reset: bool = False,
) -> tuple[Step, dict[str, Tensor]]:
    """One step of a stack of cells, and its weights by name; what :class:`Prepared` is made of.

    Args:
        between: connects the cells. own: its weights by name; it speaks of them by the tensors themselves.
        in_width: of its input. zoneout: field -> the part of its old value that is kept.
        reset: whether ``fresh`` is given too: (steps, batch, 1), 0 where the state is put to zero before the step.
    Raises:
        Unsupported: a cell's step or projection, or what is between, is not made of what the native library has.
    """
    weights = {f"{i}.{name}": one for i, cell in enumerate(cells) for name, one in cell.effective_weights().items()}
    weights |= own
    starts = [cell.initial_state(1) for cell in cells]
    widths = [field_widths(start) for start in starts]
    if reset and any(bool(part.any()) for start in starts for part in start):
        raise Unsupported("its state does not begin with zeros, which is what a reset here puts in")
    symbolic: Any = SymbolicWeights({name: tuple(weight.shape) for name, weight in weights.items()})
    inputs: dict[str, Node] = {}

    def given(name: str, width: int) -> Ref:
        inputs[name] = Node("input", width, name=name, varies=False)
        return Ref(inputs[name], 0, width)

    first = Symbol(given("x", in_width))
    carried = given("state.state", sum(sum(each.values()) for each in widths))
    if reset:
        carried = apply("select", carried, given("fresh", 1))
    begins = [sum(sum(each.values()) for each in widths[:i]) for i in range(len(cells))]
    after: list[Ref] = []

    def run(i: int, entry: Any) -> Any:
        cell, w, at, fields = cells[i], symbolic.scope(str(i)), begins[i], {}
        for name, width in widths[i].items():
            fields[name] = Symbol(carried.part(at, width))
            at += width
        with followed("step"):
            pre = cell.project(entry, w)
            y, new = noisy_step(cell, pre, type(starts[i])(**fields), w, silent, None, None, zoneout or {})  # type: ignore
        for name, width in widths[i].items():
            check_field(name, getattr(new, name), width)
            after.append(getattr(new, name).ref)
        return y

    x = between(first, run, SymbolGlue(own, symbolic))
    return Step(x.ref, {"state": assemble(after)}, inputs), weights


def prepare_chain(library: Library, matrices: Sequence[Tensor], bias: Tensor | None, products: Products) -> Prepared:
    """Products one after another, x W_0^T W_1^T ... (+ bias).

    Args:
        matrices: each (out, in).
    """
    weights = {f"matrix{i}": matrix for i, matrix in enumerate(matrices)}
    if bias is not None:
        weights["bias"] = bias
    symbolic: Any = SymbolicWeights({name: tuple(weight.shape) for name, weight in weights.items()})
    node = Node("input", matrices[0].shape[1], name="x", varies=False)
    x: Any = Symbol(Ref(node, 0, node.width))
    for i in range(len(matrices)):
        x = symbolic.linear(f"matrix{i}", x)
    if bias is not None:
        x = x + symbolic["bias"]
    return Prepared(library, Step(x.ref, {}, {"x": node}), weights, products)
