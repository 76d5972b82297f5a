"""From a graph to a program: the order of the operations, and where each value lies.

Pointwise operations between two products are put together, so that the library does them row by row with the values
that they pass on in the cache.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from unrolled.kernels.cell_loop.native.graph import CODES, Node, Ref, topological

__all__ = ["Matrix", "Output", "Place", "Program", "Slice", "lower"]


class Place(NamedTuple):
    """Where the rows of a value lie at each step.

    Attributes:
        storage: name of the memory.
        kind: ``given`` (from outside), ``vector`` (a weight's), ``stream`` (one slice a step), ``flip`` (two slices in
            turn), ``scratch`` (one slice, of a block of rows for each thread), ``row`` (one row a thread).
        width: columns. first: the slice of step 0.
    """

    storage: str
    kind: str
    width: int
    first: int = 0


class Slice(NamedTuple):
    """Columns ``at`` to ``at + width`` of a place."""

    place: Place
    at: int
    width: int


class _Where(NamedTuple):
    """Columns from ``at`` on of a place by its number; -1: none."""

    place: int
    at: int


_NOWHERE = _Where(-1, 0)


class Matrix(NamedTuple):
    """A matrix, or a block of one, as a product reads it."""

    name: str
    block: int | None
    transposed: bool


class Output(NamedTuple):
    """A value that is wanted, and the place that it is wanted in; place None: any that keeps every step."""

    ref: Ref
    place: Place | None = None


class Program(NamedTuple):
    """operations: (count, 12) int64, numbers: (count, 2), as ``csrc/program.cpp`` reads them. outputs: where each
    output is, in their order."""

    operations: np.ndarray
    numbers: np.ndarray
    places: list[Place]
    matrices: list[Matrix]
    outputs: list[Slice]


def _fuse(outputs: Sequence[Output], known: Mapping[Node, tuple[Place, int]]) -> None:
    """Let what computes one side of a sum add the other side itself, where nobody else wants that one side."""
    roots = [one.ref for one in outputs]
    order = topological(roots, known)
    uses = Counter(id(ref.node) for node in order for ref in node.operands())
    uses.update(id(ref.node) for ref in roots)
    level = _levels(order)
    for node in order:
        if node.code != "add":
            continue
        for side, other in (node.sources[::-1], node.sources):
            inner = side.node
            free = side.whole and uses[id(inner)] == 1 and inner.acc is None and inner not in known
            if not free or inner.leaf or inner.code in ("assemble", "fill"):
                continue
            # a product does not wait for what it adds
            if inner.code == "linear" and level.get(id(other.node), -1) >= level[id(inner)]:
                continue
            node.code, node.sources, node.name, node.block = inner.code, inner.sources, inner.name, inner.block
            node.transposed, node.scale, node.shift, node.acc = inner.transposed, inner.scale, inner.shift, other
            break


def _levels(order: Sequence[Node]) -> dict[int, int]:
    """How many products come before each node, itself among them: a product is at the beginning of its level."""
    level: dict[int, int] = {}
    for node in order:
        if node.code == "vector":
            level[id(node)] = -1
            continue
        before = max((level.get(id(ref.node), -1) for ref in node.operands()), default=-1)
        level[id(node)] = before + 1 if node.code == "linear" or before < 0 else before
    return level


class _Layout:
    """Places of a program's values."""

    def __init__(self, known: Mapping[Node, tuple[Place, int]], prefix: str):
        self.places: list[Place] = []
        self.numbers: dict[Place, int] = {}
        self.where: dict[int, _Where] = {
            id(node): _Where(self.number(place), at) for node, (place, at) in known.items()
        }
        self.prefix = prefix

    def number(self, place: Place) -> int:
        if place not in self.numbers:
            self.numbers[place] = len(self.places)
            self.places.append(place)
        return self.numbers[place]

    def put(self, node: Node, place: Place, at: int = 0) -> None:
        self.where[id(node)] = _Where(self.number(place), at)
        self._embed(node)

    def put_new(self, node: Node, kind: str) -> None:
        self.put(node, Place(f"{self.prefix}{len(self.where)}", kind, node.width))

    def _embed(self, node: Node) -> None:
        """The pieces of a value are made where they belong, but for those that already are elsewhere."""
        if node.code != "assemble":
            return
        place, at = self.where[id(node)]
        for piece in node.sources:
            inner = piece.node
            if piece.whole and not inner.leaf and id(inner) not in self.where:
                self.where[id(inner)] = _Where(place, at)
                self._embed(inner)
            at += piece.width

    def of(self, ref: Ref) -> _Where:
        place, at = self.where[id(ref.node)]
        return _Where(place, at + ref.at)


