"""The ``newton`` backend: all steps of a window at once, by Newton's iteration (DEER, Lim et al. 2024, 2309.12252).

The trajectory is the root of s(t) - f(s(t-1)) over all t. Each iteration takes f and its Jacobian at every step of the
last guess in one call, and solves the linear recurrence d(t) = J(t) d(t-1) + r(t) by a scan over dense matrices. The
gradient needs no iteration: with the Jacobians at the solution it is the same scan, backwards.

After i iterations the first i steps are exact, so what has converged from the start of the window on is kept as it is.
Of a step that expands its state the iteration may overflow or wander, even where the expansion passes (a layer norm of
a c that is nearly even): where it has not converged after 20 rounds the plain loop runs instead, and a line of the log
says so. A value that has not converged is never returned. It serves by name alone: on a CPU the loop is faster.
"""

import logging
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from unrolled.core.tree import leaves, map_tree
from unrolled.kernels.cell_loop.loop import Noise, SteppedCell, noisy_step, run_loop, silent
from unrolled.kernels.cell_loop.table import TableInput, dense, project_window
from unrolled.kernels.cell_loop.weights import Weights

__all__ = ["ITERATIONS", "Found", "refuse", "run", "solve"]

log = logging.getLogger("unrolled.kernels")

ITERATIONS = 20
# numbers in the Jacobians of a window: 1 GiB in float64
_MOST = 1 << 27
_LARGEST = 1e8
_TOLERANCE = {torch.float64: 1e-11, torch.float32: 1e-5}


def refuse(
    cell: SteppedCell, x: Tensor | TableInput, state: Any, reset: Tensor | None, noise: Noise | None, tap: Any
) -> str | None:
    """The reason why this backend cannot serve the call, or None."""
    if tap is not None:
        return "Newton's iteration shows no internals"
    if x.dtype not in _TOLERANCE or any(part.dtype != x.dtype for part in leaves(state)):
        return "it computes in float32 and float64, with a state of the input's type"
    if cell.compute.precision != "float32":
        return f"it does not compute with {cell.compute.precision} products"
    size = sum(part[0].numel() for part in leaves(state))
    numbers = x.shape[0] * x.shape[1] * size * size
    if numbers > _MOST:
        return f"its Jacobians would have {numbers:,} numbers, and {_MOST:,} are the most"
    return None


class _Steps(NamedTuple):
    """All steps of a window as one call: rows are (time, batch), time first.

    call: weights, projections, masks and flat states before each step (T B, S) -> outputs (T B, out) or None where they
    are h, and flat states after it. flat, tree: a State -> (B, S), and back.
    """

    call: Callable[[Weights, Any, Mapping[str, Tensor], Tensor], tuple[Tensor | None, Tensor]]
    flat: Callable[[Any], Tensor]
    tree: Callable[[Tensor], Any]


class Found(NamedTuple):
    """A trajectory (T, B, S) and the iterations that it took; None and those that were tried where there is none."""

    states: Tensor | None
    iterations: int


def _steps(cell: SteppedCell, state: Any) -> _Steps:
    sizes = [part[0].numel() for part in leaves(state)]

    def flat(tree: Any) -> Tensor:
        return torch.cat([part.flatten(1) for part in leaves(tree)], -1)

    def tree(rows: Tensor) -> Any:
        parts = iter(rows.split(sizes, -1))
        return map_tree(lambda like: next(parts).unflatten(-1, like.shape[1:]), state)

    def call(weights: Weights, pre: Any, masks: Mapping[str, Tensor], rows: Tensor) -> tuple[Tensor | None, Tensor]:
        kept: dict[str, Any] = {name: mask for name, mask in masks.items() if not name.startswith("state_")}
        mask_in, mask_out = masks.get("state_in"), masks.get("state_out")
        y, new = noisy_step(cell, pre, tree(rows), weights, silent, mask_in, mask_out, kept)
        return (None if y is new.h else y), flat(new)

    return _Steps(call, flat, tree)


def _shifted(states: Tensor, first: Tensor, start: Tensor | None, reset: Tensor | None) -> Tensor:
    """The states before each step: those after the step before, but the start where a reset comes. (T, B, S)."""
    before = torch.cat([first.unsqueeze(0), states[:-1]])
    return before if reset is None or start is None else torch.where(reset, start, before)


