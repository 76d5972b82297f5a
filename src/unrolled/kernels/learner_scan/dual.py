"""Products over chunks: no weights of single tokens are made (the dual form of Sun et al. 2024, arXiv:2407.04620).

All errors of a chunk are looked at with the weights before it, so that the weights at each of its tokens are a sum of
these weights, the steps summed up so far, and the outer products x(j) delta(j)^T of the chunk's tokens, with factors of
the tokens alone: a triangle of numbers for each chunk. What a token reads through such weights is attention, without a
softmax, to the inputs of each layer. With a momentum and a decay the factors are two recurrences over the chunk,
which ``diag_scan`` computes for all chunks at once.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from unrolled.kernels.diag_scan import diag_scan
from unrolled.kernels.learner_scan.inner import ACTIVATIONS, Layer, deltas, layers_of, output, run, vector
from unrolled.kernels.learner_scan.reference import Inputs, Learned
from unrolled.kernels.learner_scan.slots import Slots, cut

__all__ = ["scan"]

Layers = list[Layer]


class _Factors(NamedTuple):
    """Of every slot, (batch, heads, slots, length, ...). pairs: (..., length), of the outer product of each token
    (columns) in the weights at each token (rows). of_now, of_sums: (..., 1), of the weights and of the sums before the
    slot; of_now None: 1. end_*: the same after the slot, (..., 1, ...). sum_*: of the sums after it."""

    pairs: Tensor
    of_now: Tensor | None
    of_sums: Tensor
    end_pairs: Tensor
    end_now: Tensor | None
    end_sums: Tensor
    sum_pairs: Tensor
    sum_sums: Tensor | None


def _shared(step: Tensor, shares: Tensor, slots: Slots) -> _Factors:
    """Of weights base + share(place) sums: the steps are summed with equal weights."""
    row = -step.unsqueeze(-2)
    share = (shares[slots.place] * slots.there).unsqueeze(1).unsqueeze(-1)
    order = torch.ones(step.shape[-1], step.shape[-1], dtype=torch.bool, device=step.device).tril()
    end = shares[-1].view(1, 1, 1, 1, 1)
    return _Factors(share * row * order, None, share, end * row, None, end, row, None)


def _scanned(step: Tensor, momentum: Tensor | None, keep: Tensor | None, slots: Slots) -> _Factors:
    """Of S <- momentum S - step g, M <- keep M + S: the factors of the tokens' g, of S and of M before the slot."""
    shape, size = step.shape, step.shape[-1]
    there = slots.there.unsqueeze(1).expand(shape)

    def gate(x: Tensor | None, without: float) -> Tensor:
        """(rows, length, 1), 1 where there is no token."""
        x = torch.full_like(step, without) if x is None else x
        return torch.where(there, x, 1).reshape(-1, size, 1)

    def first(column: int) -> Tensor:
        return torch.eye(size + 2, dtype=step.dtype, device=step.device)[column].expand(rows, -1)

    rows = step.numel() // size
    entries = torch.nn.functional.pad(torch.diag_embed(-step.reshape(-1, size)), (0, 2))
    sums, last_sums = diag_scan(gate(momentum, 0.0), entries, first(size))
    now, last_now = diag_scan(gate(keep, 1.0), sums * there.reshape(-1, size, 1), first(size + 1))
    sums_end, now_end = (x.view(*shape[:-1], 1, size + 2).split((size, 1, 1), -1) for x in (last_sums, last_now))
    pairs, of_sums, of_now = now.reshape(*shape, size + 2).split((size, 1, 1), -1)
    return _Factors(pairs, of_now, of_sums, now_end[0], now_end[2], now_end[1], sums_end[0], sums_end[1])


def _times(factor: Tensor | None, x: Tensor) -> Tensor:
    return x if factor is None else factor * x


def _map(h: Tensor, layer: Layer) -> Tensor:
    z = h @ layer.weight
    return z if layer.bias is None else z + layer.bias


def _plus(total: Tensor, factor: Tensor | None, x: Tensor) -> Tensor:
    return total + x if factor is None else torch.addcmul(total, factor, x)


