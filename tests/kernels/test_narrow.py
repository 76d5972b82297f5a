"""Products with factors rounded to bf16 or to 8-bit integers, beside what they are defined to be."""

from typing import get_args

import pytest
import torch
from torch import Tensor

from kernels.threads import assert_threads_change_no_bit
from unrolled.kernels.cell_loop.native.packed import prepare_chain
from unrolled.kernels.cpu import Products, instruction_sets, library, why_no_library

pytestmark = pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))
SIZES = [(1, 1), (3, 17), (4, 16), (5, 64), (130, 97), (257, 300)]


def int8(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Each row as integers from -127 to 127, and what one of them stands for (rows, 1)."""
    scale = rows.abs().amax(1, keepdim=True) / 127
    return (rows / scale.where(scale > 0, 1)).round(), scale


def by_definition(x: Tensor, weight: Tensor) -> Tensor:
    (x, x_scale), (weight, scale) = int8(x), int8(weight)
    return (x.double() @ weight.t().double()) * x_scale.double() * scale.t().double()


def draw(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(sum(shape)))


@pytest.mark.parametrize("rows", [1, 2, 3, 4, 5, 9, 23])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", instruction_sets())
def test_int8(name: str, sizes: tuple[int, int], rows: int) -> None:
    x, weight, bias = draw(rows, sizes[0]), draw(*reversed(sizes)), draw(sizes[1])
    weight[-1] *= 100  # the scales of the columns are their own
    step = prepare_chain(library(name), [weight], bias, "int8_weights")
    y, _ = step({"x": x.unsqueeze(0)})
    expected = (by_definition(x, weight) + bias.double()).float()
    torch.testing.assert_close(y[0], expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(step({"x": x[-1:].unsqueeze(0)})[0][0], y[0, -1:])  # whatever the other rows are


@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("rows", [1, 3, 33])
def test_int8_is_the_same_with_every_instruction_set(rows: int, sizes: tuple[int, int]) -> None:
    x, weight = draw(1, rows, sizes[0]), draw(*reversed(sizes))
    found = [prepare_chain(library(n), [weight], None, "int8_weights")({"x": x})[0] for n in instruction_sets()]
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=0, atol=0)


@pytest.mark.parametrize("rows", [1, 2, 4, 7, 23])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", instruction_sets())
def test_bf16_weights(name: str, sizes: tuple[int, int], rows: int) -> None:
    x, weight, bias = draw(rows, sizes[0]), draw(*reversed(sizes)), draw(sizes[1])
    step = prepare_chain(library(name), [weight], bias, "bf16_weights")
    y, _ = step({"x": x.unsqueeze(0)})
    expected = x.double() @ weight.bfloat16().double().t() + bias.double()
    torch.testing.assert_close(y[0].double(), expected, rtol=1e-5, atol=2e-5)
    assert torch.equal(step({"x": x[-1:].unsqueeze(0)})[0][0], y[0, -1:])


@pytest.mark.parametrize("rows", [1, 7, 9, 32])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
@pytest.mark.parametrize("name", instruction_sets())
def test_bf16_factors(name: str, sizes: tuple[int, int], rows: int) -> None:
    x, weight, bias = draw(rows, sizes[0]), draw(*reversed(sizes)), draw(sizes[1])
    step = prepare_chain(library(name), [weight], bias, "bf16_factors")
    y, _ = step({"x": x.unsqueeze(0)})
    expected = x.bfloat16().double() @ weight.bfloat16().double().t() + bias.double()
    torch.testing.assert_close(y[0].double(), expected, rtol=1e-5, atol=1e-5)
    assert torch.equal(step({"x": x[-1:].unsqueeze(0)})[0][0], y[0, -1:])


@pytest.mark.parametrize("name", instruction_sets())
def test_bf16_factors_that_are_not_finite_or_not_normal(name: str) -> None:
    x, weight = draw(4, 40), draw(18, 40)
    x[1, 39], x[2, 3], x[3] = torch.nan, torch.inf, 1e-39
    y, _ = prepare_chain(library(name), [weight], None, "bf16_factors")({"x": x.unsqueeze(0)})
    assert y[0, 1].isnan().all()
    assert not y[0, 2].isfinite().any()
    assert y[0, 3].abs().max() < 1e-36  # subnormal numbers may count as zero
    torch.testing.assert_close(y[0, 0], weight.bfloat16().float() @ x[0].bfloat16().float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", instruction_sets())
def test_rows_and_columns_of_zeros_and_what_is_not_finite(name: str) -> None:
    x, weight = draw(4, 20), draw(18, 20)
    x[1], weight[3] = 0, 0
    x[2, 5], x[3, 19] = torch.inf, torch.nan
    y, _ = prepare_chain(library(name), [weight], None, "int8_weights")({"x": x.unsqueeze(0)})
    assert torch.equal(y[0, 1], torch.zeros(18))
    assert float(y[0, 0, 3]) == 0
    assert y[0, 2:].isnan().all()
    torch.testing.assert_close(y[0, 0], by_definition(x[:1], weight)[0].float(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [1, 2, 7])
@pytest.mark.parametrize("name", instruction_sets())
def test_sums_of_the_largest_integers_are_exact(name: str, rows: int) -> None:
    """All of one sign, so that sums of 16 bits would not do."""
    signs = torch.tensor([1.0, -1.0, 1.0]).repeat(3)[:rows].unsqueeze(1)
    x, weight = signs.expand(rows, 4099), torch.tensor([[1.0], [-1.0]]).repeat(10, 4099)
    y, _ = prepare_chain(library(name), [weight], None, "int8_weights")({"x": x.unsqueeze(0)})
    assert torch.equal(y[0], (signs * weight[:, :1].t() * 127**2 * 4099) * (torch.tensor(1 / 127) ** 2))


@pytest.mark.parametrize("products", get_args(Products))
@pytest.mark.parametrize("name", instruction_sets())
def test_a_row_is_the_same_in_any_batch(name: str, products: Products) -> None:
    x, first, second = draw(256, 70), draw(150, 70), draw(33, 150)
    step = prepare_chain(library(name), [first, second], draw(33), products)
    parts = [slice(at, at + rows) for rows in (1, 2, 3, 7, 32, 33, 100, 256) for at in (0, 256 - rows)]

    def run() -> list[Tensor]:
        return [step({"x": x[part].unsqueeze(0)})[0][0] for part in parts]

    found = run()
    for part, y in zip(parts, found, strict=True):
        assert torch.equal(y, found[-1][part]), part
    assert_threads_change_no_bit(run)


def test_a_chain_is_its_products_one_after_another() -> None:
    x, first, second, bias = draw(1, 3, 12), draw(30, 12), draw(7, 30), draw(7)
    step = prepare_chain(library(), [first, second], bias, "exact")
    torch.testing.assert_close(step({"x": x})[0], x @ first.t() @ second.t() + bias)


def test_bytes_of_the_weights() -> None:
    weight = draw(64, 128)
    exact = library().pack(weight.t()).nbytes
    assert exact == 4 * 64 * 128
    assert library().pack(weight.t(), "bf16_weights").nbytes == exact // 2
    assert library().pack(weight.t(), "int8_weights").nbytes == exact // 4 + 64 * 8  # a scale and a sum for each column
