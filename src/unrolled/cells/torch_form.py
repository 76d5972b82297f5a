"""The three cells that torch computes too: how to call its kernels, and weights to and from ``torch.nn``."""

from typing import Any, NamedTuple

import torch
from torch import nn

from unrolled.core.errors import UsageError

__all__ = ["TorchForm", "bias_names", "export_torch", "import_torch"]


class TorchForm(NamedTuple):
    """A call of torch's kernel.

    function: name in the ``torch`` namespace. names: the flat weights by our parameter names, in torch's order;
    None stands for a zero vector of ``bias_size``.
    """

    function: str
    names: tuple[str | None, ...]
    bias_size: int


def bias_names(bias: str, padded: bool = False) -> tuple[Any, ...]:
    """Names of the bias vectors: ``bias``, or ``bias_ih`` and ``bias_hh``; ``padded`` gives torch's two slots."""
    if bias == "two":
        return ("bias_ih", "bias_hh")
    return ("bias", None) if padded else ("bias",)


def _matching(cell: Any, module: nn.RNNBase) -> TorchForm:
    form = cell.torch_form() if hasattr(cell, "torch_form") else f"{cell.name} is no LSTM, GRU or RNN"
    if isinstance(form, str):
        raise UsageError(f"weights of {type(module).__name__} cannot be exchanged with this cell: {form}.")
    mode = {"LSTM": "lstm", "GRU": "gru", "RNN_TANH": "rnn_tanh", "RNN_RELU": "rnn_relu"}.get(module.mode)
    if mode != form.function or module.bidirectional or not module.bias:
        raise UsageError(f"weights of this torch.nn module ({module.mode}) do not fit the cell {cell.name!r}.")
    sizes = (module.input_size, module.hidden_size, module.proj_size)
    if sizes != (cell.in_width, cell.width, getattr(cell.config, "projection", None) or 0):
        raise UsageError(f"the torch.nn module has input, hidden and projection sizes {sizes}, the cell another shape.")
    return form


def _slots(module: nn.RNNBase, layer: int) -> list[torch.Tensor]:
    names = [f"weight_ih_l{layer}", f"weight_hh_l{layer}", f"bias_ih_l{layer}", f"bias_hh_l{layer}"]
    if module.proj_size:
        names.append(f"weight_hr_l{layer}")
    return [module.get_parameter(name) for name in names]


@torch.no_grad()
def import_torch(cell: Any, module: nn.RNNBase, layer: int = 0) -> None:
    """Copy the weights of one layer of a ``torch.nn.LSTM``, ``GRU`` or ``RNN`` into a cell of the same shape.

    Torch's two biases are summed where the cell has one (for the GRU with two biases they stay apart).

    Raises:
        UsageError: another kind of cell, other sizes, bidirectional or without bias.
    """
    form = _matching(cell, module)
    slots = _slots(module, layer)
    for name, value in zip(form.names, slots, strict=True):
        if name is not None:
            cell.get_parameter(name).copy_(value)
    if None in form.names:
        cell.get_parameter("bias").copy_(slots[2] + slots[3])


@torch.no_grad()
def export_torch(cell: Any) -> nn.RNNBase:
    """A one-layer batch-first ``torch.nn.LSTM``, ``GRU`` or ``RNN`` with the weights of the cell.

    Raises:
        UsageError: a cell that ``torch.nn`` does not have (with the reason).
    """
    form = cell.torch_form() if hasattr(cell, "torch_form") else f"{cell.name} is no LSTM, GRU or RNN"
    if isinstance(form, str):
        raise UsageError(f"this cell has no torch.nn form: {form}.")
    options: dict[str, Any] = {"batch_first": True}
    if form.function == "lstm":
        module: nn.RNNBase = nn.LSTM(cell.in_width, cell.width, proj_size=cell.config.projection or 0, **options)
    elif form.function == "gru":
        module = nn.GRU(cell.in_width, cell.width, **options)
    else:
        kind = form.function.removeprefix("rnn_")
        module = nn.RNN(cell.in_width, cell.width, nonlinearity=kind, **options)  # type: ignore[arg-type]
    module = module.to(next(cell.parameters()))
    for name, slot in zip(form.names, _slots(module, 0), strict=True):
        slot.zero_() if name is None else slot.copy_(cell.get_parameter(name))
    return module
