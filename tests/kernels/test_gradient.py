"""The gradient of a matrix over all rows of a window."""

import pytest
import torch
from torch import Tensor

from kernels.threads import assert_threads_change_no_bit
from unrolled.kernels.cell_loop.native.inputs import InputWeights
from unrolled.kernels.cpu import instruction_sets, library, why_no_library
from unrolled.kernels.gradient import add_gradient

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


def test_threads_change_no_bit() -> None:
    grad, rows = draw(300, 515, dtype=torch.float32), draw(300, 40, dtype=torch.float32)
    assert_threads_change_no_bit(lambda: [add_gradient(grad, rows)])


@pytest.mark.parametrize("sizes", [(40, 12), (12, 40), (300, 128), (500, 129)])
def test_sums_and_shapes_of_either_kind(sizes: tuple[int, int]) -> None:
    grad, rows = draw(50, sizes[0]), draw(50, sizes[1])
    total = draw(*sizes)
    expected = total + grad.t() @ rows
    torch.testing.assert_close(add_gradient(grad, rows), grad.t() @ rows)
    assert add_gradient(grad, rows, total) is total
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize("bias", [False, True])
def test_input_products(bias: bool) -> None:
    v, weight, shift = draw(6, 3, 10).requires_grad_(), draw(30, 10).requires_grad_(), draw(30).requires_grad_()
    add = shift if bias else None
    wanted = [v, weight, shift] if bias else [v, weight]
    seed = draw(6, 3, 30)
    y = InputWeights({"w": weight}).linear("w", v, add)
    reference = torch.nn.functional.linear(v, weight, add)
    torch.testing.assert_close(y, reference)
    expected = torch.autograd.grad(reference, wanted, seed)
    for found, value in zip(torch.autograd.grad(y, wanted, seed), expected, strict=True):
        torch.testing.assert_close(found, value)
    assert torch.autograd.grad(InputWeights({"w": weight}).linear("w", v.detach(), add).sum(), weight)[0].shape == (
        30,
        10,
    )
