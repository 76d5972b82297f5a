"""diag_scan_expanded: every backend against the plain loop in float64, in both modes, with odd lengths and resets."""

from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.kernels.cpu import why_no_library
from unrolled.kernels.diag_scan_expanded import BACKENDS, diag_scan_expanded

FAST = [name for name in BACKENDS if name != "reference"]
MODES = ("zoh", "implicit")


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def inputs(mode: str, batch: int, time: int, width: int, states: int) -> dict[str, Tensor]:
    given = {
        "u": draw(batch, time, width, seed=1),
        "delta": draw(batch, time, width, seed=2).sigmoid(),
        "decay": -draw(width, states, seed=3).exp() if mode == "zoh" else draw(batch, time, states, seed=3).tanh(),
        "C": draw(batch, time, states, seed=5),
        "h0": draw(batch, width, states, seed=6),
    }
    return given | ({"B": draw(batch, time, states, seed=4)} if mode == "zoh" else {})


def scan(given: dict[str, Tensor], mode: Any, reset: Tensor | None, backend: str) -> tuple[Tensor, Tensor]:
    return diag_scan_expanded(
        given["u"], given["delta"], given["decay"], given.get("B"), given["C"], mode, given.get("h0"), reset, backend
    )


def outcome(backend: str, mode: str, given: dict[str, Tensor], reset: Tensor | None) -> dict[str, Tensor]:
    given = {name: part.detach().requires_grad_() for name, part in given.items()}
    y, last = scan(given, mode, reset, backend)
    loss = (y * draw(*y.shape, seed=9)).sum() + (last * draw(*last.shape, seed=8)).sum()
    grads = torch.autograd.grad(loss, list(given.values()))
    return {"y": y, "last": last, **dict(zip(given, grads, strict=True))}


def compare(backend: str, mode: str, sizes: tuple[int, int, int, int], reset: Tensor | None) -> None:
    if backend == "native" and why_no_library():
        with pytest.raises(UsageError, match="cannot run scan: "):
            outcome(backend, mode, inputs(mode, 1, 1, 1, 1), None)
        return
    given = inputs(mode, *sizes)
    wanted = outcome("reference", mode, given, reset)
    for name, found in outcome(backend, mode, given, reset).items():
        torch.testing.assert_close(found, wanted[name], rtol=1e-10, atol=1e-10, msg=lambda said, n=name: f"{n}: {said}")


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("time", [1, 2, 15, 16, 17, 37])
@pytest.mark.parametrize("resets", ["none", "first", "several"])
def test_backends_agree(backend: str, mode: str, time: int, resets: str) -> None:
    reset = None if resets == "none" else torch.zeros(3, time, dtype=torch.bool)
    if reset is not None:
        reset[1, 0] = True
    if reset is not None and resets == "several":
        reset[0, time // 2] = reset[2, ::3] = reset[0, 16:18] = True
    compare(backend, mode, (3, time, 5, 4), reset)


@pytest.mark.parametrize("backend", FAST)
@pytest.mark.parametrize("mode", MODES)
def test_more_columns_than_a_group(backend: str, mode: str) -> None:
    compare(backend, mode, (2, 19, 301, 3), None)


@pytest.mark.parametrize("mode", MODES)
def test_the_reference_is_the_definition(mode: str) -> None:
    given = inputs(mode, 2, 3, 4, 5)
    found = outcome("reference", mode, given, None)
    for b in range(2):
        for d in range(4):
            h = given["h0"][b, d].clone()
            for t in range(3):
                u, delta = given["u"][b, t, d], given["delta"][b, t, d]
                for n in range(5):
                    k = given["decay"][b, t, n] if mode == "implicit" else given["B"][b, t, n]
                    a = 1 - delta * k**2 if mode == "implicit" else (delta * given["decay"][d, n]).exp()
                    h[n] = a * h[n] + delta * u * k
                assert torch.isclose(found["y"][b, t, d], (given["C"][b, t] * h).sum(), rtol=1e-12)
            assert torch.allclose(found["last"][b, d], h, rtol=1e-12)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_are_those_of_finite_differences(backend: str) -> None:
    if backend == "native" and why_no_library():
        return
    reset = torch.tensor([[0, 0, 1], [0, 1, 0]], dtype=torch.bool)
    for mode in MODES:
        given = {name: part.requires_grad_() for name, part in inputs(mode, 2, 3, 2, 2).items()}
        order = [name for name in ("u", "delta", "decay", "B", "C", "h0") if name in given]

        def run(*parts: Tensor, mode: str = mode, order: list[str] = order) -> tuple[Tensor, Tensor]:
            return scan(dict(zip(order, parts, strict=True)), mode, reset, backend)

        assert torch.autograd.gradcheck(run, [given[name] for name in order])


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_very_fast_decay_is_zero_in_float32(backend: str) -> None:
    if backend == "native" and why_no_library():
        return
    given = {name: part.float() for name, part in inputs("zoh", 1, 20, 3, 2).items()}
    given["decay"] = given["decay"] * 1e5
    for part in outcome_float32(backend, given):
        assert bool(part.isfinite().all())
    y, *_ = outcome_float32(backend, given)
    alone = (given["delta"] * given["u"]) * (given["B"] * given["C"]).sum(-1, keepdim=True)
    torch.testing.assert_close(y, alone, rtol=1e-5, atol=1e-6)


def outcome_float32(backend: str, given: dict[str, Tensor]) -> list[Tensor]:
    given = {name: part.detach().requires_grad_() for name, part in given.items()}
    rest = (given["u"], given["delta"], given["decay"], given["B"], given["C"])
    y, last = diag_scan_expanded(*rest, "zoh", given["h0"], backend=backend)
    return [y.detach(), last.detach(), *torch.autograd.grad(y.sum() + last.sum(), list(given.values()))]


@pytest.mark.parametrize("backend", BACKENDS)
def test_strided_inputs_and_narrow_types(backend: str) -> None:
    if backend == "native" and why_no_library():
        return
    given = inputs("zoh", 2, 9, 3, 4)
    plain = scan(given, "zoh", None, "auto")
    strided = {n: part.transpose(0, -1).contiguous().transpose(0, -1) for n, part in given.items()}
    found = scan(strided, "zoh", None, backend)
    for part, other in zip(found, plain, strict=True):
        torch.testing.assert_close(part, other, rtol=1e-12, atol=1e-12)
    low = {n: part.bfloat16() for n, part in given.items() if n != "h0"}
    y, last = scan(low, "zoh", None, backend)
    assert y.dtype == last.dtype == torch.bfloat16


def test_b_belongs_to_its_mode() -> None:
    given = inputs("zoh", 1, 2, 3, 4)
    with pytest.raises(ValueError, match="B is given in mode zoh"):
        diag_scan_expanded(given["u"], given["delta"], given["decay"], given["B"], given["C"], "implicit")


@pytest.mark.parametrize("backend", FAST)
def test_nothing_of_the_full_size_is_kept(backend: str) -> None:
    if backend == "native" and why_no_library():
        return
    given = {name: part.requires_grad_() for name, part in inputs("zoh", 2, 64, 32, 16).items()}
    kept: list[int] = []

    def pack(part: Tensor) -> Tensor:
        kept.append(part.numel())
        return part

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda part: part):
        scan(given, "zoh", None, backend)
    assert 0 < sum(kept) < 2 * 64 * 32 * 16 / 3