def _scan(jacobians: Tensor, d: Tensor) -> Tensor:
    """d(t) + J(t) d'(t-1), summed up over t by doubling; J (T, B, S, S), d (T, B, S)."""
    steps, shift = len(d), 1
    while shift < steps:
        carried = (jacobians[shift:] @ d[:-shift].unsqueeze(-1)).squeeze(-1)
        d = torch.cat([d[:shift], d[shift:] + carried])
        shift *= 2
        if shift < steps:
            half = shift // 2
            jacobians = torch.cat([jacobians[:half], jacobians[half:] @ jacobians[:-half]])
    return d


def _with_jacobians(
    step: Callable[[Tensor], tuple[Any, Tensor]], before: Tensor, reset: Tensor | None
) -> tuple[Tensor, Tensor]:
    """States after each step and their derivatives by those before, (T, B, S) and (T, B, S, S); none across a reset."""
    with torch.enable_grad():
        rows = before.detach().flatten(0, 1).requires_grad_()
        _, after = step(rows)
        columns = [
            torch.autograd.grad(column.sum(), rows, retain_graph=True, allow_unused=True)[0]
            if column.requires_grad
            else None
            for column in after.unbind(-1)
        ]
    whole = [torch.zeros_like(rows) if one is None else one for one in columns]
    jacobians = torch.stack(whole, 1).unflatten(0, before.shape[:2])
    if reset is not None:
        jacobians = jacobians.masked_fill(reset.unsqueeze(-1), 0)
    return after.detach().view_as(before), jacobians


def _solve(
    step: Callable[[slice, Tensor], tuple[Any, Tensor]],
    length: int,
    first: Tensor,
    start: Tensor | None,
    reset: Tensor | None,
) -> Found:
    """step: (steps of the window, flat states before them) -> outputs, and flat states after them."""
    limit = _TOLERANCE[first.dtype]
    states = first.detach().expand(length, -1, -1).clone()
    exact = 0
    for iteration in range(1, ITERATIONS + 1):
        rest = slice(exact, length)
        entry = first if exact == 0 else states[exact - 1]
        flags = None if reset is None else reset[rest]
        before = _shifted(states[rest], entry, start, flags).detach()
        after, jacobians = _with_jacobians(lambda rows, rest=rest: step(rest, rows), before, flags)
        change = _scan(jacobians, after - states[rest])
        moved = (states[rest] + change.nan_to_num(0.0, _LARGEST, -_LARGEST)).clamp(-_LARGEST, _LARGEST)
        small = change.isfinite() & (change.abs() <= limit * moved.abs().clamp(min=1))
        states = torch.cat([states[:exact], moved])
        wrong = (~small.flatten(1).all(1)).nonzero()
        if not len(wrong):
            return Found(states, iteration)
        exact += int(wrong[0])
    return Found(None, ITERATIONS)


class _Trajectory(torch.autograd.Function):
    """The states after each step, which are what ``after`` was computed to be; the gradient goes back through all."""

    @staticmethod
    def forward(ctx: Any, after: Tensor, first: Tensor, jacobians: Tensor) -> Tensor:
        ctx.save_for_backward(jacobians)
        return after.clone()

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Any:
        (jacobians,) = ctx.saved_tensors
        turned = jacobians.mT
        # g(t) + J(t+1)' g'(t+1), from the last step on
        ahead = torch.cat([turned[1:], torch.zeros_like(turned[:1])]).flip(0)
        total = _scan(ahead, grad.flip(0)).flip(0)
        return total, (turned[0] @ total[0].unsqueeze(-1)).squeeze(-1), None


def _masks(noise: Noise | None, steps: int, state: Any) -> dict[str, Tensor]:
    """Masks by name, (T, B, ...), those of fields by the fields'."""
    if noise is None:
        return {}
    found = {"state_in": noise.state_in, "state_out": noise.state_out, **(noise.zoneout or {})}
    made = {}
    for name, mask in found.items():
        if mask is not None:
            like = state.h if name.startswith("state_") else getattr(state, name)
            made[name] = mask.transpose(0, 1).expand(steps, *like.shape)
    return made


def _rows(tree: Any, part: slice = slice(None)) -> Any:
    return map_tree(lambda tensor: tensor[part].flatten(0, 1), tree)


