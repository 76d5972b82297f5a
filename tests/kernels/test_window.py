"""Products over all rows of a window: by the library and by torch, exact and with factors rounded to bf16."""

import pytest
import torch
from torch import Tensor

from kernels.threads import assert_threads_change_no_bit
from unrolled.kernels.cell_loop.native.inputs import InputWeights
from unrolled.kernels.cpu import Library, instruction_sets, library, why_no_library
from unrolled.kernels.linear import window
from unrolled.kernels.linear.window import WindowMatrix, window_gradient, window_product

pytestmark = pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)), dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (5, 9, 3), (128, 16, 48), (130, 17, 49), (400, 200, 97), (257, 33, 300)])
@pytest.mark.parametrize("name", instruction_sets())
def test_it_is_the_product(name: str, sizes: tuple[int, int, int]) -> None:
    k, m, n = sizes
    for dtype, limit in ((torch.float64, 1e-11), (torch.float32, 1e-4)):
        grad, rows, total = draw(k, m + 5, dtype=dtype)[:, 2 : m + 2], draw(k, n, dtype=dtype), draw(m, n, dtype=dtype)
        expected = grad.double().t() @ rows.double()
        found = total.clone()
        library(name).add_gradient(grad, rows, found, add=False)
        torch.testing.assert_close(found.double(), expected, rtol=limit, atol=limit)
        library(name).add_gradient(grad, rows, found)
        torch.testing.assert_close(found.double(), 2 * expected, rtol=limit, atol=limit)


