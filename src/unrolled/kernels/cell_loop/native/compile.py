"""The programs of a cell's step: forwards alone, or forwards and back."""

from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from unrolled.kernels.cell_loop.loop import SteppedCell
from unrolled.kernels.cell_loop.native.derive import Backward, derive
from unrolled.kernels.cell_loop.native.graph import Node, Ref, topological
from unrolled.kernels.cell_loop.native.lower import Output, Place, Program, Slice, lower
from unrolled.kernels.cell_loop.native.symbols import Unsupported
from unrolled.kernels.cell_loop.native.trace import Kind, Step, trace_step

__all__ = ["Compiled", "MatrixShare", "VectorShare", "compile_step", "compiled", "unsupported"]


class MatrixShare(NamedTuple):
    """Where the two factors of a matrix's gradient are: ``rows`` and ``grad``, both (steps, batch, width)."""

    name: str
    block: int | None
    rows: Slice
    grad: Slice


class VectorShare(NamedTuple):
    """Where the terms of a vector's gradient from column ``at`` on are."""

    name: str
    at: int
    grad: Slice


class Compiled(NamedTuple):
    """Programs of one step.

    Attributes:
        fields: of the state. inputs: names of what else goes in.
        y: where the output is. forward: the program. backward: that of the gradients, or None; it reads what the
            forward program has left.
        grads: where the gradients of what goes in are, by name; without those that nothing depends on.
    """

    fields: tuple[str, ...]
    inputs: tuple[str, ...]
    y: Slice
    forward: Program
    backward: Program | None = None
    grads: tuple[tuple[str, Slice], ...] = ()
    matrices: tuple[MatrixShare, ...] = ()
    vectors: tuple[VectorShare, ...] = ()


_cache: "WeakKeyDictionary[Any, dict[tuple[Kind, bool, bool], Compiled | str]]" = WeakKeyDictionary()


def unsupported(cell: SteppedCell, state: Any, kind: Kind, in_width: int) -> str | None:
    """Why the cell has no native form; None where it has one."""
    found = _look_up(cell, state, kind, in_width, False)
    return found if isinstance(found, str) else None


def compiled(cell: SteppedCell, state: Any, kind: Kind, in_width: int, gradients: bool) -> Compiled:
    """The programs of a cell that has a native form, made once for each cell and kept."""
    found = _look_up(cell, state, kind, in_width, gradients)
    assert not isinstance(found, str), found
    return found


def _look_up(cell: SteppedCell, state: Any, kind: Kind, in_width: int, gradients: bool) -> Compiled | str:
    programs = _cache.setdefault(cell, {})
    key = kind, gradients, bool(getattr(cell, "training", False))  # a step may look at its mode
    if key not in programs:
        try:
            if kind.reset and any(bool(one.any()) for one in cell.initial_state(1)):
                raise Unsupported("its state does not begin with zeros, which is what a reset here puts in")
            programs[key] = compile_step(trace_step(cell, state, kind, in_width), gradients)
        except Unsupported as reason:
            programs[key] = str(reason)
    return programs[key]


def compile_step(step: Step, gradients: bool) -> Compiled:
    """The programs of a step; without gradients the forward program alone."""
    back = derive(step) if gradients else None
    saved = [] if back is None else _saved(step, back)
    lasting = {ref.node for ref in saved} | {
        step.inputs[f"state.{name}"] for name, ref in step.state.items() if ref == step.y
    }
    known, outputs = {}, []
    for name, node in step.inputs.items():
        if not name.startswith("state."):
            known[node] = Place(name, "given", node.width), 0
    given = tuple(place.storage for place, _ in known.values())
    for name, ref in step.state.items():
        node = step.inputs[f"state.{name}"]
        place = Place(f"state.{name}", "stream" if node in lasting or ref in saved else "flip", node.width)
        known[node] = place, 0
        outputs.append(Output(ref, place._replace(first=1)))
    outputs.append(Output(step.y))
    outputs += [Output(ref) for ref in saved]
    forward = lower(outputs, known)
    common = tuple(step.state), given, forward.outputs[len(step.state)], forward
    if back is None:
        return Compiled(*common)
    found = {
        ref.node: (one.place, one.at) for ref, one in zip(saved, forward.outputs[len(step.state) + 1 :], strict=True)
    }
    return Compiled(*common, *_lower_back(back, known | found))


def _saved(step: Step, back: Backward) -> list[Ref]:
    """What the backward pass needs of the forward pass, each node whole."""
    mine = {id(node) for node in topological([step.y, *step.state.values()])}
    mine |= {id(node) for node in step.inputs.values()}
    wanted: dict[int, Node] = {}
    stack = [ref.node for ref in (*_streams(back), *back.state.values(), *(share.rows for share in back.matrices))]
    seen = set()
    while stack:
        node = stack.pop()
        if id(node) in seen:
            continue
        seen.add(id(node))
        if id(node) in mine:
            wanted[id(node)] = node
        else:
            stack += [ref.node for ref in node.operands()]
    return [Ref(node, 0, node.width) for node in wanted.values() if node.code != "vector"]


def _streams(back: Backward) -> list[Ref]:
    """The gradients that are wanted of every step."""
    return [*back.given.values(), *(one.grad for one in back.matrices), *(one.grad for one in back.vectors)]


def _lower_back(back: Backward, known: dict[Node, tuple[Place, int]]) -> tuple[Any, ...]:
    """Programs and gradients of :class:`Compiled`; ``known``: what the forward pass has left."""
    places = dict(known)
    for name, node in back.inputs.items():
        places[node] = Place(name, "flip", node.width, 1) if name != "y" else Place("grad.y", "given", node.width), 0
    rows = [share.rows for share in back.matrices]
    outputs = [Output(ref) for ref in [*_streams(back), *rows]]
    outputs += [Output(ref, Place(f"carry.{name}", "flip", ref.width)) for name, ref in back.state.items()]
    program = lower(outputs, places, "back.")
    found = iter(program.outputs)
    given = tuple((name, next(found)) for name in back.given)
    grads = [next(found) for _ in back.matrices]
    vectors = tuple(VectorShare(one.name, one.at, next(found)) for one in back.vectors)
    matrices = tuple(
        MatrixShare(one.name, one.block, next(found), grad) for one, grad in zip(back.matrices, grads, strict=True)
    )
    return program, given, matrices, vectors
