"""LSTM and multiplicative LSTM over a whole window as one autograd node, its backward written by hand.

Nothing but matrix products and in-place pointwise work is left inside the time loop; whatever does not depend on the
gradient from later steps is made for the whole window at once. Weight gradients are one product per matrix.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.kernels.cell_loop.table import TableInput, project_window
from unrolled.kernels.cell_loop.weights import Weights
from unrolled.kernels.linear.steps import prepare

__all__ = ["FusedForm", "pays", "refuse", "run"]


class FusedForm(NamedTuple):
    """How a cell is an LSTM step on h, or on m = factor * (W_mh h).

    matrix: name of the matrix (G N, N or F) into the gates. factor: name of W_mh (F, N), or None; then the cell's
    projection is the gates' alone, else the pair (gates, factor). coupled, cap: see ``lstm_gates``.
    """

    matrix: str
    factor: str | None
    coupled: bool
    cap: bool


def refuse(cell: Any, x: Tensor, state: Any, reset: Tensor | None, noise: Any, tap: Any) -> str | None:
    """The reason why this backend cannot serve the call, or None."""
    form = getattr(cell, "fused_form", lambda: "only the LSTM and the mLSTM have a fused form")()
    if isinstance(form, str):
        return form
    if noise is not None and any(part is not None for part in noise):
        return "the fused form has no state dropout or zoneout"
    if tap is not None:
        return "the fused form shows no internals"
    if cell.compute.precision != "float32":
        return f"the fused form does not compute with {cell.compute.precision} products"
    if reset is not None and bool(reset[:, 1:].any()):
        return "the fused form cannot reset inside a window"
    return None


def pays(cell: Any, x: Tensor | TableInput, *others: Any) -> bool:
    """Whether there is a window to fuse: ``generic`` makes a single step as fast, or up to 1.8 times faster."""
    return x.shape[1] > 1


class _Window(torch.autograd.Function):
    """Time-major. gates: (T, B, G N), overwritten by the activated gates. factor: (T, B, F) or None."""

    @staticmethod
    def forward(
        ctx: Any,
        gates: Tensor,
        factor: Tensor | None,
        matrix: Tensor,
        matrix_h: Tensor | None,
        h0: Tensor,
        c0: Tensor,
        coupled: bool,
        cap: bool,
    ) -> tuple[Tensor, Tensor, Tensor]:
        steps, batch, _ = gates.shape
        n = c0.shape[1]
        active = gates.detach()
        hs, cs = active.new_empty(steps + 1, batch, n), active.new_empty(steps + 1, batch, n)
        hs[0], cs[0] = h0, c0
        squashed = active.new_empty(steps, batch, n)
        into_gates = prepare(matrix.detach(), batch, steps)
        into_factor = None if matrix_h is None else prepare(matrix_h.detach(), batch, steps)
        products: list[Tensor] = []
        ms = None if factor is None else torch.empty_like(factor)
        factor_rows, m_rows = ([], []) if factor is None or ms is None else (factor.unbind(0), ms.unbind(0))
        rows, h_rows, c_rows, t_rows = active.unbind(0), hs.unbind(0), cs.unbind(0), squashed.unbind(0)
        sigmoids = active[..., : -2 * n].unbind(0), active[..., -n:].unbind(0)
        f_rows, g_rows = active[..., -3 * n : -2 * n].unbind(0), active[..., -2 * n : -n].unbind(0)
        i_rows = None if coupled else active[..., :n].unbind(0)
        for t in range(steps):
            source = h_rows[t]
            if into_factor is not None:
                products.append(into_factor(source))
                source = torch.mul(products[t], factor_rows[t], out=m_rows[t])
            rows[t].add_(into_gates(source))
            sigmoids[0][t].sigmoid_()
            sigmoids[1][t].sigmoid_()
            g_rows[t].tanh_()
            c = c_rows[t + 1]
            if i_rows is None:
                torch.lerp(g_rows[t], c_rows[t], f_rows[t], out=c)
            else:
                i = torch.minimum(1 - f_rows[t], i_rows[t]) if cap else i_rows[t]
                torch.mul(f_rows[t], c_rows[t], out=c).addcmul_(i, g_rows[t])
            torch.mul(sigmoids[1][t], torch.tanh(c, out=t_rows[t]), out=h_rows[t + 1])
        ctx.save_for_backward(active, hs, cs, squashed, matrix, matrix_h, factor, ms)
        ctx.products = products
        ctx.options = coupled, cap
        return hs[1:], hs[-1].clone(), cs[-1].clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_hs: Tensor, grad_h: Tensor, grad_c: Tensor) -> Any:
        active, hs, cs, squashed, matrix, matrix_h, factor, ms = ctx.saved_tensors
        products = ctx.products
        coupled, cap = ctx.options
        steps, batch, n = squashed.shape
        f, g, o = active[..., -3 * n : -2 * n], active[..., -2 * n : -n], active[..., -n:]
        # grad starts as the slope of each gate's pre-activation per unit of gradient into c (into h for o); the loop
        # multiplies by that gradient
        grad = torch.empty_like(active)
        torch.mul(squashed, o * (1 - o), out=grad[..., -n:])
        into_c = (1 - squashed * squashed).mul_(o)
        before, keep = cs[:-1], f
        if coupled:
            torch.mul(before - g, f * (1 - f), out=grad[..., :n])
            torch.mul(1 - f, 1 - g * g, out=grad[..., n : 2 * n])
        else:
            i = active[..., :n]
            if cap:
                rest = 1 - f
                # torch.minimum splits the gradient of a tie between both sides
                share = (i < rest).to(i.dtype).add_((i == rest).to(i.dtype), alpha=0.5)
                torch.mul(g * share, i * (1 - i), out=grad[..., :n])
                torch.mul(before - g * (1 - share), f * rest, out=grad[..., n : 2 * n])
                torch.mul(torch.minimum(rest, i), 1 - g * g, out=grad[..., 2 * n : 3 * n])
            else:
                torch.mul(g, i * (1 - i), out=grad[..., :n])
                torch.mul(before, f * (1 - f), out=grad[..., n : 2 * n])
                torch.mul(i, 1 - g * g, out=grad[..., 2 * n : 3 * n])
        through_gates = prepare(matrix.t(), batch, steps)
        through_factor = None if matrix_h is None else prepare(matrix_h.t(), batch, steps)
        grad_factor = grad_product = None
        factor_rows, factor_grads, product_grads = (), (), ()
        if factor is not None:
            grad_factor, grad_product = torch.empty_like(factor), torch.empty_like(factor)
            factor_rows, factor_grads, product_grads = factor.unbind(0), grad_factor.unbind(0), grad_product.unbind(0)
        rows = grad.unbind(0)
        c_blocks = grad[..., :-n].unflatten(-1, (-1, n)).unbind(0)
        o_rows, slopes, keeps, outer = grad[..., -n:].unbind(0), into_c.unbind(0), keep.unbind(0), grad_hs.unbind(0)
        dh, dc = grad_h, grad_c.clone()
        for t in range(steps - 1, -1, -1):
            dh = dh + outer[t]
            dc.addcmul_(dh, slopes[t])
            o_rows[t].mul_(dh)
            c_blocks[t].mul_(dc.unsqueeze(1))
            dc.mul_(keeps[t])
            dh = through_gates(rows[t])
            if through_factor is not None:
                torch.mul(dh, products[t], out=factor_grads[t])
                dh = through_factor(torch.mul(dh, factor_rows[t], out=product_grads[t]))
        sources = hs[:-1] if ms is None else ms
        grad_matrix = grad.flatten(0, 1).t() @ sources.flatten(0, 1)
        grad_matrix_h = None
        if grad_product is not None:
            grad_matrix_h = grad_product.flatten(0, 1).t() @ hs[:-1].flatten(0, 1)
        return grad, grad_factor, grad_matrix, grad_matrix_h, dh, dc, None, None


def run(
    cell: Any, x: Tensor | TableInput, state: Any, reset: Tensor | None, noise: Any, tap: Any
) -> tuple[Tensor, Any]:
    """One window. Arguments and results as ``cell_loop``."""
    from unrolled.core.tree import reset_rows

    form: FusedForm = cell.fused_form()
    if reset is not None:
        state = reset_rows(state, cell.initial_state(x.shape[0], x.device, state.h.dtype), reset[:, 0])
    named = cell.effective_weights()
    weights = Weights(named)
    pre = project_window(lambda rows: cell.project(rows, weights), x)
    gates, factor = pre if form.factor else (pre, None)
    matrix_h = named[form.factor] if form.factor else None
    ys, h, c = _Window.apply(gates, factor, named[form.matrix], matrix_h, *state, form.coupled, form.cap)  # type: ignore
    return ys.transpose(0, 1), type(state)(h, c)
