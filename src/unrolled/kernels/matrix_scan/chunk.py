"""Products over chunks of the window, for any device; a chunk as long as the window is the form of attention.

Within a chunk G(i) is the sum of the decays up to step i, and what step j wrote has decayed by e^(G(i) - G(j)) at step
i. With the rank-one part, z = a^T S of all steps of a chunk is the solution of one triangular system (Yang et al. 2024,
arXiv:2406.06484, for the delta rule). A reset is a border that no pair of steps is looked at across, never a decay of
minus infinity, which would leave nothing of the other sums.
"""

import torch
from torch import Tensor
from torch.nn.functional import pad

from unrolled.kernels.matrix_scan.reference import Inputs

__all__ = ["CHUNK", "refuse", "scan"]

CHUNK = 64
# Decays of each key by itself: exponents are formed within so many steps, and between them refer to the later's start,
# since e^(-G) of a whole chunk overflows.
_SUB = 16


def refuse(given: Inputs) -> str | None:
    """The reason why these forms cannot serve the call, or None."""
    return "it has no rank-one part beside a decay of values" if given.a is not None and given.by_value else None


def scan(given: Inputs, size: int = CHUNK) -> tuple[Tensor, Tensor]:
    """See :func:`unrolled.kernels.matrix_scan.reference.scan`; ``size`` steps are a chunk."""
    time = given.q.shape[1]
    size = -(-min(size, time) // _SUB) * _SUB
    count = -(-time // size)

    def cut(x: Tensor) -> Tensor:
        """(batch, time, heads, n) -> (batch, heads, chunks, size, n); steps of zeros at the end change nothing."""
        x = pad(x, (0, 0, 0, 0, 0, count * size - time))
        return x.unflatten(1, (count, size)).permute(0, 3, 1, 2, 4)

    q, k, v = cut(given.q), cut(given.k), cut(given.v)
    g = cut(given.q.new_zeros(1, time, 1, 1) if given.log_decay is None else given.log_decay)
    total = g.cumsum(-2)
    text = _texts(given.reset, time, count, size, q.device)
    first, same = text == 0, text.unsqueeze(-1) == text.unsqueeze(-2)
    ends = text == text[..., -1:]
    order = torch.ones(size, size, dtype=torch.bool, device=q.device)
    upto, earlier = same & order.tril(), same & order.tril(-1)
    read, seen = (total - g, earlier) if given.before else (total, upto)
    left = (total[..., -1:, :] - total).exp()
    carried = total[..., -1, :].exp() * first[..., -1:]

    if given.by_value:
        within = _decayed_values(q, k, v, read, total, seen)
        write = (k * ends.unsqueeze(-1)).mT @ (v * left)
        carried = carried.unsqueeze(-2)
        states, last = _carry(given.state, carried.expand(*v.shape[:3], *carried.shape[3:]), write)
        o = within + (q * first.unsqueeze(-1)) @ states * read.exp()
    else:
        write = (k * left * ends.unsqueeze(-1)).mT
        within = _pairs(q, read, k, total, seen)
        enter = q * read.exp() * first.unsqueeze(-1)
        carried = carried.unsqueeze(-1).expand(*v.shape[:3], -1, 1)
        if given.a is None or given.b is None:
            states, last = _carry(given.state, carried, write @ v)
            o = within @ v + enter @ states
        else:
            a, b = cut(given.a), cut(given.b)
            system = torch.eye(size, dtype=q.dtype, device=q.device) - _pairs(a, total - g, b, total, earlier)
            known = torch.cat(
                [_pairs(a, total - g, k, total, earlier) @ v, a * (total - g).exp() * first.unsqueeze(-1)], -1
            )
            solved = torch.linalg.solve_triangular(system, known, upper=False, unitriangular=True)
            z, of_state = solved.split((v.shape[-1], a.shape[-1]), -1)
            also = (b * left * ends.unsqueeze(-1)).mT
            states, last = _carry(given.state, carried, write @ v + also @ z, also @ of_state)
            z = z + of_state @ states
            o = within @ v + _pairs(q, read, b, total, seen) @ z + enter @ states
    return given.scale * o.permute(0, 2, 3, 1, 4).flatten(1, 2)[:, :time], last


def _texts(reset: Tensor | None, time: int, count: int, size: int, device: torch.device) -> Tensor:
    """Resets so far in the chunk, (batch or 1, 1, chunks, size)."""
    if reset is None:
        return torch.zeros(1, 1, count, size, dtype=torch.int64, device=device)
    return pad(reset, (0, count * size - time)).unflatten(1, (count, size)).cumsum(-1).unsqueeze(1)


def _carry(state: Tensor, carried: Tensor, write: Tensor, turn: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The state before each chunk, (batch, heads, chunks, K, V), and the last: S <- carried S + write (+ turn S)."""
    states, s = [], state
    for i in range(write.shape[2]):
        states.append(s)
        kept = carried[:, :, i] * s + write[:, :, i]
        s = kept if turn is None else kept + turn[:, :, i] @ s
    return torch.stack(states, 2), s


def _pairs(x: Tensor, at: Tensor, y: Tensor, total: Tensor, seen: Tensor) -> Tensor:
    """sum over keys of x(i) y(j) e^(at(i) - total(j)), (..., size, size), where ``seen``, else 0."""
    if total.shape[-1] == 1:
        return (x @ y.mT) * (at - total.mT).masked_fill(~seen, -torch.inf).exp()
    rows, size = [], x.shape[-2]
    for start in range(0, size, _SUB):
        own = slice(start, start + _SUB)
        apart = (at[..., own, None, :] - total[..., None, own, :]).masked_fill(~seen[..., own, own, None], -torch.inf)
        near = torch.einsum("...ik,...jk,...ijk->...ij", x[..., own, :], y[..., own, :], apart.exp())
        if start:
            base = total[..., start - 1 : start, :]
            far = (x[..., own, :] * (at[..., own, :] - base).exp()) @ (
                y[..., :start, :] * (base - total[..., :start, :]).exp()
            ).mT
            near = torch.cat([far.masked_fill(~seen[..., own, :start], 0), near], -1)
        rows.append(pad(near, (0, size - start - _SUB)))
    return torch.cat(rows, -2)


def _decayed_values(q: Tensor, k: Tensor, v: Tensor, at: Tensor, total: Tensor, seen: Tensor) -> Tensor:
    """sum over j of (q(i) k(j)) e^(at(i) - total(j)) v(j), each value with a decay of its own, (..., size, V)."""
    scores, rows = (q @ k.mT).masked_fill(~seen, 0), []
    for start in range(0, q.shape[-2], _SUB):
        own = slice(start, start + _SUB)
        apart = (at[..., own, None, :] - total[..., None, own, :]).masked_fill(~seen[..., own, own, None], -torch.inf)
        near = torch.einsum("...ij,...jv,...ijv->...iv", scores[..., own, own], v[..., own, :], apart.exp())
        if start:
            base = total[..., start - 1 : start, :]
            far = scores[..., own, :start] @ (v[..., :start, :] * (base - total[..., :start, :]).exp())
            near = near + far * (at[..., own, :] - base).exp()
        rows.append(near)
    return torch.cat(rows, -2)
