"""``cell_loop``: a recurrence whose gates need h(t-1), one step after another (design: operation K3).

Backends, in the order that ``auto`` tries them: ``native`` (in C++ on a CPU, once ``unrolled build`` has been run; any
step made of products and pointwise operations; from four steps on), ``torch`` (LSTM, GRU and RNN only; the LSTM on a
CPU from four steps on), ``fused`` (LSTM and mLSTM: the window as one node with a backward written by hand; from two
steps on), ``generic`` (every StepCell: weight gradients collected over the window and made by one product, weights
prepared once per window), ``reference`` (the plain loop under autograd, which defines the operation). ``newton``
(all steps at once, by Newton's iteration) serves by name alone.
"""

from collections.abc import Callable
from typing import Any

from torch import Tensor

from unrolled.kernels.cell_loop import fused, native, newton, torch_rnn
from unrolled.kernels.cell_loop.loop import Noise, SteppedCell, Tap, foreign_step, run_loop, silent
from unrolled.kernels.cell_loop.table import TableInput, dense
from unrolled.kernels.cell_loop.weights import CollectingWeights, Weights
from unrolled.kernels.dispatch import Backend, Operation, choose

__all__ = ["BACKENDS", "OPERATION", "Noise", "TableInput", "Tap", "Weights", "cell_loop", "dense", "silent"]


def _never(*_: Any) -> None:
    return None


def _known_by(form: str, refuse: Callable[..., str | None]) -> Callable[..., str | None]:
    """The refusal of a backend that computes a cell by the description that its method ``form`` gives."""
    return lambda cell, *call: foreign_step(cell, form) or refuse(cell, *call)


def _refuse_generic(
    cell: SteppedCell, x: Tensor | TableInput, state: Any, reset: Tensor | None, noise: Any, tap: Any
) -> str | None:
    return "tracing runs the reference" if tap is not None else None


def _reference(
    cell: SteppedCell, x: Tensor | TableInput, state: Any, reset: Tensor | None, noise: Noise | None, tap: Tap | None
) -> tuple[Tensor, Any]:
    weights = Weights(cell.effective_weights(), cell.compute.precision)
    return run_loop(cell, dense(x), state, reset, noise, tap or silent, weights, weights)


def _generic(
    cell: SteppedCell, x: Tensor | TableInput, state: Any, reset: Tensor | None, noise: Noise | None, tap: None
) -> tuple[Tensor, Any]:
    named = cell.effective_weights()
    precision = cell.compute.precision
    collecting = CollectingWeights(named, precision, steps=x.shape[1])
    return run_loop(cell, x, state, reset, noise, silent, Weights(named, precision), collecting)


BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("native", native.refuse, native.run, native.pays),
        Backend("torch", _known_by("torch_form", torch_rnn.refuse), torch_rnn.run, torch_rnn.pays),
        Backend("fused", _known_by("fused_form", fused.refuse), fused.run, fused.pays),
        Backend("generic", _refuse_generic, _generic),
        Backend("newton", newton.refuse, newton.run, by_name=True),
        Backend("reference", _never, _reference),
    )
}

OPERATION = Operation(
    "cell_loop", "y(t), s(t) = step(x(t), s(t-1)), any StepCell", BACKENDS, "products", of_cells=True, cell="lstm"
)


def cell_loop(
    cell: SteppedCell,
    x: Tensor | TableInput,
    state: Any,
    reset: Tensor | None = None,
    noise: Noise | None = None,
    tap: Tap | None = None,
) -> tuple[Tensor, Any]:
    """Run a StepCell over a window with the backend that ``cell.compute`` asks for.

    Args:
        x: (batch, time, in_width), time >= 1; or rows of a table, of which the projection is then made once each.
        state: the cell's State, batch-first.
        reset: boolean (batch, time); where true the row's initial state is restored before the token.
        noise: drawn masks.
        tap: receives every named internal, step by step (runs the reference).
    Returns:
        y (batch, time, out_width) and the final state.
    Raises:
        UsageError: the named backend cannot serve this call.
    """
    args = (cell, x, state, reset, noise, tap)
    backend = choose("cell_loop", BACKENDS, cell.compute.wish(OPERATION.name), cell.name, *args)
    return backend.run(*args)
