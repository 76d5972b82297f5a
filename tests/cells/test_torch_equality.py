"""The LSTM, GRU and RNN are torch's, weights carried in both directions."""

from typing import Any

import pytest
import torch
from torch import nn

from conformance.material import wave
from conformance.tolerance import relative_error
from unrolled.cells import CELLS
from unrolled.cells.torch_form import export_torch, import_torch
from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import Compute

# The same function from the same weights: tighter than the table of tolerances, which is for long computations.
LIMIT = {torch.float32: 1e-6, torch.float64: 1e-12}

PAIRS: list[tuple[dict[str, Any], Any, dict[str, Any]]] = [
    ({"name": "lstm"}, nn.LSTM, {}),
    ({"name": "lstm", "bias": "two"}, nn.LSTM, {}),
    ({"name": "lstm", "projection": 3}, nn.LSTM, {"proj_size": 3}),
    ({"name": "gru"}, nn.GRU, {}),
    ({"name": "rnn"}, nn.RNN, {}),
    ({"name": "rnn", "bias": "two"}, nn.RNN, {}),
    ({"name": "rnn", "nonlinearity": "relu"}, nn.RNN, {"nonlinearity": "relu"}),
    ({"name": "mogrifier", "rounds": 0, "cell": {"name": "lstm"}}, nn.LSTM, {}),
]

# torch's own LSTM says so, about itself
pytestmark = pytest.mark.filterwarnings("ignore:LSTM with projections is not supported with oneDNN")


def make(config: dict[str, Any], dtype: torch.dtype = torch.float64) -> Any:
    parsed = CELLS.parse(config)
    return CELLS[parsed.name](5, 4, parsed).to(dtype)


def torch_result(module: nn.RNNBase, x: torch.Tensor, state: list[torch.Tensor]) -> list[torch.Tensor]:
    """Outputs, final state, gradients of x and of the state, and of torch's weights."""
    x, state = x.clone().requires_grad_(), [part.clone().requires_grad_() for part in state]
    hidden = tuple(part.unsqueeze(0) for part in state)
    y, final = module(x, hidden if isinstance(module, nn.LSTM) else hidden[0])
    ends = [part[0] for part in final] if isinstance(module, nn.LSTM) else [final[0]]
    loss = sum((part * wave(*part.shape, dtype=part.dtype)).sum() for part in [y, *ends])
    assert isinstance(loss, torch.Tensor)
    return [y, *ends, *torch.autograd.grad(loss, [x, *state, *module.parameters()])]


def own_result(cell: Any, x: torch.Tensor, state: list[torch.Tensor], names: list[list[str]]) -> list[torch.Tensor]:
    x, state = x.clone().requires_grad_(), [part.clone().requires_grad_() for part in state]
    y, final = cell(x, type(cell.initial_state(1))(*state))
    loss = sum((part * wave(*part.shape, dtype=part.dtype)).sum() for part in [y, *final])
    assert isinstance(loss, torch.Tensor)
    flat = [cell.get_parameter(name) for group in names for name in group]
    return [y, *final, *torch.autograd.grad(loss, [x, *state, *flat])]


def weights_in_torchs_order(cell: Any) -> list[list[str]]:
    """Our name for each of torch's weights; one bias of ours has the gradient of both of torch's."""
    inner, prefix = (cell.cell, "cell.") if hasattr(cell, "cell") else (cell, "")
    names = [name if name is not None else "bias" for name in inner.torch_form().names]
    return [[prefix + name] for name in names]


RUNS = [(*pair, backend) for pair in PAIRS for backend in make(pair[0]).backends()]


def test_torchs_kernels_take_part() -> None:
    assert [backend for *_, backend in RUNS].count("torch") == len(PAIRS) - 1, "all but the Mogrifier"


@pytest.mark.parametrize("dtype", LIMIT)
@pytest.mark.parametrize(("config", "module", "options", "backend"), RUNS, ids=str)
def test_equal_to_torch(
    config: dict[str, Any], module: Any, options: dict[str, Any], backend: str, dtype: torch.dtype
) -> None:
    torch.manual_seed(1)
    theirs = module(5, 4, batch_first=True, **options).to(dtype)
    cell = make(config, dtype)
    cell.compute = Compute(backend=backend)
    import_torch(getattr(cell, "cell", cell), theirs)
    x = wave(3, 6, 5, phase=0.3, dtype=dtype)
    state = [0.5 * wave(3, part.shape[1], phase=k, dtype=dtype) for k, part in enumerate(cell.initial_state(1))]
    names = weights_in_torchs_order(cell)
    expected, found = torch_result(theirs, x, state), own_result(cell, x, state, names)
    for k, (value, wanted) in enumerate(zip(found, expected, strict=True)):
        assert relative_error(value, wanted) <= LIMIT[dtype], k


@pytest.mark.parametrize(("config", "module", "options"), PAIRS[:-1], ids=str)
def test_there_and_back(config: dict[str, Any], module: Any, options: dict[str, Any]) -> None:
    torch.manual_seed(2)
    cell = make(config)
    with torch.no_grad():
        for k, parameter in enumerate(cell.parameters()):
            parameter.copy_(wave(*parameter.shape, phase=k))
    theirs = export_torch(cell)
    assert repr(theirs) == repr(module(5, 4, batch_first=True, **options))
    x = wave(2, 4, 5)
    assert relative_error(theirs(x)[0], cell(x)[0]) <= LIMIT[torch.float64]
    again = make(config)
    import_torch(again, theirs)
    for name, parameter in cell.named_parameters():
        assert torch.equal(again.get_parameter(name), parameter), name


def test_second_layer_is_imported() -> None:
    theirs = nn.GRU(5, 5, num_layers=2)
    cell = CELLS["gru"](5, 5, CELLS.parse("gru"))
    import_torch(cell, theirs, layer=1)
    assert torch.equal(cell.weight_hh, theirs.get_parameter("weight_hh_l1"))


@pytest.mark.parametrize(
    ("config", "module", "message"),
    [
        ({"name": "lstm"}, nn.GRU(5, 4), "GRU"),
        ({"name": "rnn"}, nn.RNN(5, 4, nonlinearity="relu"), "RNN_RELU"),
        ({"name": "lstm"}, nn.LSTM(5, 3), "sizes"),
        ({"name": "lstm"}, nn.LSTM(5, 4, bidirectional=True), "do not fit"),
        ({"name": "lstm"}, nn.LSTM(5, 4, bias=False), "do not fit"),
        ({"name": "lstm", "layer_norm": True}, nn.LSTM(5, 4), "layer norm"),
        ({"name": "lstm", "coupled": True}, nn.LSTM(5, 4), "coupled"),
        ({"name": "gru", "reset": "before"}, nn.GRU(5, 4), "before"),
        ({"name": "mlstm"}, nn.LSTM(5, 4), "mlstm"),
    ],
    ids=str,
)
def test_other_modules_are_refused(config: dict[str, Any], module: nn.RNNBase, message: str) -> None:
    cell = make(config)
    kept = {name: value.clone() for name, value in cell.state_dict().items()}
    with pytest.raises(UsageError, match=message):
        import_torch(cell, module)
    assert all(torch.equal(value, kept[name]) for name, value in cell.state_dict().items())


def test_export_of_another_cell_is_refused() -> None:
    with pytest.raises(UsageError, match="layer norm"):
        export_torch(make({"name": "gru", "layer_norm": True}))
    with pytest.raises(UsageError, match="mrnn"):
        export_torch(make({"name": "mrnn"}))