def _with_outer(total: Layers, row: Tensor, inputs: list[Tensor], errors: list[Tensor]) -> Layers:
    """Layers plus the sums over tokens of x(j) delta(j)^T with the factors ``row`` (..., 1, length), and of biases."""
    found = []
    for (weight, bias), x, delta in zip(total, inputs, errors, strict=True):
        left = (x * row.mT).mT.flatten(0, 1)
        weight = torch.baddbmm(weight.flatten(0, 1), left, delta.flatten(0, 1)).view(weight.shape)
        found.append(Layer(weight, None if bias is None else bias + row @ delta))
    return found


def _sum(*parts: tuple[Tensor | None, Sequence[Layer] | None]) -> Layers:
    """The sum of factors times weights, of those that there are."""
    there = [(factor, layers) for factor, layers in parts if layers is not None]
    found = []
    for same in zip(*(layers for _, layers in there), strict=True):
        pair: list[Any] = []
        for name in Layer._fields:
            terms = [(factor, getattr(one, name)) for (factor, _), one in zip(there, same, strict=True)]
            total = None if terms[0][1] is None else _times(*terms[0])
            for factor, part in terms[1:]:
                total = None if total is None or part is None else _plus(total, factor, part)
            pair.append(total)
        found.append(Layer(*pair))
    return found


def _zeros(layers: Layers) -> Layers:
    return [Layer(*(None if x is None else torch.zeros_like(x) for x in layer)) for layer in layers]  # type: ignore[arg-type]


def _where(flag: Tensor, new: Sequence[Layer], old: Sequence[Layer]) -> Layers:
    """``new`` in the rows of ``flag`` (batch,), else ``old``."""
    flag = flag.view(-1, 1, 1, 1)
    pairs = [[None if b is None else torch.where(flag, a, b) for a, b in zip(x, y, strict=True)]  # type: ignore[arg-type]
             for x, y in zip(new, old, strict=True)]  # fmt: skip
    return [Layer(*pair) for pair in pairs]  # type: ignore[arg-type]


