"""diag_scan: every backend against the plain loop, in float64 and complex, with odd lengths, resets and broadcasts."""

import pytest
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.kernels import dispatch
from unrolled.kernels.cpu import why_no_library
from unrolled.kernels.diag_scan import BACKENDS, diag_scan

FAST = [name for name in BACKENDS if name != "reference"]
HERE = [name for name in BACKENDS if name != "native" or why_no_library() is None]
SHAPES = {
    "full": (3, None, 5),
    "per step": (3, None, 1),
    "of the step alone": (1, None, 1),
    "per channel": (5,),
    "per channel and step": (1, None, 5),
    "time-invariant": (3, 1, 5),
    "one number": (1, 1, 1),
}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def flags(kind: str, time: int) -> Tensor | None:
    if kind == "none":
        return None
    reset = torch.zeros(3, time, dtype=torch.bool)
    if kind == "start":
        reset[1, 0] = True
    elif kind == "end":
        reset[0, -1] = reset[2, -1] = True
    else:
        reset[0, time // 2] = reset[1, :: max(1, time // 3)] = True
    return reset


def outcome(backend: str, parts: list[Tensor], reset: Tensor | None) -> list[Tensor]:
    a, b, h0, initial = (part.detach().requires_grad_() for part in parts)
    h, last = diag_scan(a, b, h0, reset, initial, backend)
    loss = (h * draw(*h.shape, seed=9)).sum() + (last * draw(*last.shape, seed=8)).sum()
    grads = torch.autograd.grad(
        loss.abs().square() if loss.is_complex() else loss, [a, b, h0, initial], allow_unused=True
    )
    return [h, last, *(torch.zeros_like(p) if g is None else g for p, g in zip(parts, grads, strict=True))]


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("time", [1, 2, 3, 17, 70])
@pytest.mark.parametrize("reset", ["none", "start", "middle", "end"])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
def test_backends_agree(backend: str, time: int, reset: str, shape: str, dtype: torch.dtype) -> None:
    if backend == "native" and why_no_library():
        with pytest.raises(UsageError, match="cannot run scan: "):
            diag_scan(torch.ones(3, 1, 5, dtype=dtype), torch.ones(3, 1, 5, dtype=dtype), backend=backend)
        return
    sizes = tuple(time if size is None else size for size in SHAPES[shape])
    parts = [
        0.9 * draw(*sizes, seed=1, dtype=dtype),
        draw(3, time, 5, seed=2, dtype=dtype),
        draw(3, 5, seed=3, dtype=dtype),
        draw(3, 5, seed=4, dtype=dtype),
    ]
    given = flags(reset, time)
    wanted = outcome("reference", parts, given)
    for found, value in zip(outcome(backend, parts, given), wanted, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-10, atol=1e-10)


def test_the_reference_is_the_definition() -> None:
    a, b, h0, initial = draw(3, 4, 5), draw(3, 4, 5, seed=1), draw(3, 5, seed=2), draw(3, 5, seed=3)
    reset = flags("middle", 4)
    assert reset is not None
    h, last = diag_scan(a, b, h0, reset, initial, "reference")
    for row in range(3):
        for n in range(5):
            value = float(h0[row, n])
            for t in range(4):
                value = float(initial[row, n]) if reset[row, t] else value
                value = float(a[row, t, n]) * value + float(b[row, t, n])
                assert float(h[row, t, n]) == pytest.approx(value, abs=1e-12)
            assert float(last[row, n]) == pytest.approx(value, abs=1e-12)


@pytest.mark.parametrize("backend", HERE)
def test_gradients_are_those_of_finite_differences(backend: str) -> None:
    parts = [draw(2, 5, 3), draw(2, 5, 3, seed=1), draw(2, 3, seed=2), draw(2, 3, seed=3)]
    reset = torch.tensor([[0, 0, 1, 0, 0], [0, 0, 0, 0, 1]], dtype=torch.bool)

    def run(a: Tensor, b: Tensor, h0: Tensor, initial: Tensor) -> tuple[Tensor, Tensor]:
        return diag_scan(a, b, h0, reset, initial, backend)

    assert torch.autograd.gradcheck(run, [part.requires_grad_() for part in parts])


@pytest.mark.parametrize("backend", HERE)
def test_only_the_wanted_gradients(backend: str) -> None:
    a, b = draw(2, 6, 3), draw(2, 6, 3, seed=1).requires_grad_()
    h, _ = diag_scan(a, b, backend=backend)
    (grad,) = torch.autograd.grad(h[:, -1].sum(), b)
    factors = torch.cat([torch.ones(2, 1, 3, dtype=torch.float64), a.flip(1)[:, :-1].cumprod(1)], 1).flip(1)
    torch.testing.assert_close(grad, factors)
    a.requires_grad_()
    (grad,) = torch.autograd.grad(diag_scan(a, b.detach(), backend=backend)[0].sum(), a)
    assert grad.abs().sum() > 0
    assert not diag_scan(a.detach(), b.detach(), backend=backend)[0].requires_grad


@pytest.mark.parametrize("backend", [name for name in HERE if name in FAST])
def test_strided_inputs_and_unchanged_arguments(backend: str) -> None:
    a, b = draw(7, 3, 10).transpose(0, 1)[..., ::2], draw(3, 5, 7, seed=1).transpose(1, 2)
    copies = a.clone(), b.clone()
    found = diag_scan(a, b, backend=backend)
    wanted = diag_scan(a.contiguous(), b.contiguous(), backend="reference")
    for part, value in zip(found, wanted, strict=True):
        torch.testing.assert_close(part, value, rtol=0, atol=1e-12)
    assert torch.equal(a, copies[0])
    assert torch.equal(b, copies[1])


@pytest.mark.parametrize("backend", HERE)
def test_narrow_types_are_accumulated_in_float32(backend: str) -> None:
    a, b = torch.full((1, 300, 2), 1.0, dtype=torch.bfloat16), torch.full((1, 300, 2), 0.0078125, dtype=torch.bfloat16)
    h, last = diag_scan(a, b, backend=backend)
    assert h.dtype == last.dtype == torch.bfloat16
    assert float(last[0, 0]) == pytest.approx(300 * 0.0078125, rel=0.01)


def test_choices_are_recorded_and_unknown_backends_refused() -> None:
    dispatch.forget_choices()
    diag_scan(draw(1, 2, 3), draw(1, 2, 3), subject="test")
    assert dispatch.choices() == {"diag_scan test": "inplace" if why_no_library() else "native"}
    with pytest.raises(UsageError, match="unknown diag_scan backend 'fast'"):
        diag_scan(draw(1, 2, 3), draw(1, 2, 3), backend="fast")


@pytest.mark.parametrize("dtype", [torch.float64, torch.complex128])
@pytest.mark.parametrize("shape", [(2, 70, 1024), (1024,)])
def test_windows_larger_than_a_cache(dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    """What is written goes past the cache then."""
    parts = [0.9 * draw(*shape, seed=1, dtype=dtype), draw(2, 70, 1024, seed=2, dtype=dtype)]
    parts += [draw(2, 1024, seed=seed, dtype=dtype) for seed in (3, 4)]
    reset = torch.zeros(2, 70, dtype=torch.bool)
    reset[1, 30:32] = True
    wanted = outcome("inplace", parts, reset)
    for found, value in zip(outcome("auto", parts, reset), wanted, strict=True):
        torch.testing.assert_close(found, value, rtol=1e-10, atol=1e-10)


def test_other_devices_have_no_loop_over_time() -> None:
    a, h0 = torch.ones(2, 9, 3, device="meta"), torch.zeros(2, 3, device="meta")
    assert dispatch.choose("diag_scan", BACKENDS, "auto", "test", a, a, h0, None, h0).name == "doubling"


@pytest.mark.skipif(why_no_library() is not None, reason="it is the native form that does not expand")
@pytest.mark.parametrize("shape", [(5,), (1, 1, 5), (2, 64, 1)])
def test_factors_are_kept_as_they_are_given(shape: tuple[int, ...]) -> None:
    a, b, kept = draw(*shape).requires_grad_(), draw(2, 64, 5, seed=1).requires_grad_(), []

    def pack(part: Tensor) -> Tensor:
        kept.append(part.numel())
        return part

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda part: part):
        h, _ = diag_scan(a, b)
    ends = 2 * 2 * 5  # the first state, and that of resets
    assert sum(kept) == a.numel() + b.numel() + ends, "the factors and the states"
    (grad,) = torch.autograd.grad(h.sum(), a)
    assert grad.shape == a.shape
