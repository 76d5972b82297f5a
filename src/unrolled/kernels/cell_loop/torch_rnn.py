"""torch's own LSTM, GRU and RNN as a backend of the three cells that are the same function."""

import warnings
from typing import Any

import torch
from torch import Tensor

from unrolled.kernels.cell_loop.table import TableInput, dense

__all__ = ["pays", "refuse", "run"]

# With fewer steps packing the weights, which oneDNN does in every call, mostly costs more than it gains (three steps of
# 32 rows and 1,024 units without gradients are 1.3 times faster with it; with gradients 0.6).
_FEWEST_STEPS = 4


def refuse(cell: Any, x: Tensor, state: Any, reset: Tensor | None, noise: Any, tap: Any) -> str | None:
    """The reason why torch's kernels cannot serve this call, or None."""
    form = getattr(cell, "torch_form", None)
    if form is None:
        return "torch has no kernel for this cell"
    reason = form()
    if isinstance(reason, str):
        return reason
    if noise is not None and any(part is not None for part in noise):
        return "torch's kernels have no state dropout or zoneout"
    if tap is not None:
        return "torch's kernels show no internals"
    if cell.compute.precision != "float32":
        return f"it computes in float32, not {cell.compute.precision}"
    if reset is not None and bool(reset[:, 1:].any()):
        return "torch's kernels cannot reset inside a window"
    return None


def pays(cell: Any, x: Tensor | TableInput, *others: Any) -> bool:
    """Whether the window is long enough for torch's LSTM on a CPU (512 units, one row, one step: 2.7 ms, ``generic``
    0.3); its GRU and RNN are plain products there."""
    if x.device.type != "cpu" or x.shape[1] >= _FEWEST_STEPS:
        return True
    form = cell.torch_form() if hasattr(cell, "torch_form") else None
    return getattr(form, "function", None) != "lstm"


def run(
    cell: Any, x: Tensor | TableInput, state: Any, reset: Tensor | None, noise: Any, tap: Any
) -> tuple[Tensor, Any]:
    """One window by ``torch.lstm``, ``torch.gru``, ``torch.rnn_tanh`` or ``torch.rnn_relu``."""
    from unrolled.core.tree import reset_rows

    form, x = cell.torch_form(), dense(x)
    if reset is not None:
        state = reset_rows(state, cell.initial_state(x.shape[0], x.device, state.h.dtype), reset[:, 0])
    hidden = tuple(part.unsqueeze(0) for part in state)
    weights = cell.effective_weights()
    flat = [weights[name] if name is not None else x.new_zeros(form.bias_size) for name in form.names]
    # oneDNN has no LSTM with projection; torch says so once, and goes on with its own kernel, which is what is wanted
    with warnings.catch_warnings():
        if form.names[-1] == "weight_hr":
            warnings.filterwarnings("ignore", message="LSTM with projections is not supported with oneDNN")
        # time-major inside, so that stacked layers hand their outputs on without a copy
        y, *final = getattr(torch, form.function)(
            x.transpose(0, 1).contiguous(),
            hidden if form.function == "lstm" else hidden[0],
            flat,
            True,  # has_biases
            1,  # layers
            0.0,  # dropout
            torch.is_grad_enabled(),
            False,  # bidirectional
            False,  # batch_first
        )
    return y.transpose(0, 1), type(state)(*(part[0] for part in final))
