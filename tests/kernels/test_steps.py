"""Prepared products are plain products."""

import pytest
import torch

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.kernels.cell_loop.weights import product
from unrolled.kernels.linear.steps import prepare


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("products", [1, 3, 4, 100])
@pytest.mark.parametrize("batch", [1, 4, 20])
@pytest.mark.parametrize("rows", [1, 3, 4, 20, 33])
def test_any_number_of_rows(rows: int, batch: int, products: int, dtype: torch.dtype) -> None:
    weight, v = wave(24, 17, dtype=dtype), wave(rows, 17, phase=1.0, dtype=dtype)
    expected = v.double() @ weight.double().T
    assert_close(prepare(weight, batch, products)(v).double(), expected, "product", dtype)
    assert_close(prepare(weight.t().contiguous().t(), batch, products)(v).double(), expected, "strides of W", dtype)
    sparse = torch.stack([v, v], 1)[:, 0]
    assert rows == 1 or not sparse.is_contiguous()
    assert_close(prepare(weight, batch, products)(sparse).double(), expected, "strides of v", dtype)


def test_the_values_of_now_are_what_counts() -> None:
    """A packed matrix is a copy: whoever changes the weight prepares again."""
    weight = wave(8, 8, dtype=torch.float32)
    v = wave(4, 8, dtype=torch.float32)
    before = weight.clone()
    made = prepare(weight.clone(), 4, 10)
    weight.zero_()
    assert_close(made(v), v @ before.T, "product")


@pytest.mark.parametrize("leading", [(3,), (3, 2)], ids=str)
def test_product_of_blocks(leading: tuple[int, ...]) -> None:
    blocks, v, add = wave(3, 4, 2), wave(*leading, 6), wave(*leading, 12)
    expected = v @ torch.block_diag(*blocks).T
    assert_close(product(v, blocks, None, "float32"), expected, "blocks")
    assert_close(product(v, blocks, add, "float32"), expected + add, "blocks with a sum")


def test_bf16_product_keeps_the_type_and_adds_in_full() -> None:
    v, weight = wave(4, 8, dtype=torch.float32), wave(5, 8, dtype=torch.float32)
    y = product(v, weight, torch.full((4, 5), 1000.0), "bf16")
    assert y.dtype == torch.float32
    # a sum made in bf16 would be off by whole units at 1000
    assert float((y - 1000 - v @ weight.T).abs().max()) < 0.05
    assert not torch.equal(product(v, weight, None, "bf16"), v @ weight.T)
