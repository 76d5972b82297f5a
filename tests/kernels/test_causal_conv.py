"""causal_conv: the definition, every backend against it, caches, resets, dilation, groups, activation, threads."""

import pytest
import torch
from torch import Tensor

from kernels.threads import assert_threads_change_no_bit
from unrolled.core.errors import UsageError
from unrolled.kernels.causal_conv import BACKENDS, causal_conv, native
from unrolled.kernels.cpu import instruction_sets, library, why_no_library
from unrolled.kernels.dispatch import choices, forget_choices

WIDTH = 6
WEIGHTS = {"depthwise": (WIDTH,), "full": (5, WIDTH), "grouped": (9, 2)}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def flags(kind: str, time: int) -> Tensor | None:
    if kind == "none":
        return None
    reset = torch.zeros(3, time, dtype=torch.bool)
    if kind == "ends":
        reset[1, 0] = reset[2, -1] = True
    else:
        reset[0, time // 2] = reset[1, :: max(1, time // 3)] = True
    return reset


def material(weight: str, taps: int, dilation: int, time: int, width: int = WIDTH) -> list[Tensor]:
    shape = (*((width,) if weight == "depthwise" else WEIGHTS[weight]), taps)
    parts = [(3, time, width), shape, shape[:1], (3, (taps - 1) * dilation, width)]
    return [draw(*part, seed=i) for i, part in enumerate(parts)]


def outcome(backend: str, parts: list[Tensor], reset: Tensor | None, **options: object) -> list[Tensor]:
    wanted = [part.detach().requires_grad_() for part in parts]
    y, cache = causal_conv(*wanted, reset=reset, backend=backend, **options)  # type: ignore[arg-type]
    loss = (y * draw(*y.shape, seed=9)).sum() + (cache * draw(*cache.shape, seed=8)).sum()
    return [y, cache, *torch.autograd.grad(loss, wanted)]


def serves(backend: str, weight: str, reset: Tensor | None) -> bool:
    if backend == "native":
        return weight == "depthwise" and why_no_library() is None
    return weight != "depthwise" or reset is None


@pytest.mark.parametrize("weight", WEIGHTS)
@pytest.mark.parametrize("taps", [1, 2, 4])
@pytest.mark.parametrize("reset", ["none", "ends", "middle"])
@pytest.mark.parametrize("activation", [None, "silu"])
def test_backends_agree(weight: str, taps: int, reset: str, activation: str | None) -> None:
    for dilation in (1, 3):
        for time in (1, 2, 7, 23):
            parts, given = material(weight, taps, dilation, time), flags(reset, time)
            wanted = outcome("reference", parts, given, dilation=dilation, activation=activation)
            for backend in ("native", "torch"):
                if not serves(backend, weight, given):
                    with pytest.raises(UsageError, match=f"backend '{backend}' cannot run convolution: "):
                        causal_conv(*parts, reset=given, dilation=dilation, backend=backend)
                    continue
                found = outcome(backend, parts, given, dilation=dilation, activation=activation)
                for part, value in zip(found, wanted, strict=True):
                    torch.testing.assert_close(part, value, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("weight", WEIGHTS)
def test_the_reference_is_the_definition(weight: str) -> None:
    """Number by number: each output sees its taps back to the last reset, and before the window the cache."""
    dilation, taps, time = 2, 3, 7
    x, matrix, bias, cache = material(weight, taps, dilation, time)
    reset = flags("middle", time)
    assert reset is not None
    y, after = causal_conv(x, matrix, bias, cache, reset, dilation, backend="reference")
    out, of = len(matrix), 1 if weight == "depthwise" else matrix.shape[1]
    groups, lost = WIDTH // of, (taps - 1) * dilation

    def seen(row: int, t: int, at: int, n: int) -> float:
        if bool(reset[row, max(at + 1, 0) : t + 1].any()):
            return 0.0
        return float(cache[row, lost + at, n] if at < 0 else x[row, at, n])

    for row in range(3):
        for t in range(time):
            for n in range(out):
                value = float(bias[n])
                for tap in range(taps):
                    for i in range(of):
                        factor = matrix[n, tap] if weight == "depthwise" else matrix[n, i, tap]
                        column = n // (out // groups) * of + i
                        value += float(factor) * seen(row, t, t - (taps - 1 - tap) * dilation, column)
                assert float(y[row, t, n]) == pytest.approx(value, abs=1e-12)
        for lag in range(lost):
            for n in range(WIDTH):
                wanted = seen(row, time - 1, time - 1 - lag, n)
                assert float(after[row, lost - 1 - lag, n]) == pytest.approx(wanted, abs=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("weight", WEIGHTS)
def test_a_window_in_pieces_is_the_whole(backend: str, weight: str) -> None:
    if not serves(backend, weight, None) and backend != "reference":
        return
    x, matrix, bias, cache = material(weight, 4, 2, 11)
    whole, last = causal_conv(x, matrix, bias, cache, dilation=2, backend=backend)
    for sizes in ([1] * 11, [4, 7], [9, 2]):
        carried, outputs = cache, []
        for piece in x.split(sizes, 1):
            y, carried = causal_conv(piece, matrix, bias, carried, dilation=2, backend=backend)
            outputs.append(y)
        torch.testing.assert_close(torch.cat(outputs, 1), whole, rtol=0, atol=1e-12)
        assert torch.equal(carried, last)


def test_gradients_are_those_of_finite_differences() -> None:
    reset = torch.tensor([[0, 0, 1, 0, 0], [1, 0, 0, 0, 1]], dtype=torch.bool)
    parts = [draw(2, 5, 3), draw(3, 3, seed=1), draw(3, seed=2), draw(2, 2, 3, seed=3)]

    def run(x: Tensor, weight: Tensor, bias: Tensor, cache: Tensor) -> tuple[Tensor, Tensor]:
        return causal_conv(x, weight, bias, cache, reset, activation="silu")

    assert torch.autograd.gradcheck(run, [part.requires_grad_() for part in parts])


@pytest.mark.parametrize("name", instruction_sets())
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_every_instruction_set_and_layout(name: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Widths that fill no register, more than one block of columns, time-major inputs and gradients."""
    monkeypatch.setattr(native, "library", lambda: library(name))
    for width in (1, 17, 300):
        x, weight, bias, cache = material("depthwise", 4, 1, 9, width)
        wanted = outcome("reference", [x, weight, bias, cache], None, activation="silu")
        x = x.transpose(0, 1).contiguous().transpose(0, 1)
        found = outcome("native", [part.to(dtype) for part in (x, weight, bias, cache)], None, activation="silu")
        limit = 1e-12 if dtype == torch.float64 else 1e-5
        for part, value in zip(found, wanted, strict=True):
            torch.testing.assert_close(part.double(), value, rtol=limit, atol=10 * limit)


def test_no_cache_is_zeros_no_bias_is_zero_and_arguments_stay() -> None:
    x, weight, _, cache = material("depthwise", 3, 1, 6)
    copies = x.clone(), weight.clone()
    for backend in BACKENDS:
        if backend == "native" and why_no_library():
            continue
        found = causal_conv(x, weight, backend=backend)
        wanted = causal_conv(x, weight, torch.zeros(WIDTH).double(), torch.zeros_like(cache), backend="reference")
        for part, value in zip(found, wanted, strict=True):
            torch.testing.assert_close(part, value, rtol=0, atol=1e-12)
    assert torch.equal(x, copies[0])
    assert torch.equal(weight, copies[1])


def test_bf16_rounds_the_factors_of_matrices() -> None:
    x, weight, bias, cache = (part.float() for part in material("full", 3, 1, 6))
    exact = causal_conv(x, weight, bias, cache)[0]
    for backend in ("torch", "reference"):
        low = causal_conv(x, weight, bias, cache, precision="bf16", backend=backend)[0]
        assert 1e-4 < float((low - exact).abs().max()) < 0.1


def test_narrow_types_are_accumulated_in_float32() -> None:
    x = torch.full((1, 300, 2), 0.0078125, dtype=torch.bfloat16)
    y, cache = causal_conv(x, torch.ones(2, 256, dtype=torch.bfloat16))
    assert y.dtype == cache.dtype == torch.bfloat16
    assert float(y[0, -1, 0]) == 2.0


def test_threads_change_no_bit() -> None:
    x, weight, bias, cache = (part.requires_grad_() for part in material("depthwise", 4, 1, 9, 400))

    def run() -> list[Tensor]:
        y, after = causal_conv(x, weight, bias, cache, activation="silu")
        return [y, after, *torch.autograd.grad(y.sum(), [x, weight, bias, cache])]

    assert_threads_change_no_bit(run)


def test_choices_are_recorded() -> None:
    forget_choices()
    causal_conv(draw(1, 2, 3), draw(3, 2), subject="test")
    causal_conv(draw(1, 2, 3), draw(4, 3, 2), subject="matrices")
    native = "reference" if why_no_library() else "native"
    assert choices().items() >= {"causal_conv test": native, "causal_conv matrices": "torch"}.items()
    assert "linear convolution" in choices(), "one product of all taps"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"weight": draw(5, 3)}, "does not suit width 6"),
        ({"weight": draw(5, 4, 3)}, "does not suit width 6"),
        ({"weight": draw(5, 2, 3)}, "has 3 groups"),
        ({"groups": 2}, "has 6 groups"),
        ({"dilation": 0}, "dilation from 1"),
        ({"cache": draw(3, 1, 6)}, "pass on what it returned"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, object], words: str) -> None:
    x, weight, _, cache = material("depthwise", 3, 1, 6)
    with pytest.raises(UsageError, match=words):
        causal_conv(**{"x": x, "weight": weight, "cache": cache} | change)  # type: ignore[arg-type]
