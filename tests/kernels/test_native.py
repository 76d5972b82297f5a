"""The native backend where the conformance suite does not look: sizes, instruction sets, threads, what it refuses."""

import re
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.cells import CELLS, Noise, StepCell
from unrolled.core.errors import UsageError
from unrolled.kernels.cell_loop import native
from unrolled.kernels.cell_loop.native.symbols import Unsupported
from unrolled.kernels.cell_loop.native.trace import Kind, trace_step
from unrolled.kernels.cpu import Library, instruction_sets, library, why_no_library
from unrolled.kernels.dispatch import Compute

pytestmark = pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))
WIDTHS = [(1, 1), (7, 5), (16, 48), (33, 49), (130, 97), (20, 300)]


@pytest.fixture(params=instruction_sets())
def one_set(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The backend computes with one instruction set after another."""
    monkeypatch.setattr(native, "library", lambda: library(request.param))
    return request.param


@pytest.fixture
def threads() -> Iterator[None]:
    yield
    torch.set_num_threads(1)


def run(cell: Any, backend: str, batch: int, steps: int, noise: Noise | None = None) -> list[Tensor]:
    """Output, final state and every gradient of a random sum of them."""
    dtype = next(cell.parameters()).dtype
    generator = torch.Generator().manual_seed(1)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    x = draw(batch, steps, cell.in_width).requires_grad_()
    start = [draw(*part.shape).mul_(0.5).requires_grad_() for part in cell.initial_state(batch)]
    cell.compute = Compute(backend=backend)
    y, final = cell(x, cell.initial_state(1).__class__(*start), None, noise)
    found = [y, *final]
    loss = sum((part * draw(*part.shape)).sum() for part in found)
    return [*found, *torch.autograd.grad(loss, [x, *start, *cell.parameters()])]  # type: ignore[arg-type]


def make(name: str, in_width: int, width: int, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    torch.manual_seed(0)
    config = CELLS.parse({"name": name, **options})
    return CELLS[name](in_width, width, config).to(dtype)


@pytest.mark.parametrize("sizes", WIDTHS, ids=str)
@pytest.mark.parametrize("name", ["lstm", "mlstm", "gru", "mogrifier"])
def test_widths_that_fill_no_vector(one_set: str, name: str, sizes: tuple[int, int]) -> None:
    cell = make(name, *sizes)
    for found, expected in zip(run(cell, "native", 3, 6), run(cell, "reference", 3, 6), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("batch", [1, 2, 7, 8, 9, 20, 33])
def test_any_number_of_rows(one_set: str, batch: int) -> None:
    cell = make("mlstm", 40, 70)
    for found, expected in zip(run(cell, "native", batch, 4), run(cell, "reference", batch, 4), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("name", ["rnn", "lstm", "mgru", "mogrifier"])
def test_float32(one_set: str, name: str) -> None:
    cell = make(name, 60, 100, torch.float32)
    for found, expected in zip(run(cell, "native", 5, 40), run(cell, "reference", 5, 40), strict=True):
        torch.testing.assert_close(found, expected, rtol=2e-4, atol=2e-4)


def test_threads_and_other_rows_change_no_bit(threads: None) -> None:
    cell = make("mogrifier", 30, 50, torch.float32, rank=4, rounds=3)
    cell.compute = Compute(backend="native")
    x = torch.randn(40, 9, 30)
    whole = cell(x)[0]
    torch.set_num_threads(4)
    assert torch.equal(cell(x)[0], whole)
    torch.set_num_threads(1)
    for rows in (slice(0, 1), slice(3, 20), slice(39, 40)):
        assert torch.equal(cell(x[rows])[0], whole[rows])


def test_gradients_with_threads(threads: None) -> None:
    cell = make("lstm", 12, 20)
    noise = Noise(torch.rand(40, 1, 20), None, {"c": torch.rand(40, 5, 20).round()})
    expected = run(cell, "reference", 40, 5, noise)
    torch.set_num_threads(3)
    for found, value in zip(run(cell, "native", 40, 5, noise), expected, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("values", [torch.linspace(-12, 12, 4001), torch.linspace(-1e-3, 1e-3, 801),
                                    torch.tensor([-1e30, -200.0, -87.5, 0.0, 87.5, 200.0, 1e30])])  # fmt: skip
def test_activations_are_as_exact_as_float32_allows(one_set: str, values: Tensor) -> None:
    """An RNN and an LSTM of one unit whose recurrent weights are zero show the functions themselves."""
    rnn = make("rnn", 1, 1, torch.float32)
    lstm = make("lstm", 1, 1, torch.float32)
    with torch.no_grad():
        for cell in (rnn, lstm):
            for parameter in cell.parameters():
                parameter.zero_()
            cell.compute = Compute(backend="native")
        rnn.weight_ih.fill_(1)
        lstm.weight_ih[1] = 1  # c = sigmoid(x) c
        x = values.view(-1, 1, 1)
        tanh = rnn(x)[0].flatten()
        sigmoid = lstm(x, lstm.initial_state(1).__class__(torch.zeros(len(x), 1), torch.ones(len(x), 1)))[1].c.flatten()
    exact = values.double()
    torch.testing.assert_close(tanh.double(), exact.tanh(), rtol=4e-7, atol=0)
    torch.testing.assert_close(sigmoid.double(), exact.sigmoid(), rtol=4e-7, atol=1e-37)


def test_what_is_not_a_number_stays_so(one_set: str) -> None:
    cell = make("lstm", 3, 20, torch.float32, cap_input_gate=True)
    cell.compute = Compute(backend="native")
    x = torch.randn(2, 5, 3)
    x[1, 2, 0] = torch.nan
    y, final = cell(x)
    assert not y[0].isnan().any()
    assert y[1, 2:].isnan().all()
    assert final.c[1].isnan().all()


def test_a_reset_drops_what_is_not_finite() -> None:
    cell = make("lstm", 3, 20)
    cell.compute = Compute(backend="native")
    x = torch.randn(1, 6, 3, dtype=torch.float64)
    broken = x.clone()
    broken[0, 1, 0] = torch.nan
    reset = torch.tensor([[False, False, False, True, False, False]])
    torch.testing.assert_close(cell(broken, None, reset)[0][:, 3:], cell(x[:, 3:])[0], rtol=1e-12, atol=1e-14)


def test_the_same_window_twice_and_a_change_of_weights_between() -> None:
    cell = make("lstm", 4, 6)
    cell.compute = Compute(backend="native")
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    first = cell(x)[0]
    assert torch.equal(cell(x)[0], first)
    loss = first.sum()
    with torch.no_grad():
        cell.weight_hh.mul_(2)
    assert not torch.equal(cell(x)[0], first)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_step_that_depends_on_the_mode() -> None:
    class Louder(CELLS["rnn"]):
        def step(self, pre: Any, state: Any, w: Any, tap: Any) -> Any:
            return super().step(2 * pre if self.training else pre, state, w, tap)

    cell = Louder(3, 4, CELLS.parse("rnn"))
    x = torch.randn(2, 5, 3)
    for training in (True, False, True):
        cell.train(training)
        found = {}
        for backend in ("native", "reference"):
            cell.compute = Compute(backend=backend)
            found[backend] = cell(x)[0]
        torch.testing.assert_close(found["native"], found["reference"])


def test_only_the_gradients_that_are_asked_for() -> None:
    cell = make("mlstm", 4, 6)
    cell.compute = Compute(backend="native")
    cell.weight_m.requires_grad_(False)
    y, _ = cell(torch.randn(2, 5, 4, dtype=torch.float64))
    y.sum().backward()
    assert cell.weight_m.grad is None
    assert cell.weight_mh.grad is not None


@pytest.mark.parametrize(
    ("step", "reason"),
    [
        (lambda pre, state, w, tap: (pre.exp(), state), "uses exp"),
        (lambda pre, state, w, tap: (torch.softmax(pre, -1), state), "uses softmax"),
        (lambda pre, state, w, tap: (pre, state) if pre > 0 else (state.h, state), "looks at values"),
        (lambda pre, state, w, tap: (pre**2, state), "uses **"),
        (lambda pre, state, w, tap: (torch.ones(1, 4) * pre, state), "uses mul"),
        (lambda pre, state, w, tap: (pre, state) if pre else (state.h, state), "looks at values"),
        (lambda pre, state, w, tap: (pre[0], state), "selects rows"),
        (lambda pre, state, w, tap: (pre + torch.zeros(pre.shape[0], 4), state), "its step cannot be followed"),
        (
            lambda pre, state, w, tap: (w.linear("absent", pre), state),
            "its step cannot be followed (KeyError: 'absent')",
        ),
        (lambda pre, state, w, tap: (pre, state._replace(h=pre[..., :2])), "changes the form of the state's h"),
        (lambda pre, state, w, tap: (torch.ones(1, 4), state), "something else than rows"),
    ],
)
def test_a_step_with_other_operations_is_refused_in_words(step: Any, reason: str) -> None:
    cell = make("rnn", 3, 4)
    cell.step = step
    with pytest.raises(Unsupported, match=re.escape(reason)):
        trace_step(cell, cell.initial_state(1), Kind(), 3)


def test_without_the_library_auto_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "why_no_library", lambda: "the native library is not built; run `unrolled build`")
    cell = make("mogrifier", 4, 6)
    assert cell.backends() == ["generic", "newton", "reference"]
    assert cell(torch.randn(2, 5, 4, dtype=torch.float64))[0].shape == (2, 5, 6)
    cell.compute = Compute(precision="bf16")
    assert cell(torch.randn(2, 5, 4, dtype=torch.float64))[0].shape == (2, 5, 6)
    cell.compute = Compute(backend="native")
    with pytest.raises(UsageError, match="run `unrolled build`; use backend"):
        cell(torch.randn(2, 5, 4, dtype=torch.float64))


@pytest.mark.parametrize("torch_is_fast", [False, True])
@pytest.mark.parametrize("lowers", [False, True])
def test_bf16_goes_to_who_has_products_for_it(
    monkeypatch: pytest.MonkeyPatch, torch_is_fast: bool, lowers: bool
) -> None:
    monkeypatch.setattr(native, "fast_products", lambda: torch_is_fast)
    monkeypatch.setattr(native, "library", lambda: SimpleNamespace(lowers=lowers))
    cell, x = make("lstm", 4, 6, torch.float32), torch.zeros(2, 5, 4)
    cell.compute = Compute(precision="bf16")
    assert native.pays(cell, x) == (lowers or not torch_is_fast)
    assert not native.pays(cell, x[:, :3])


def test_packed_matrices_hold_every_number_once(one_set: str) -> None:
    used: Library = library(one_set)
    matrix = torch.arange(1.0, 7 * 53 + 1).view(7, 53)
    for given in (matrix, matrix.t(), matrix[:, 5:9]):
        packed = used.pack(given)
        assert torch.equal(packed[packed != 0].sort().values, given.flatten().sort().values)


def test_an_unknown_instruction_set_is_refused() -> None:
    with pytest.raises(UsageError, match="this processor has no sse9; it has: "):
        library("sse9")


# cells whose step has something else than products with weights and pointwise operations
OTHERS = {
    "urn": "its projection gives something else than rows",
    "gcrn": "its projection gives something else than rows",
    "gaussian_window": "its step uses device, for which there is no native operation",
}


@pytest.mark.parametrize("name", [name for name in CELLS if issubclass(CELLS[name], StepCell)])
def test_every_step_cell_of_the_table_is_served(name: str) -> None:
    for example in CELLS[name].EXAMPLES:
        cell = CELLS[name](12, 12, example)
        if name in OTHERS:
            assert native.refuse(cell, torch.zeros(1, 4, 12), cell.initial_state(1), None, None, None) == OTHERS[name]
        else:
            assert "native" in cell.backends(), example
