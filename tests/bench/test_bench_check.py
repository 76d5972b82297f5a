"""A backend that does not compute what the reference computes is not timed."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.bench.check import cannot, fault, relative_error
from unrolled.bench.material import Case, Material
from unrolled.bench.plan import PUBLISHED, Row, Sizes
from unrolled.bench.subjects import amount_of, call_of, case_of, make_cell
from unrolled.cells import CELLS
from unrolled.core.errors import UsageError
from unrolled.kernels import cell_loop, diag_scan

OWN = Sizes(width=10, batch=2, window=4)


def row(name: str = "lstm", backend: str = "generic", precision: str = "float32", **options: Any) -> Row:
    return Row(name, CELLS.parse({"name": name, **options}), backend, precision, OWN, "both")


@pytest.mark.parametrize("name", ["lstm", "gru", "mgru", "mogrifier", "qrnn"])
def test_every_backend_passes(name: str) -> None:
    for backend in make_cell(CELLS[name].Config(), 10).backends():
        assert fault(row(name, backend), OWN) is None


@pytest.mark.parametrize(("name", "backend"), [("window_attention", "dense"), ("long_conv", "fft")])
def test_counts_in_a_state_stay_counts(name: str, backend: str) -> None:
    options: dict[str, Any] = (
        {"context": 3, "heads": 1} if name == "window_attention" else {"length": 5, "online": "quasilinear"}
    )
    assert fault(row(name, backend, **options), OWN) is None


def test_the_published_scan_passes() -> None:
    assert fault(Row("diag_scan", None, PUBLISHED, "float32", OWN, "both"), OWN) is None


@pytest.mark.parametrize("precision", ["float32", "bf16"])
def test_the_published_loop_and_bf16_pass(precision: str) -> None:
    assert fault(row("mlstm", PUBLISHED, precision), OWN) is None
    assert fault(row("mlstm", "generic", precision), OWN) is None


Patch = Callable[[Callable[..., Any]], None]


@pytest.fixture
def patch(monkeypatch: pytest.MonkeyPatch) -> Patch:
    """Put a function around what the generic backend gives."""

    def put(change: Callable[..., Any]) -> None:
        right = cell_loop.BACKENDS["generic"]

        def run(cell: Any, x: Tensor, state: Any, *rest: Any) -> Any:
            y, final = right.run(cell, x, state, *rest)
            return change(x, y, final)

        monkeypatch.setitem(cell_loop.BACKENDS, "generic", right._replace(run=run))

    return put


class _WrongBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, y: Tensor) -> Tensor:
        return y.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return 1.01 * grad


def _dtype_only(x: Tensor, y: Tensor, final: Any) -> Any:
    return (y * 1.01 if x.dtype == torch.float32 else y), final


def _narrow(x: Tensor, y: Tensor, final: Any) -> Any:
    return y, final._replace(c=final.c[:, :2] if x.shape[1] > 1 else final.c)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda x, y, final: (y * 1.01, final), "output differs"),
        (lambda x, y, final: (y * (1 + 1e-9), final), "output differs"),
        (lambda x, y, final: (y * torch.nan, final), "output differs"),
        (_narrow, "final state 2 has shape (3, 2), not (3, 24)"),
        (lambda x, y, final: (y, final._replace(c=final.c + 1e-6)), "final state 2 differs"),
        (lambda x, y, final: (y if y.requires_grad else y * 1.01, final), "output without gradients differs"),
        (lambda x, y, final: (y if x.shape[1] > 1 else y * 1.01, final), "output step by step differs"),
        (lambda x, y, final: (_WrongBackward.apply(y), final), "gradient of"),
        (_dtype_only, "(float32, width 10)"),
        (lambda x, y, final: 1 / 0, "ZeroDivisionError: division by zero"),
    ],
)
def test_a_wrong_backend_is_refused(patch: Patch, change: Callable[..., Any], sentence: str) -> None:
    patch(change)
    reason = fault(row(), OWN)
    assert reason is not None
    assert sentence in reason


def test_wrong_bf16_is_refused(patch: Patch) -> None:
    patch(lambda x, y, final: (y * 1.01, final))
    assert fault(row(precision="bf16"), OWN) is None, "within the rounding of bf16"
    patch(lambda x, y, final: (y * 1.3, final))
    assert "output differs" in str(fault(row(precision="bf16"), OWN))


def test_wrong_gradients_in_bf16_are_refused(patch: Patch) -> None:
    patch(lambda x, y, final: (y.detach() + 0.5 * (y - y.detach()), final))
    assert "all gradients differs" in str(fault(row(precision="bf16"), OWN))


def test_a_wrong_scan_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    scan = Row("diag_scan", None, "inplace", "float32", OWN, "both")
    assert fault(scan, OWN) is None
    right = diag_scan.BACKENDS["inplace"]

    def wrong(*arguments: Any) -> tuple[Tensor, Tensor]:
        h, last = right.run(*arguments)
        return h * 1.01, last

    monkeypatch.setitem(diag_scan.BACKENDS, "inplace", right._replace(run=wrong))
    assert "output differs" in str(fault(scan, OWN))


def test_what_a_backend_cannot_do_is_said_by_dispatch() -> None:
    with pytest.raises(UsageError, match="backend 'torch' cannot run lstm: it computes in float32, not bf16"):
        fault(row(backend="torch", precision="bf16"), OWN)


def test_options_that_go_with_the_own_width_alone(patch: Patch) -> None:
    odd = row("mgru", reset="before", factor=10)
    assert fault(odd, OWN) is None
    patch(lambda x, y, final: (y * 1.01, final))
    assert "(float64, width 10)" in str(fault(odd, OWN))


def test_relative_error() -> None:
    a, b = torch.tensor([3.0, 4.0]), torch.tensor([3.0, 4.5])
    assert relative_error(b, a) == pytest.approx(0.1)
    assert relative_error(b, a, largest=True) == pytest.approx(0.125)
    assert relative_error(torch.full((4,), 1e-7), torch.zeros(4)) == pytest.approx(0.1), "absolute near zero"


def test_the_scan_has_no_steps_and_no_products() -> None:
    scan = Row("diag_scan", None, "inplace", "float32", OWN, "both")
    assert cannot(scan) is None
    assert "--pass" in str(cannot(scan._replace(mode="step")))
    assert "--precision" in str(cannot(scan._replace(precision="bf16")))
    assert cannot(row(precision="bf16")._replace(mode="step")) is None


def test_amounts() -> None:
    tokens, n = 2 * 4, 10
    both = row()
    assert amount_of(both) == 3 * amount_of(both._replace(mode="forward")) == 3 * tokens * 2 * 4 * n * (n + n)
    assert amount_of(both._replace(mode="step")) == amount_of(both._replace(mode="forward"))
    torch_row = Row("torch.nn.LSTM", None, "torch.nn", "float32", OWN, "both")
    assert amount_of(torch_row) == amount_of(both)
    assert amount_of(torch_row._replace(subject="torch.nn.GRU")) == amount_of(row("gru"))
    scan = Row("diag_scan", None, "inplace", "float32", OWN, "forward")
    assert amount_of(scan) == 3 * 4 * tokens * n
    assert amount_of(scan._replace(mode="both")) == 8 * 4 * tokens * n


def test_what_the_timed_calls_do() -> None:
    seen: list[tuple[str, bool]] = []
    weight = torch.ones(3, requires_grad=True)
    weight.register_hook(lambda grad: seen.append(("gradient", True)))

    def forward() -> tuple[Tensor, ...]:
        seen.append(("forward", torch.is_grad_enabled()))
        return (weight * 2,)

    def stepwise() -> tuple[list[Tensor], list[Tensor]]:
        seen.append(("stepwise", torch.is_grad_enabled()))
        return [], []

    case, material = Case({"weight": weight}, forward, stepwise), Material(torch.float32)
    for mode in ("forward", "both", "step"):
        call_of(case, mode, material)()
    assert seen == [("forward", False), ("forward", True), ("gradient", True), ("stepwise", False)]
    assert weight.grad is None, "gradients do not pile up"


def test_material_is_the_same_everywhere_and_leaves_the_random_numbers_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    first, second = (case_of(row("mlstm"), OWN, Material(torch.float64)) for _ in range(2))
    assert torch.equal(torch.rand(3), expected)
    for name, part in first.wanted.items():
        assert torch.equal(part, second.wanted[name]), name
    assert {"input", "initial state h", "initial state c"} < set(first.wanted)