class _Window:
    """A window cut into slots, and the walk over them."""

    def __init__(self, given: Inputs):
        self.given, time = given, given.q.shape[1]
        self.slots = slots = cut(given.state.place, given.reset, time, given.chunk)
        self.known = time > 1
        # rows that all begin with a chunk lie in the slots as they are
        self.even = self.known and given.reset is None and not bool(given.state.place.any())
        # one look at each: an index at a time would give each a gradient as large as the window
        self.q, self.k, self.v = (self._spread(x).unbind(2) for x in (given.q, given.k, given.v))
        step, momentum, keep = (
            None if x is None else self._spread(x.unsqueeze(-1)).squeeze(-1)
            for x in (given.step, given.momentum, given.keep)
        )
        assert step is not None
        shares = given.shares
        factors = _scanned(step, momentum, keep, slots) if shares is None else _shared(step, shares, slots)
        self.factors = [_Factors(*parts) for parts in zip(*(self._by_slot(x) for x in factors), strict=True)]
        self.home = given.home and given.keep is not None
        self.start = layers_of(given.start.unsqueeze(0), given.network)
        # what all rows do alike is asked once; of a single step nothing is asked, which keeps it one graph
        flags = (slots.fresh, slots.opens, slots.done)
        self.all = [x.all(0).tolist() if self.known else [False] for x in flags]
        self.any = [x.any(0).tolist() if self.known else [True] for x in flags]

    def _by_slot(self, x: Tensor | None) -> list[Tensor | None]:
        count = self.slots.fresh.shape[1]
        return [None] * count if x is None else list(x.expand(-1, -1, count, -1, -1).unbind(2))

    def _spread(self, x: Tensor) -> Tensor:
        """(batch, time, heads, n) -> (batch, heads, slots, length, n), zeros where there is no token."""
        index = self.slots.index
        if self.even:
            x = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, index[0].numel() - x.shape[1]))
            return x.unflatten(1, index.shape[1:]).permute(0, 3, 1, 2, 4)
        x = torch.nn.functional.pad(x, (0, 0, 0, 0, 0, 1))
        rows = torch.arange(x.shape[0], device=x.device).view(-1, 1, 1)
        return x[rows, index].permute(0, 3, 1, 2, 4)

    def _pick(self, kind: int, k: int, flag: Tensor, new: Sequence[Layer], old: Layers) -> Layers:
        """``new`` where the flag of slot k says so."""
        if self.all[kind][k]:
            return list(new)
        return _where(flag[:, k], new, old) if self.any[kind][k] else old

    def walk(self, begin: int, end: int, base: Layers, now: Layers | None, sums: Layers | None) -> Any:
        """From one slot to another: outputs, (batch, heads, length, size) each, and what is known then. sums None:
        zero."""
        slots, outputs = self.slots, []
        for k in range(begin, end):
            begun = [Layer(*(None if x is None else x.expand_as(y) for x, y in zip(a, b, strict=True)))  # type: ignore[arg-type,union-attr]
                     for a, b in zip(self.start, base, strict=True)]  # fmt: skip
            base = self._pick(0, k, slots.fresh, begun, base)
            emptied = slots.fresh if now is not None else slots.fresh | slots.opens
            if now is not None:
                now = self._pick(0, k, slots.fresh, begun, now)
                base = self._pick(1, k, slots.opens, now, base)
            if sums is not None:
                if now is None and self.all[1][k]:
                    sums = None
                elif self.any[0][k] or (now is None and self.any[1][k]):
                    sums = _where(emptied[:, k], _zeros(sums), sums)
            o, base, now, sums = self._slot(k, base, now, sums)
            outputs.append(o)
        return outputs, base, now, sums

    def _slot(self, k: int, base: Layers, now: Layers | None, sums: Layers | None) -> Any:
        """One slot: the output, and what is known after it."""
        given, factors = self.given, self.factors[k]
        q, x, v = self.q[k], self.k[k], self.v[k]
        passed = run(base, x, given.network)
        errors = deltas(base, passed, v, given.network, given.norm)
        weights, z, act = base if now is None else now, q, ACTIVATIONS[given.network.activation][0]
        for place, (own, kept, delta) in enumerate(zip(weights, passed.inputs, errors, strict=True)):
            h = act(z) if place else q
            z = _times(factors.of_now, _map(h, own))
            if self.home and factors.of_now is not None:
                z = torch.addcmul(z, 1 - factors.of_now, _map(h, self.start[place]))
            scores = h @ kept.mT if own.bias is None else h @ kept.mT + 1
            if sums is not None:
                z = torch.addcmul(z, factors.of_sums, _map(h, sums[place]))
            z = z + (factors.pairs * scores) @ delta
        o = output(z, q, given.norm)

        def outer(total: Layers, row: Tensor) -> Layers:
            return _with_outer(total, row, passed.inputs, errors)

        if now is None:
            if self.all[2][k]:
                return o, outer(_sum((None, base), (factors.end_sums, sums)), factors.end_pairs), None, None
            sums = _zeros(base) if sums is None else sums
            new, done = outer(sums, factors.sum_pairs), self.slots.done
            base = self._pick(2, k, done, _sum((None, base), (factors.end_sums, new)), base)
            if self.any[2][k]:
                new = _where(done[:, k], _zeros(new), new)
            return o, base, None, new
        parts: list[Any] = [(factors.end_now, now), (factors.end_sums, sums)]
        if self.home and factors.end_now is not None:
            parts.append((1 - factors.end_now, self.start))
        after = outer(_sum(*parts), factors.end_pairs)
        return o, base, after, outer(_sum((factors.sum_sums, sums)), factors.sum_pairs)


def scan(given: Inputs) -> tuple[Tensor, Learned]:
    """See :func:`unrolled.kernels.learner_scan.reference.scan`."""
    window, state = _Window(given), given.state
    base, sums = layers_of(state.base, given.network), layers_of(state.sums, given.network)
    now = None if state.now is None else layers_of(state.now, given.network)
    count, outputs = window.slots.fresh.shape[1], []
    group = given.group if torch.is_grad_enabled() and given.group else count
    for begin in range(0, count, group):
        part = (begin, min(begin + group, count), base, now, sums)
        found = checkpoint(window.walk, *part, use_reentrant=False) if group < count else window.walk(*part)
        assert found is not None
        outputs += found[0]
        _, base, now, sums = found
    o = torch.stack(outputs, 2).permute(0, 2, 3, 1, 4).flatten(1, 2)
    index = window.slots.where.view(*window.slots.where.shape, 1, 1).expand(-1, -1, *o.shape[2:])
    last = torch.zeros_like(state.sums) if sums is None else vector(sums)
    o = o[:, : given.q.shape[1]] if window.even else o.gather(1, index)
    return o, Learned(vector(base), None if now is None else vector(now), last, window.slots.last)