@pytest.mark.parametrize(
    "sizes", [(1, 1, 1), (5, 9, 3), (1025, 17, 49), (400, 200, 97), (257, 33, 300), (1300, 24, 16)]
)
@pytest.mark.parametrize("name", [name for name in instruction_sets() if library(name).lowers])
def test_gradients_with_bf16_factors(name: str, sizes: tuple[int, int, int]) -> None:
    k, m, n = sizes
    grad, rows = draw(k, m + 5, dtype=torch.float32)[:, 2 : m + 2], draw(k, n, dtype=torch.float32)
    found, expected = draw(m, n, dtype=torch.float32), rounded(grad).t() @ rounded(rows)
    library(name).add_gradient(grad, rows, found, add=False, low=True)
    torch.testing.assert_close(found.double(), expected, rtol=1e-4, atol=1e-4)
    library(name).add_gradient(grad, rows, found, low=True)
    torch.testing.assert_close(found.double(), 2 * expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("sizes", [(1, 1, 1), (129, 7, 49), (300, 33, 16), (200, 300, 97)])
@pytest.mark.parametrize("name", instruction_sets())
def test_products_with_a_packed_matrix(name: str, sizes: tuple[int, int, int]) -> None:
    rows, k, n = sizes
    used = library(name)
    for dtype, low, limit in ((torch.float64, False, 1e-12), (torch.float32, False, 1e-4), (torch.float32, True, 1e-4)):
        x, weight, bias = draw(rows, k + 3, dtype=dtype)[:, 1 : k + 1], draw(n, k, dtype=dtype), draw(n, dtype=dtype)
        packed = used.pack(weight.t(), "bf16_factors" if low else "exact")
        expected = rounded(x) @ rounded(weight).t() if low else x.double() @ weight.double().t()
        for shift in (None, bias):
            found = used.linear(x, packed, n, shift, low)
            torch.testing.assert_close(
                found.double(), expected + (0 if shift is None else shift), rtol=limit, atol=limit
            )


def rounded(x: Tensor) -> Tensor:
    return x.bfloat16().double()


def test_threads_change_no_bit() -> None:
    grad, rows = draw(300, 515, dtype=torch.float32), draw(300, 40, dtype=torch.float32)
    weight, low = draw(70, 40, dtype=torch.float32), library().lowers
    assert_threads_change_no_bit(lambda: [window_gradient(grad, rows), WindowMatrix(weight).multiply(rows)])
    assert_threads_change_no_bit(
        lambda: [window_gradient(grad, rows, low=low), WindowMatrix(weight, low).multiply(rows)]
    )


@pytest.fixture(params=["torch is faster", "torch is slower", "no library"])
def maker(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """The choice between library and torch as on each kind of machine."""
    monkeypatch.setattr(window, "beats_torch", lambda: request.param != "torch is faster")
    if request.param == "no library":
        monkeypatch.setattr(window, "why_no_library", lambda: "it is not built")


@pytest.mark.parametrize("sizes", [(40, 12), (12, 40), (300, 128), (500, 129)])
def test_sums_and_shapes_of_either_kind(maker: None, sizes: tuple[int, int]) -> None:
    grad, rows = draw(150, sizes[0]), draw(150, sizes[1])
    total = draw(*sizes)
    expected = total + grad.t() @ rows
    torch.testing.assert_close(window_gradient(grad, rows), grad.t() @ rows)
    assert window_gradient(grad, rows, total) is total
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("rows", [3, 200])
@pytest.mark.parametrize("low", [False, True])
def test_a_matrix_of_either_kind(maker: None, low: bool, rows: int) -> None:
    dtype, limit = (torch.float32, 0.05) if low else (torch.float64, 1e-12)
    v, grad, weight, bias = draw(2, rows, 12), draw(2, rows, 30), draw(30, 12), draw(30)
    matrix, total = WindowMatrix(weight.to(dtype), low), draw(30, 12)
    found = [matrix.multiply(v.to(dtype)), matrix.multiply(v.to(dtype), bias.to(dtype))]
    found.append(matrix.multiply_transposed(grad.to(dtype)))
    found.append(window_gradient(grad.flatten(0, 1).to(dtype), v.flatten(0, 1).to(dtype), total.clone().to(dtype), low))
    exact = [v @ weight.t(), v @ weight.t() + bias, grad @ weight, total + grad.flatten(0, 1).t() @ v.flatten(0, 1)]
    for one, expected in zip(found, exact, strict=True):
        assert (one.dtype, one.shape) == (dtype, expected.shape)
        error = float((one.double() - expected).norm() / expected.norm())
        assert error < limit
        assert (error > 1e-5) == low, "bf16 factors and exact ones are told apart"


def test_rows_whose_columns_lie_apart(maker: None) -> None:
    v, weight = draw(12, 200).t(), draw(12, 30).t()
    torch.testing.assert_close(WindowMatrix(weight).multiply(v), v @ weight.t())
    torch.testing.assert_close(window_gradient(draw(30, 200).t(), v), draw(30, 200) @ v)


@pytest.mark.parametrize("bias", [False, True])
def test_input_products(maker: None, bias: bool) -> None:
    v, weight, shift = draw(6, 30, 10).requires_grad_(), draw(30, 10).requires_grad_(), draw(30).requires_grad_()
    add = shift if bias else None
    wanted = [v, weight, shift] if bias else [v, weight]
    seed = draw(6, 30, 30)
    y = InputWeights({"w": weight}).linear("w", v, add)
    reference = torch.nn.functional.linear(v, weight, add)
    torch.testing.assert_close(y, reference)
    expected = torch.autograd.grad(reference, wanted, seed)
    for found, value in zip(torch.autograd.grad(y, wanted, seed), expected, strict=True):
        torch.testing.assert_close(found, value)
    y = InputWeights({"w": weight}).linear("w", v.detach(), add)
    assert torch.autograd.grad(y.sum(), weight)[0].shape == (30, 10)


@pytest.mark.parametrize(("rows", "faster", "used"), [(200, True, True), (3, True, False), (200, False, False)])
def test_who_makes_the_products(monkeypatch: pytest.MonkeyPatch, rows: int, faster: bool, used: bool) -> None:
    """The library where it is the faster one and there are many rows, in both passes; else torch."""
    asked: list[str] = []
    for name in ("linear", "add_gradient"):
        real = getattr(Library, name)
        monkeypatch.setattr(Library, name, lambda *a, name=name, real=real: asked.append(name) or real(*a))
    monkeypatch.setattr(window, "beats_torch", lambda: faster)
    v, weight = draw(rows, 40).requires_grad_(), draw(30, 40).requires_grad_()
    window_product(v, weight, None, "float32").sum().backward()
    assert sorted(asked) == (["add_gradient", "linear", "linear"] if used else [])