def lower(outputs: Sequence[Output], known: Mapping[Node, tuple[Place, int]], prefix: str = "") -> Program:
    """Make the program of a graph.

    Args:
        outputs: what is wanted. known: places of what is given. prefix: of the names of new storages.
    """
    _fuse(outputs, known)
    order = [node for node in topological([one.ref for one in outputs], known) if node.code != "vector"]
    level = _levels(order)
    order.sort(key=lambda node: (level[id(node)], node.code != "linear"))  # stable: what is needed stays before
    layout = _Layout(known, prefix)
    for node in topological([one.ref for one in outputs], known):
        if node.code == "vector":
            layout.put(node, Place(node.name, "vector", node.width))
    copies: list[tuple[Output, _Where]] = []
    found: list[_Where | None] = []
    for one in outputs:
        node, place = one.ref.node, one.place
        fresh = id(node) not in layout.where
        if fresh and (place is None or one.ref.whole):
            if place is None:
                layout.put_new(node, "stream")
            else:
                layout.put(node, place)
            found.append(layout.of(one.ref))
        elif place is None and layout.places[layout.where[id(node)].place].kind in ("stream", "given"):
            found.append(layout.of(one.ref))
        else:
            found.append(None)
    for i, one in enumerate(outputs):  # what lies elsewhere, or where it will not last, is copied at the end
        if found[i] is None:
            place = one.place or Place(f"{prefix}copy{i}", "stream", one.ref.width)
            copies.append((one, _Where(layout.number(place), 0)))
    for node in reversed(order):
        if node.code == "assemble" and id(node) not in layout.where:
            layout.put_new(node, "scratch")
    passing = _passing(order, level, [one.ref for one in outputs])
    for node in order:
        if id(node) not in layout.where:
            layout.put_new(node, "row" if id(node) in passing else "scratch")
    writer = _Writer(layout)
    for node in order:
        writer.write(node)
    for one, where in copies:
        writer.copy(one.ref, where)
    ends = iter(copies)
    slices = [
        Slice(layout.places[where.place], where.at, one.ref.width)
        for one, where in ((one, where or next(ends)[1]) for one, where in zip(outputs, found, strict=True))
    ]
    operations = np.array(writer.operations, np.int64).reshape(-1, 12)
    numbers = np.array(writer.numbers, np.float64).reshape(-1, 2)
    return Program(operations, numbers, layout.places, writer.matrices, slices)


def _passing(order: Sequence[Node], level: Mapping[int, int], roots: Iterable[Ref]) -> set[int]:
    """Nodes that only pointwise operations of their own level need: one row of them is enough."""
    passing = {id(node) for node in order if node.code != "linear"}
    for node in order:
        for ref in node.operands():
            if node.code == "linear" or level.get(id(ref.node), -1) != level[id(node)]:
                passing.discard(id(ref.node))
    return passing - {id(ref.node) for ref in roots}


class _Writer:
    """Operations as rows of numbers."""

    def __init__(self, layout: _Layout):
        self.layout = layout
        self.operations: list[list[int]] = []
        self.numbers: list[tuple[float, float]] = []
        self.matrices: list[Matrix] = []

    def write(self, node: Node) -> None:
        to = self.layout.where[id(node)]
        if node.code == "assemble":
            at = to.at
            for piece in node.sources:
                if self.layout.of(piece) != _Where(to.place, at):
                    self.copy(piece, _Where(to.place, at))
                at += piece.width
            return
        operands = [self.layout.of(ref) for ref in node.sources] + [_NOWHERE] * (2 - len(node.sources))
        depth, number = 0, 0
        if node.code == "linear":
            depth, matrix = node.sources[0].width, Matrix(node.name, node.block, node.transposed)
            if matrix not in self.matrices:
                self.matrices.append(matrix)
            number = self.matrices.index(matrix)
        acc = _NOWHERE if node.acc is None else self.layout.of(node.acc)
        self._add(node.code, to, operands, acc, node.width, depth, number, node.scale, node.shift)

    def copy(self, ref: Ref, to: _Where) -> None:
        self._add("copy", to, [self.layout.of(ref), _NOWHERE], _NOWHERE, ref.width)

    def _add(
        self, code: str, to: _Where, operands: Sequence[_Where], acc: _Where, width: int, depth: int = 0,
        number: int = 0, scale: float = 0.0, shift: float = 0.0,
    ) -> None:  # fmt: skip
        a, b = operands
        self.operations.append([CODES.index(code), *to, *a, *b, *acc, width, depth, number])
        self.numbers.append((scale, shift))
