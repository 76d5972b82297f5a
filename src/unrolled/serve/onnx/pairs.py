"""torch's operations on complex numbers that are kept as pairs of real ones."""

import operator
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from unrolled.core.errors import UnrolledError

__all__ = ["Pair", "on_pairs", "paired"]

aten = torch.ops.aten


class Pair(NamedTuple):
    """A complex tensor: its real and its imaginary part, of one shape."""

    re: Tensor
    im: Tensor


def paired(args: Any, kwargs: Mapping[str, Any], operation: Any) -> bool:
    """Whether an operation must be carried out by :func:`on_pairs`: it reads complex numbers, makes some, or ONNX has
    it in another form alone."""
    if operation is operator.getitem:
        return False
    found = pytree.tree_leaves((args, dict(kwargs)), is_leaf=lambda one: isinstance(one, Pair))
    made = _packet(operation) in _ALWAYS or getattr(kwargs.get("dtype"), "is_complex", False)
    return made or any(isinstance(one, Pair) for one in found)


def on_pairs(operation: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """The result of an operation of which some arguments are pairs, or the result is one.

    Raises:
        UnrolledError: an operation that is not known on pairs.
    """
    packet = _packet(operation)
    if packet in _RULES:
        return _RULES[packet](*args, **kwargs)
    if packet not in _EACH:
        raise UnrolledError(f"the model cannot be exported: {operation} of complex numbers has no form in real ones.")

    def part(index: int) -> Any:
        def pick(one: Any) -> Any:
            return one[index] if isinstance(one, Pair) else one

        return operation(*_mapped(pick, args), **_mapped(pick, kwargs))

    re, im = part(0), part(1)
    if isinstance(re, Tensor):
        return Pair(re, im)
    return [Pair(*both) for both in zip(re, im, strict=True)]


def _mapped(function: Callable[[Any], Any], tree: Any) -> Any:
    return pytree.tree_map(function, tree, is_leaf=lambda one: isinstance(one, Pair))


def _packet(operation: Any) -> Any:
    return getattr(operation, "overloadpacket", operation)


def _split(x: Any) -> Pair:
    """Any value as a pair."""
    if isinstance(x, Pair):
        return x
    if isinstance(x, complex):
        return Pair(torch.tensor(x.real), torch.tensor(x.imag))
    return Pair(x, torch.zeros_like(x) if isinstance(x, Tensor) else torch.tensor(0.0))


def _mul(x: Any, y: Any) -> Pair:
    if not isinstance(y, Pair | complex):
        return Pair(x.re * y, x.im * y)
    if not isinstance(x, Pair | complex):
        return Pair(x * _split(y).re, x * _split(y).im)
    a, b = _split(x), _split(y)
    return Pair(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re)


def _reciprocal(x: Pair) -> Pair:
    size = x.re * x.re + x.im * x.im
    return Pair(x.re / size, -x.im / size)


def _div(x: Any, y: Any) -> Pair:
    return _mul(x, _reciprocal(y)) if isinstance(y, Pair) else Pair(x.re / y, x.im / y)


def _add(x: Any, y: Any, alpha: Any = 1) -> Pair:
    a, b = _split(x), _split(y)
    return Pair(a.re + alpha * b.re, a.im + alpha * b.im)


def _exp(x: Pair) -> Pair:
    size = x.re.exp()
    return Pair(size * x.im.cos(), size * x.im.sin())


def _product(multiply: Callable[[Tensor, Tensor], Tensor]) -> Callable[[Pair, Pair], Pair]:
    """A matrix product, of which torch has both factors complex or none."""

    def product(x: Pair, y: Pair) -> Pair:
        re = multiply(x.re, y.re) - multiply(x.im, y.im)
        return Pair(re, multiply(x.re, y.im) + multiply(x.im, y.re))

    return product


def _to(x: Any, dtype: Any = None, **options: Any) -> Any:
    if dtype is None or dtype.is_complex:
        return _split(x)
    return x.re.to(dtype)


def _cummax(x: Tensor, dim: int) -> tuple[Tensor, None]:
    """The running maximum, one place after another; of its second result nothing is read here."""
    parts = list(x.unbind(dim))
    for i in range(1, len(parts)):
        parts[i] = torch.maximum(parts[i - 1], parts[i])
    return torch.stack(parts, dim), None


_RULES: dict[Any, Callable[..., Any]] = {
    aten.complex: Pair,
    aten.polar: lambda size, angle: Pair(size * angle.cos(), size * angle.sin()),
    aten.view_as_complex: lambda x: Pair(x[..., 0], x[..., 1]),
    aten.view_as_real: lambda x: torch.stack([x.re, x.im], -1),
    aten.real: lambda x: x.re,
    aten.imag: lambda x: x.im,
    aten.abs: lambda x: (x.re * x.re + x.im * x.im).sqrt(),
    aten._conj: lambda x: Pair(x.re, -x.im),
    aten._conj_physical: lambda x: Pair(x.re, -x.im),
    aten.conj_physical: lambda x: Pair(x.re, -x.im),
    aten.resolve_conj: lambda x: x,
    aten.mul: _mul,
    aten.div: _div,
    aten.add: _add,
    aten.sub: lambda x, y, alpha=1: _add(x, y, -alpha),
    aten.rsub: lambda x, y, alpha=1: _add(y, x, -alpha),
    aten.reciprocal: _reciprocal,
    aten.exp: _exp,
    aten.mm: _product(torch.mm),
    aten.bmm: _product(torch.bmm),
    aten.matmul: _product(torch.matmul),
    aten._to_copy: _to,
    aten.cummax: _cummax,
}

_ALWAYS = {aten.complex, aten.polar, aten.view_as_complex, aten.cummax}

# What is done to both parts alike.
_EACH = {
    aten.alias, aten.cat, aten.clone, aten.contiguous, aten.detach, aten.diagonal, aten.expand, aten.flip,
    aten.gather, aten.index, aten.index_select, aten.lift_fresh_copy, aten.neg, aten.new_zeros, aten.permute,
    aten.repeat, aten.reshape, aten.select, aten.slice, aten.split, aten.split_with_sizes, aten.squeeze, aten.stack,
    aten.sum, aten.t, aten.transpose, aten.unbind, aten.unsqueeze, aten.view, aten._unsafe_view, aten.where,
    aten.zeros_like,
}  # fmt: skip