def solve(
    cell: SteppedCell, x: Tensor | TableInput, state: Any, reset: Tensor | None = None, noise: Noise | None = None
) -> Found:
    """The states after each step, found by Newton's iteration. Arguments as ``cell_loop``."""
    with torch.no_grad():
        weights = Weights({name: tensor.detach() for name, tensor in cell.effective_weights().items()})
        pre = project_window(lambda rows: cell.project(rows, weights), x)
        masks = _masks(noise, x.shape[1], state)
        all_steps = _steps(cell, state)
        first, start, flags = _ends(cell, x, state, reset, all_steps)

        def step(part: slice, rows: Tensor) -> tuple[Any, Tensor]:
            return all_steps.call(weights, _rows(pre, part), _rows(masks, part), rows)

        return _solve(step, x.shape[1], first, start, flags)


def _ends(
    cell: SteppedCell, x: Tensor | TableInput, state: Any, reset: Tensor | None, all_steps: _Steps
) -> tuple[Tensor, Tensor | None, Tensor | None]:
    """The flat entering state, the flat initial state and the flags (T, B, 1), None where no reset comes."""
    first = all_steps.flat(state)
    if reset is None:
        return first, None, None
    start = all_steps.flat(cell.initial_state(x.shape[0], x.device, first.dtype))
    return first, start, reset.t().unsqueeze(-1)


def run(
    cell: SteppedCell, x: Tensor | TableInput, state: Any, reset: Tensor | None, noise: Noise | None, tap: Any
) -> tuple[Tensor, Any]:
    """One window. Arguments and results as ``cell_loop``."""
    batch, steps = x.shape[:2]
    found = solve(cell, x, state, reset, noise)
    weights = Weights(cell.effective_weights())
    if found.states is not None:
        all_steps = _steps(cell, state)
        pre = _rows(project_window(lambda rows: cell.project(rows, weights), x))
        masks = _rows(_masks(noise, steps, state))
        first, start, flags = _ends(cell, x, state, reset, all_steps)
        before = _shifted(found.states, first, start, flags).detach()
        y, after = all_steps.call(weights, pre, masks, before.flatten(0, 1))
        after = after.view_as(before)
        off = (after.detach() - found.states).abs()
        if bool((off <= 10 * _TOLERANCE[after.dtype] * after.detach().abs().clamp(min=1)).all()):
            if not torch.is_grad_enabled():
                last = all_steps.tree(after[-1])
                y = all_steps.tree(after.flatten(0, 1)).h if y is None else y
                return y.unflatten(0, (steps, batch)).transpose(0, 1), last
            plain = Weights({name: tensor.detach() for name, tensor in weights.named.items()})
            still = map_tree(Tensor.detach, pre), map_tree(Tensor.detach, masks)
            _, jacobians = _with_jacobians(lambda rows: all_steps.call(plain, *still, rows), before, None)
            states = _joined(after, first, start, flags, jacobians)
            last = all_steps.tree(states[-1])
            if y is None:
                return all_steps.tree(states.flatten(0, 1)).h.unflatten(0, (steps, batch)).transpose(0, 1), last
            linked = _shifted(states, first, start, flags)
            y, _ = all_steps.call(weights, pre, masks, linked.flatten(0, 1))
            assert y is not None
            return y.unflatten(0, (steps, batch)).transpose(0, 1), last
    log.warning(
        "cell_loop %s: Newton's iteration has not converged after %d rounds; the loop runs.",
        cell.name, found.iterations,
    )  # fmt: skip
    return run_loop(cell, dense(x), state, reset, noise, silent, weights, weights)


def _joined(after: Tensor, first: Tensor, start: Tensor | None, flags: Tensor | None, jacobians: Tensor) -> Tensor:
    """The states after each step, tied to what they depend on: ``after`` by the step's own inputs and weights, the
    entering state, and the initial one where resets put it back."""
    if start is None or flags is None:
        return _Trajectory.apply(after, first, jacobians)  # type: ignore[return-value]
    # a step after a reset depends on the start by its Jacobian, and on nothing before
    if start.requires_grad:
        moved = (jacobians @ (start - start.detach()).unsqueeze(-1)).squeeze(-1)
        after = after + torch.where(flags, moved, torch.zeros_like(moved))
    within = jacobians.masked_fill(flags.unsqueeze(-1), 0)
    return _Trajectory.apply(after, first, within)  # type: ignore[return-value]
