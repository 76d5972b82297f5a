"""The gate and the shift in C++ are the plain ones, with their gradients, by every instruction set and layout."""

from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.threads import assert_threads_change_no_bit
from unrolled.kernels import silu_gate as gates
from unrolled.kernels import token_shift as shifts
from unrolled.kernels.cpu import instruction_sets, library, why_no_library
from unrolled.kernels.dispatch import choices, forget_choices
from unrolled.kernels.silu_gate import silu_gate
from unrolled.kernels.token_shift import token_shift

pytestmark = pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))

SIZES = [(1, 1, 1), (3, 50, 17), (2, 70, 48)]
LIMITS: Any = {torch.float64: 1e-12, torch.float32: 2e-5}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype).requires_grad_()


def assert_same(outputs: Any, right: Any, inputs: list[Tensor], limit: float) -> None:
    """The same numbers, and gradients of a weighted sum."""
    grads = []
    for found in (outputs, right):
        loss = sum((one.double() * draw(*one.shape, seed=9).detach()).sum() for one in found)
        grads.append(torch.autograd.grad(loss, inputs))  # type: ignore[arg-type]
    for one, other in zip((*outputs, *grads[0]), (*right, *grads[1]), strict=True):
        torch.testing.assert_close(one, other, rtol=limit, atol=limit * 10)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("layout", ["in order", "half", "time first"])
@pytest.mark.parametrize("skips", [False, True])
@pytest.mark.parametrize("name", instruction_sets())
def test_gate(
    name: str, skips: bool, layout: str, sizes: tuple[int, int, int], dtype: torch.dtype, monkeypatch: Any
) -> None:
    monkeypatch.setattr(gates, "library", lambda: library(name))
    batch, time, n = sizes
    y, skip = draw(*sizes, dtype=dtype), draw(n, seed=3, dtype=dtype)
    if layout == "half":
        wide = draw(batch, time, 2 * n, seed=1, dtype=dtype)
        u, z = wide.chunk(2, -1)
        inputs = [y, wide]
    else:
        z, u = draw(*sizes, seed=1, dtype=dtype), draw(*sizes, seed=2, dtype=dtype)
        inputs = [y, z, u] if skips else [y, z]
    if layout == "time first":
        z = z.transpose(0, 1).contiguous().transpose(0, 1)
    extra: dict[str, Any] = {"skip": skip, "u": u} if skips else {}
    found = silu_gate(y, z, **extra, backend="native")
    assert_same(
        [found], [silu_gate(y, z, **extra, backend="reference")], [*inputs, *[skip][: int(skips)]], LIMITS[dtype]
    )


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize("used", [(0,), (0, 1, 2), (2,)])
@pytest.mark.parametrize("name", instruction_sets())
def test_shift(
    name: str, used: tuple[int, ...], reset: bool, sizes: tuple[int, int, int], dtype: torch.dtype, monkeypatch: Any
) -> None:
    """Also where only some of the mixtures are used, so that the others have no gradient."""
    monkeypatch.setattr(shifts, "library", lambda: library(name))
    batch, time, n = sizes
    x, before = draw(*sizes, dtype=dtype), draw(batch, n, seed=1, dtype=dtype)
    shares = draw(max(used) + 1, n, seed=2, dtype=dtype)
    fresh = None
    if reset:
        fresh = torch.rand(batch, time, generator=torch.Generator().manual_seed(0)) < 0.3
        fresh[0, 0] = True
    found = token_shift(x, before, shares, fresh, "native")
    right = token_shift(x, before, shares, fresh, "reference")
    some, same = ([one[i] for i in used] for one in (found, right))
    assert_same(some, same, [x, before, shares], LIMITS[dtype])


def test_threads_change_no_bit() -> None:
    y, z, u = (draw(5, 60, 33, seed=i) for i in range(3))
    skip, before, shares = draw(33), draw(5, 33), draw(3, 33)

    def run() -> list[Tensor]:
        out = silu_gate(y, z, skip, u, "native")
        mixed = token_shift(u, before, shares, None, "native")
        loss = out.square().sum() + sum(one.square().sum() for one in mixed)
        return [out, *mixed, *torch.autograd.grad(loss, [y, z, u, skip, before, shares])]

    assert_threads_change_no_bit(run)


@pytest.mark.parametrize(("batch", "backend"), [(1, "reference"), (128, "native")])
def test_few_numbers_go_the_plain_way(batch: int, backend: str) -> None:
    x = draw(batch, 8, 64)
    forget_choices()
    silu_gate(x, x)
    token_shift(x, x[:, 0], x[0])
    assert set(choices().values()) == {backend}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_other_types_take_the_plain_form(dtype: torch.dtype) -> None:
    x = draw(128, 8, 64, dtype=dtype)
    forget_choices()
    silu_gate(x, x)
    token_shift(x, x[:, 0], x[0])
    assert set(choices().values()) == {"reference"}
