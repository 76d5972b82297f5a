"""The time loop itself: resets, noise and steps. Reference and generic backend differ only in their weights."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from unrolled.core.tree import leaves, map_tree, reset_rows
from unrolled.kernels.cell_loop.table import TableInput, project_window
from unrolled.kernels.cell_loop.weights import Weights
from unrolled.kernels.dispatch import Compute

__all__ = ["Noise", "SteppedCell", "Tap", "foreign_step", "noisy_step", "run_loop", "silent"]

Tap = Callable[[str, Tensor], None]


class Noise(NamedTuple):
    """Drawn masks, never rates; each (batch, 1, ...) for the whole window or (batch, time, ...) per step. The rest is
    the shape of the state's field, mostly (width,).

    state_in: multiplies the field h of the state on entry to the step.
    state_out: multiplies h(t) as output and as carry.
    zoneout: field name -> mask z; the field becomes z * old + (1 - z) * new (Krueger et al. 2016). At
        evaluation the mask is the rate itself.
    inner: name of a site inside the cell -> mask that multiplies what is there; of cells that are no loop.
    weight: parameter's name -> mask of its shape that multiplies it for the whole window (weight drop).
    """

    state_in: Tensor | None = None
    state_out: Tensor | None = None
    zoneout: Mapping[str, Tensor] | None = None
    inner: Mapping[str, Tensor] | None = None
    weight: Mapping[str, Tensor] | None = None


class SteppedCell(Protocol):
    """What ``cell_loop`` asks of a cell (see ``unrolled.cells.base.StepCell``)."""

    compute: Compute

    @property
    def name(self) -> str: ...

    def initial_state(self, batch: int, device: Any = None, dtype: Any = None) -> Any: ...
    def effective_weights(self) -> Mapping[str, Tensor]: ...
    def project(self, x: Tensor, w: Weights) -> Any: ...
    def step(self, pre: Any, state: Any, w: Weights, tap: Tap) -> tuple[Tensor, Any]: ...


def foreign_step(cell: Any, form: str) -> str | None:
    """Why a kernel that knows a cell by its method ``form`` may not stand in for it: the cell is of a subclass of the
    one that declares the form, with a ``project`` or ``step`` of its own. None where it may."""
    declares = next((cls for cls in type(cell).__mro__ if form in vars(cls)), type(cell))
    for name in ("project", "step"):
        if getattr(type(cell), name) is not getattr(declares, name):
            return f"{type(cell).__name__} has a {name} of its own"
    return None


def silent(name: str, value: Tensor) -> None:
    """The tap when nobody listens."""


def _per_step(mask: Tensor | None, steps: int) -> Sequence[Tensor | None]:
    if mask is None:
        return [None] * steps
    return mask.unbind(1) if mask.shape[1] != 1 else [mask[:, 0]] * steps


def _unbind(pre: Any, steps: int) -> list[Any]:
    """Time-major tree -> one tree a step. Time is unbound once: indexing pre[t] under autograd would allocate
    a zero gradient of the whole window at every step."""
    parts = [tensor.unbind(0) for tensor in leaves(pre)]
    columns = []
    for t in range(steps):
        values = iter([part[t] for part in parts])
        columns.append(map_tree(lambda _, values=values: next(values), pre))
    return columns


def _type_of(state: Any) -> torch.dtype | None:
    """The type of the state's real numbers; None where it has none."""
    return next((part.dtype for part in leaves(state) if part.is_floating_point()), None)


def noisy_step(
    cell: SteppedCell,
    pre: Any,
    state: Any,
    weights: Weights,
    tap: Tap,
    mask_in: Tensor | None,
    mask_out: Tensor | None,
    zoneout: Mapping[str, Tensor],
) -> tuple[Tensor, Any]:
    """One step with its masks, (batch, width) each; see :class:`Noise`."""
    entry = state if mask_in is None else state._replace(h=state.h * mask_in)
    y, new = cell.step(pre, entry, weights, tap)
    is_h = y is new.h
    for name, z in zoneout.items():
        new = new._replace(**{name: z * getattr(state, name) + (1 - z) * getattr(new, name)})
    if mask_out is not None:
        new = new._replace(h=new.h * mask_out)
    return new.h if is_h else y, new


def run_loop(
    cell: SteppedCell,
    x: Tensor | TableInput,
    state: Any,
    reset: Tensor | None,
    noise: Noise | None,
    tap: Tap,
    project_weights: Weights,
    step_weights: Weights,
) -> tuple[Tensor, Any]:
    """One window: project all inputs at once, then step through time.

    Args:
        x: (batch, time, in_width). reset: boolean (batch, time) or None.
    Returns:
        y (batch, time, out_width), stored time-major, and the final state.
    """
    batch, steps = x.shape[:2]
    pre = _unbind(project_window(lambda rows: cell.project(rows, project_weights), x), steps)
    noise = noise or Noise()
    mask_in, mask_out = _per_step(noise.state_in, steps), _per_step(noise.state_out, steps)
    zoneout = {name: _per_step(mask, steps) for name, mask in (noise.zoneout or {}).items()}
    resets: list[Tensor | None] = [None] * steps
    initial = None
    if reset is not None:
        # one look at the whole mask on a CPU; on a GPU a look would be a synchronisation, so every step selects
        flags = reset.any(0).tolist() if reset.device.type == "cpu" else [True] * steps
        resets = [row if flag else None for row, flag in zip(reset.unbind(1), flags, strict=True)]
        initial = cell.initial_state(batch, x.device, _type_of(state))
    outputs = []
    for t in range(steps):
        row = resets[t]
        if row is not None:
            state = reset_rows(state, initial, row)
        kept: dict[str, Any] = {name: masks[t] for name, masks in zoneout.items()}
        y, state = noisy_step(cell, pre[t], state, step_weights, tap, mask_in[t], mask_out[t], kept)
        outputs.append(y)
    return torch.stack(outputs).transpose(0, 1), state
