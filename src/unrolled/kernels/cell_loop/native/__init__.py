"""The ``native`` backend: any StepCell made of products and pointwise operations, in C++ on a CPU.

The cell's own ``step`` is run once on symbols (``trace``), the backward pass is derived from what it did (``derive``),
both become programs of few operations (``lower``), and the library runs them over the window (``execute``): packed
matrices, pointwise work row by row, no autograd inside. Threads share the rows. A row's result does not depend on the
rows beside it.
"""

from typing import Any

import torch
from torch import Tensor

from unrolled.core.tree import leaves, reset_rows
from unrolled.kernels.cell_loop.loop import Noise
from unrolled.kernels.cell_loop.native.compile import compiled, unsupported
from unrolled.kernels.cell_loop.native.execute import Window
from unrolled.kernels.cell_loop.native.inputs import InputWeights
from unrolled.kernels.cell_loop.native.trace import Kind
from unrolled.kernels.cell_loop.table import TableInput
from unrolled.kernels.cpu import library, why_no_library
from unrolled.kernels.linear.bf16 import fast_products

__all__ = ["pays", "refuse", "run"]

# With fewer steps packing the matrices costs more than it gains.
_FEWEST_STEPS = 4


def _kind(reset: Tensor | None, noise: Noise | None) -> Kind:
    inside = reset is not None and bool(reset[:, 1:].any())
    masks = dict(_masks(noise))
    zoneout = tuple(sorted(name.removeprefix("zoneout.") for name in masks if name.startswith("zoneout.")))
    varies = any(mask.requires_grad for mask in masks.values())
    return Kind(inside, "state_in" in masks, "state_out" in masks, zoneout, varies)


def refuse(
    cell: Any, x: Tensor | TableInput, state: Any, reset: Tensor | None, noise: Noise | None, tap: Any
) -> str | None:
    """The reason why this backend cannot serve the call, or None."""
    if tap is not None:
        return "the native form shows no internals"
    if x.device.type != "cpu" or x.dtype not in (torch.float32, torch.float64):
        return "it computes on a CPU in float32 and float64"
    if any(part.dtype != x.dtype for part in leaves(state)):
        return f"the state is not of the input's dtype {x.dtype}"
    if cell.compute.precision != "float32" and x.dtype != torch.float32:
        return f"it computes {cell.compute.precision} products of float32 only"
    reason = why_no_library()
    return reason if reason is not None else unsupported(cell, state, _kind(reset, noise), x.shape[-1])


def pays(cell: Any, x: Tensor | TableInput, *others: Any) -> bool:
    """Whether the window is long enough; bf16 products that torch has and the library has not are left to torch."""
    if cell.compute.precision == "bf16" and fast_products() and (why_no_library() is not None or not library().lowers):
        return False
    return x.shape[1] >= _FEWEST_STEPS


def run(
    cell: Any, x: Tensor | TableInput, state: Any, reset: Tensor | None, noise: Noise | None, tap: Any
) -> tuple[Tensor, Any]:
    """One window. Arguments and results as ``cell_loop``."""
    batch, steps, in_width = x.shape
    kind = _kind(reset, noise)
    if reset is not None and not kind.reset:
        state = reset_rows(state, cell.initial_state(batch, x.device, state[0].dtype), reset[:, 0])
    named = cell.effective_weights()
    weights = InputWeights(named, cell.compute.precision)
    ids, rows = (_row_numbers(x), x.table) if isinstance(x, TableInput) else (None, x.transpose(0, 1).contiguous())
    pre = leaves(cell.project(rows, weights))
    given = {f"pre.{i}": part for i, part in enumerate(pre)}
    if kind.reset:
        assert reset is not None
        given["reset"] = (~reset).to(x.dtype).t().unsqueeze(-1).contiguous()
    for name, mask in _masks(noise):
        width = getattr(state, name.removeprefix("zoneout.") if name.startswith("zoneout.") else "h").shape[1]
        given[name] = mask.to(x.dtype).transpose(0, 1).expand(-1, batch, width)
    given |= {f"state.{name}": part for name, part in zip(state._fields, state, strict=True)}
    everything = given | {name: weight.contiguous() for name, weight in named.items()}
    gradients = torch.is_grad_enabled() and any(one.requires_grad for one in everything.values())
    low = cell.compute.precision == "bf16"
    programs = compiled(cell, state, kind, in_width, gradients)
    used = _used(programs)
    names = [name for name in everything if name in given or name in used]
    y, *ends = Window.apply(library(), programs, low, names, steps, batch, ids, *(everything[name] for name in names))  # type: ignore
    return y.transpose(0, 1), type(state)(*ends)


def _row_numbers(x: TableInput) -> Tensor:
    """The ids, time-major; checked here, since the library reads whatever row they name."""
    low, high = x.ids.aminmax()
    if low < 0 or high >= len(x.table):
        raise IndexError(f"the input has rows {int(low)} to {int(high)} of a table of {len(x.table)}")
    return x.ids.t().to(torch.int64).contiguous()


def _masks(noise: Noise | None) -> list[tuple[str, Tensor]]:
    """Name -> mask (batch, steps or 1, width); a rate (1, 1, 1) too."""
    if noise is None:
        return []
    found = [("state_in", noise.state_in), ("state_out", noise.state_out)]
    found += [(f"zoneout.{name}", mask) for name, mask in (noise.zoneout or {}).items()]
    return [(name, mask) for name, mask in found if mask is not None]


def _used(programs: Any) -> set[str]:
    """Names of the weights that the programs read: matrices and vectors of the steps, not of the projection."""
    parts = [programs.forward] if programs.backward is None else [programs.forward, programs.backward]
    names = {matrix.name for part in parts for matrix in part.matrices}
    return names | {place.storage for part in parts for place in part.places if place.kind == "vector"}
