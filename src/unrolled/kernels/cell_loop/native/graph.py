"""One step of a cell as a graph of products and operations on rows, pointwise but for norms.

A value is (rows, width). What the native library can do with values is in :data:`CODES`, with the numbers of
``csrc/pointwise.h``.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

__all__ = ["CODES", "Node", "Ref", "apply", "assemble", "topological"]

# in the order of csrc/pointwise.h
CODES = (
    "linear", "copy", "add", "sub", "mul", "affine", "sigmoid", "tanh", "relu", "min",
    "d_sigmoid", "d_tanh", "d_relu", "d_min", "select", "fill", "norm", "rms", "d_norm", "d_rms",
    "exp", "reciprocal", "log_sigmoid",
)  # fmt: skip


class Node:
    """One value, and how it is made.

    Attributes:
        code: one of :data:`CODES`; or ``input`` (a value of its own at every step), ``vector`` (a vector of weights,
            the same in every row), ``assemble`` (its sources side by side).
        sources: what it is made of. width: number of columns.
        acc: a value that is added to the result, or None.
        name: of an input, a vector, or the matrix of a product. block: of a block-diagonal matrix, or None.
        transposed: whether the product is with W rather than W.T.
        scale, shift: of ``affine``, scale * x + shift; of ``fill``, the number shift; of norms, shift is what is added
            to the mean square before its root.
        varies: whether gradients go through it (masks are constant).
    """

    __slots__ = ("acc", "block", "code", "name", "scale", "shift", "sources", "transposed", "varies", "width")

    def __init__(
        self,
        code: str,
        width: int,
        sources: Sequence["Ref"] = (),
        name: str = "",
        block: int | None = None,
        transposed: bool = False,
        scale: float = 0.0,
        shift: float = 0.0,
        varies: bool | None = None,
    ):
        self.code, self.width, self.sources, self.name, self.block = code, width, tuple(sources), name, block
        self.transposed, self.scale, self.shift = transposed, scale, shift
        self.acc: Ref | None = None
        self.varies = any(one.node.varies for one in self.sources) if varies is None else varies

    @property
    def leaf(self) -> bool:
        """Whether it is given, not computed."""
        return self.code in ("input", "vector")

    def operands(self) -> tuple["Ref", ...]:
        """Sources and what is added."""
        return self.sources if self.acc is None else (*self.sources, self.acc)


class Ref(NamedTuple):
    """Columns ``at`` to ``at + width`` of a node."""

    node: Node
    at: int
    width: int

    @property
    def whole(self) -> bool:
        return self.width == self.node.width

    def part(self, at: int, width: int) -> "Ref":
        """Columns of these columns."""
        if self.node.code == "assemble":  # look through to the piece, if it lies in one
            begin = 0
            for piece in self.node.sources:
                if begin <= self.at + at and self.at + at + width <= begin + piece.width:
                    return piece.part(self.at + at - begin, width)
                begin += piece.width
        return Ref(self.node, self.at + at, width)


def apply(code: str, *sources: Ref, scale: float = 0.0, shift: float = 0.0) -> Ref:
    """A pointwise operation; a vector among the sources comes second where the order is free."""
    if code in ("add", "mul", "min") and sources[0].node.code == "vector":
        sources = sources[::-1]
    node = Node(code, sources[0].width, sources, scale=scale, shift=shift)
    return Ref(node, 0, node.width)


def assemble(pieces: Sequence[Ref]) -> Ref:
    """Values side by side."""
    if len(pieces) == 1:
        return pieces[0]
    node = Node("assemble", sum(piece.width for piece in pieces), pieces)
    return Ref(node, 0, node.width)


def topological(roots: Iterable[Ref], known: Iterable[Node] = ()) -> list[Node]:
    """Every node that the roots need, each after what it needs, without ``known`` nodes and what only those need."""
    seen = {id(node) for node in known}
    order: list[Node] = []
    stack = [(ref.node, False) for ref in reversed(list(roots))]
    while stack:
        node, done = stack.pop()
        if done:
            order.append(node)
        elif id(node) not in seen:
            seen.add(id(node))
            stack.append((node, True))
            stack += [(ref.node, False) for ref in reversed(node.operands())]
    return order
