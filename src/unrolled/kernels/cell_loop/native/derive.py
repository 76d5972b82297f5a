"""The graph of one step's backward pass, made from the graph of the step by the chain rule."""

from itertools import pairwise
from typing import NamedTuple

from unrolled.kernels.cell_loop.native.graph import Node, Ref, apply, assemble, topological
from unrolled.kernels.cell_loop.native.trace import Step

__all__ = ["Backward", "MatrixGrad", "VectorGrad", "derive"]


class MatrixGrad(NamedTuple):
    """One product's share of a matrix's gradient is, over all rows and steps, grad.T @ rows."""

    name: str
    block: int | None
    rows: Ref
    grad: Ref


class VectorGrad(NamedTuple):
    """One use's share of the gradient of a vector's columns from ``at`` on is, over all rows and steps, the sum."""

    name: str
    at: int
    grad: Ref


class Backward(NamedTuple):
    """The backward pass of one step. Inputs: ``y``, the output's gradient; ``carry.h`` ..., those of the new state.

    given: gradients of what goes in, by name; without those that nothing depends on. state: of the state before the
    step.
    """

    given: dict[str, Ref]
    state: dict[str, Ref]
    matrices: list[MatrixGrad]
    vectors: list[VectorGrad]
    inputs: dict[str, Node]


class _Sums:
    """Gradients that have come in so far, by node."""

    def __init__(self) -> None:
        self.parts: dict[int, list[tuple[int, Ref]]] = {}
        self.vectors: list[VectorGrad] = []

    def add(self, to: Ref, grad: Ref) -> None:
        node = to.node
        if not node.varies:
            return
        if node.code == "vector":
            self.vectors.append(VectorGrad(node.name, to.at, grad))
        elif node.code == "assemble":
            begin = 0
            for piece in node.sources:
                low, high = max(to.at, begin), min(to.at + to.width, begin + piece.width)
                if low < high:
                    self.add(piece.part(low - begin, high - low), grad.part(low - to.at, high - low))
                begin += piece.width
        else:
            self.parts.setdefault(id(node), []).append((to.at, grad))

    def total(self, node: Node) -> Ref | None:
        """The sum of what has come in, as wide as the node; None where nothing has."""
        parts = self.parts.get(id(node))
        if not parts:
            return None
        edges = sorted({0, node.width, *(at for at, _ in parts), *(at + grad.width for at, grad in parts)})
        pieces = []
        for low, high in pairwise(edges):
            here = [grad.part(low - at, high - low) for at, grad in parts if at <= low and high <= at + grad.width]
            if not here:
                pieces.append(Ref(Node("fill", high - low), 0, high - low))
                continue
            piece = here[0]
            for other in here[1:]:
                piece = apply("add", piece, other)
            pieces.append(piece)
        return assemble(pieces)


def derive(step: Step) -> Backward:
    """The backward pass of a step."""
    inputs = {"y": Node("input", step.y.width, name="y", varies=True)}
    inputs |= {f"carry.{name}": Node("input", ref.width, name=f"carry.{name}", varies=True)
               for name, ref in step.state.items()}  # fmt: skip
    sums, matrices = _Sums(), []
    sums.add(step.y, _whole(inputs["y"]))
    for name, ref in step.state.items():
        sums.add(ref, _whole(inputs[f"carry.{name}"]))
    for node in reversed(topological([step.y, *step.state.values()])):
        grad = None if node.leaf else sums.total(node)
        if grad is None:
            continue
        if node.code == "linear":
            (rows,) = node.sources
            back = Node("linear", rows.width, [grad], name=node.name, block=node.block, transposed=True)
            sums.add(rows, _whole(back))
            matrices.append(MatrixGrad(node.name, node.block, rows, grad))
        else:
            _chain(sums, node, grad)
    totals = {name: sums.total(node) for name, node in step.inputs.items() if not name.startswith("state.")}
    given = {name: total for name, total in totals.items() if total is not None}
    state = {}
    for name, ref in step.state.items():
        found = sums.total(step.inputs[f"state.{name}"])
        state[name] = _whole(Node("fill", ref.width)) if found is None else found
    return Backward(given, state, matrices, sums.vectors, inputs)


def _whole(node: Node) -> Ref:
    return Ref(node, 0, node.width)


def _chain(sums: _Sums, node: Node, grad: Ref) -> None:
    """Hand the gradient of a pointwise result on to its sources."""
    a, b = node.sources[0], node.sources[-1]
    result = _whole(node)
    match node.code:
        case "copy":
            sums.add(a, grad)
        case "add":
            sums.add(a, grad)
            sums.add(b, grad)
        case "sub":
            sums.add(a, grad)
            if b.node.varies:
                sums.add(b, apply("affine", grad, scale=-1.0))
        case "mul":
            if a.node.varies:
                sums.add(a, apply("mul", grad, b))
            if b.node.varies:
                sums.add(b, apply("mul", grad, a))
        case "affine":
            if node.scale == 1.0:
                sums.add(a, grad)
            elif node.scale != 0.0:
                sums.add(a, apply("affine", grad, scale=node.scale))
        case "sigmoid" | "tanh" | "relu":
            sums.add(a, apply(f"d_{node.code}", grad, result))
        case "exp":
            sums.add(a, apply("mul", grad, result))
        case "reciprocal":
            sums.add(a, apply("mul", grad, apply("affine", apply("mul", result, result), scale=-1.0)))
        case "log_sigmoid":
            sums.add(a, apply("mul", grad, apply("sigmoid", apply("affine", a, scale=-1.0))))
        case "norm" | "rms":
            sums.add(a, apply(f"d_{node.code}", grad, a, shift=node.shift))
        case "min":
            difference = apply("sub", a, b)
            sums.add(a, apply("d_min", grad, difference))
            sums.add(b, apply("d_min", grad, apply("affine", difference, scale=-1.0)))
        case "select":
            sums.add(a, apply("select", grad, b))
        case _:
            raise AssertionError(node.code)
