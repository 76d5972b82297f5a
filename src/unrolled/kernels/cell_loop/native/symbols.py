"""Stand-ins for tensors and weights that write down what is done with them."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.nn.functional import layer_norm, logsigmoid

from unrolled.kernels.cell_loop.native.graph import Node, Ref, apply, assemble

__all__ = ["ROWS", "Symbol", "SymbolicWeights", "Unsupported"]

ROWS = "rows"


class Unsupported(Exception):
    """The step has an operation that the native library lacks; the message names it."""


class Symbol:
    """Stands for a tensor (batch, width), or (batch, groups, width) between ``unflatten`` and ``flatten``.

    Args:
        ref: the columns. groups: the last dimension but one, or None.
    """

    def __init__(self, ref: Ref, groups: int | None = None):
        self.ref, self.groups = ref, groups

    @property
    def shape(self) -> tuple[Any, ...]:
        """With a word in place of the batch; a vector has none."""
        width = self.ref.width
        lead = () if self.ref.node.code == "vector" else (ROWS,)
        return (*lead, width) if self.groups is None else (*lead, self.groups, width // self.groups)

    def _look(self, *others: Any) -> Any:
        raise Unsupported("its step looks at values")

    __bool__ = __float__ = __int__ = __len__ = __iter__ = _look
    __lt__ = __le__ = __gt__ = __ge__ = __eq__ = __ne__ = _look
    __hash__ = object.__hash__

    def __pow__(self, other: Any) -> Any:
        raise Unsupported("its step uses **, for which there is no native operation")

    __rpow__ = __pow__

    def __truediv__(self, other: Any) -> "Symbol":
        if isinstance(other, int | float):
            return self._with("mul", 1.0 / other)
        return self * _unary("reciprocal")(other) if isinstance(other, Symbol) else NotImplemented

    def __rtruediv__(self, other: Any) -> "Symbol":
        return _unary("reciprocal")(self) * other

    def __getattr__(self, name: str) -> Any:
        raise Unsupported(f"its step uses {name}, for which there is no native operation")

    def __getitem__(self, index: Any) -> "Symbol":
        if isinstance(index, tuple) and len(index) == 2 and index[0] is Ellipsis:
            index = index[1]
        elif self.ref.node.code != "vector":
            raise Unsupported("its step selects rows")
        if not isinstance(index, slice) or index.step not in (None, 1) or self.groups is not None:
            raise Unsupported("its step selects single columns")
        low, high, _ = index.indices(self.ref.width)
        if high <= low:
            raise Unsupported("its step selects no columns")
        return Symbol(self.ref.part(low, high - low))

    def chunk(self, count: int, dim: int = 0) -> tuple["Symbol", ...]:
        """As ``torch.Tensor.chunk`` over the last dimension, in equal parts."""
        if dim != -1 or self.ref.width % count or self.groups is not None:
            raise Unsupported("its step divides rows")
        width = self.ref.width // count
        return tuple(Symbol(self.ref.part(i * width, width)) for i in range(count))

    def unflatten(self, dim: int, sizes: tuple[int, int]) -> "Symbol":
        """As ``torch.Tensor.unflatten`` of the last dimension in two, the first of them -1."""
        if dim != -1 or len(sizes) != 2 or sizes[0] != -1 or self.groups is not None:
            raise Unsupported("its step reshapes")
        return Symbol(self.ref, self.ref.width // sizes[1])

    def flatten(self, start: int = 0) -> "Symbol":
        """Undo :meth:`unflatten`."""
        if start != -2 or self.groups is None:
            raise Unsupported("its step reshapes")
        return Symbol(self.ref)

    def _with(self, code: str, other: Any, turned: bool = False) -> "Symbol":
        if isinstance(other, int | float):
            scale, shift = {
                "add": (1.0, other), "mul": (other, 0.0),
                "sub": (-1.0, other) if turned else (1.0, -other),
            }[code]  # fmt: skip
            return Symbol(apply("affine", self.ref, scale=float(scale), shift=float(shift)), self.groups)
        if not isinstance(other, Symbol):
            return NotImplemented
        left, right = (other, self) if turned else (self, other)
        if left.groups != right.groups:
            return _spread(code, left, right)
        if left.ref.width != right.ref.width:
            raise Unsupported("its step repeats columns")
        if code == "sub" and left.ref.node.code == "vector":
            return Symbol(apply("affine", right.ref, scale=-1.0))._with("add", left)
        return Symbol(apply(code, left.ref, right.ref), self.groups)

    def __add__(self, other: Any) -> "Symbol":
        return self._with("add", other)

    __radd__ = __add__

    def __mul__(self, other: Any) -> "Symbol":
        return self._with("mul", other)

    __rmul__ = __mul__

    def __sub__(self, other: Any) -> "Symbol":
        return self._with("sub", other)

    def __rsub__(self, other: Any) -> "Symbol":
        return self._with("sub", other, turned=True)

    def __neg__(self) -> "Symbol":
        return self._with("mul", -1.0)

    @classmethod
    def __torch_function__(cls, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = getattr(function, "__name__", str(function))
        if function is layer_norm:
            return _layer_norm(*args, **(kwargs or {}))
        if function in _FUNCTIONS and not kwargs:
            return _FUNCTIONS[function](*args)
        raise Unsupported(f"its step uses {name}, for which there is no native operation")


def _spread(code: str, left: Symbol, right: Symbol) -> Symbol:
    """One of the two has a single group, which serves all groups of the other."""
    groups = max(left.groups or 0, right.groups or 0)
    if not left.groups or not right.groups or min(left.groups, right.groups) != 1:
        raise Unsupported("its step repeats columns")
    width = left.ref.width // left.groups
    if width != right.ref.width // right.groups:
        raise Unsupported("its step repeats columns")
    pieces = [
        apply(code, *(side.ref.part(0 if side.groups == 1 else i * width, width) for side in (left, right)))
        for i in range(groups)
    ]
    return Symbol(assemble(pieces), groups)


def _unary(code: str) -> Callable[[Symbol], Symbol]:
    return lambda x: Symbol(apply(code, x.ref), x.groups)


def _cat(parts: Any, dim: int = 0) -> Symbol:
    if dim != -1 or any(not isinstance(part, Symbol) or part.ref.node.code == "vector" for part in parts):
        raise Unsupported("its step joins what are not columns")
    return Symbol(assemble([part.ref for part in parts]))


def _layer_norm(
    x: Symbol, shape: Any, weight: Symbol | None = None, bias: Symbol | None = None, eps: float = 1e-5
) -> Symbol:
    if not isinstance(x, Symbol) or tuple(shape) != x.shape[-1:] or x.groups is not None:
        raise Unsupported("its step normalises something else than rows")
    y = Symbol(apply("norm", x.ref, shift=eps))
    y = y if weight is None else y * weight
    return y if bias is None else y + bias


_FUNCTIONS: dict[Any, Callable[..., Any]] = {
    torch.sigmoid: _unary("sigmoid"),
    torch.tanh: _unary("tanh"),
    torch.relu: _unary("relu"),
    torch.exp: _unary("exp"),
    logsigmoid: _unary("log_sigmoid"),
    torch.minimum: lambda a, b: a._with("min", b),
    torch.maximum: lambda a, b: -(-a)._with("min", -b),
    torch.cat: _cat,
}


class SymbolicWeights:
    """What ``step`` sees in place of :class:`~unrolled.kernels.cell_loop.weights.Weights`.

    Args:
        shapes: of every weight, by name.
    """

    def __init__(self, shapes: Mapping[str, tuple[int, ...]], prefix: str = ""):
        self.shapes, self.prefix = shapes, prefix

    def linear(self, name: str, v: Symbol, add: Symbol | None = None) -> Symbol:
        """v W.T (+ add), block by block where W has blocks."""
        key = self.prefix + name
        shape = self.shapes[key]
        if v.groups is not None or v.ref.node.code == "vector":
            raise Unsupported("its step multiplies a matrix with what are not rows")
        if len(shape) == 2:
            y = Symbol(_product(key, None, shape, v.ref))
        else:
            width = shape[2]
            y = Symbol(assemble([_product(key, i, shape[1:], v.ref.part(i * width, width)) for i in range(shape[0])]))
        return y if add is None else y + add

    def __getitem__(self, name: str) -> Symbol:
        key = self.prefix + name
        return Symbol(Ref(Node("vector", self.shapes[key][0], name=key, varies=True), 0, self.shapes[key][0]))

    def __contains__(self, name: str) -> bool:
        return self.prefix + name in self.shapes

    def scope(self, prefix: str) -> "SymbolicWeights":
        """The weights of an inner cell."""
        return SymbolicWeights(self.shapes, f"{self.prefix}{prefix}.")


def _product(name: str, block: int | None, shape: tuple[int, ...], v: Ref) -> Ref:
    node = Node("linear", shape[0], [v], name=name, block=block, varies=True)
    return Ref(node, 0, node.width)
