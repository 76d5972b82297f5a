"""The native scans by every instruction set, in every layout of memory, in float64 and in float32."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.kernels import diag_scan, diag_scan_expanded, softmax_scan
from unrolled.kernels.cpu import instruction_sets, library, why_no_library

pytestmark = pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))

TIME, WIDTH = 21, 37
LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "in order": lambda x: x,
    "time first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "part of more": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "columns apart": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "one of many": lambda x: x[:1].expand_as(x),
}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def _diag(given: list[Tensor], reset: Tensor, backend: str) -> tuple[Tensor, ...]:
    a, b, start = given
    return diag_scan.diag_scan(a.sigmoid(), b, start, reset, backend=backend)


def _turning(given: list[Tensor], reset: Tensor, backend: str) -> tuple[Tensor, ...]:
    a, b, start = given
    factors = torch.polar(a.sigmoid(), b)
    h, last = diag_scan.diag_scan(factors, b.to(factors.dtype), start.to(factors.dtype), reset, backend=backend)
    return torch.view_as_real(h), torch.view_as_real(last)


def _expanded(given: list[Tensor], reset: Tensor, backend: str) -> tuple[Tensor, ...]:
    a, b, _ = given
    decay, written, read = -a[0, :WIDTH, :5].exp(), a[..., 5:10], b[..., 10:15]
    decay = torch.cat([decay] * 2)[:WIDTH]
    delta = 0.5 * a.sigmoid()
    return diag_scan_expanded.diag_scan_expanded(b, delta, decay, written, read, reset=reset, backend=backend)


def _implicit(given: list[Tensor], reset: Tensor, backend: str) -> tuple[Tensor, ...]:
    a, b, _ = given
    parts = (b, 0.5 * a.sigmoid(), a[..., :5].tanh(), None, b[..., 5:10])
    return diag_scan_expanded.diag_scan_expanded(*parts, "implicit", reset=reset, backend=backend)


def _softmax(given: list[Tensor], reset: Tensor, backend: str) -> tuple[Tensor, ...]:
    a, b, start = given
    y, state = softmax_scan.softmax_scan(3 * a, b, -start[0].exp(), start[1], None, reset, backend)
    return (y, *state)


SCANS = {"real": _diag, "complex": _turning, "zoh": _expanded, "implicit": _implicit, "softmax": _softmax}


def outcome(scan: Any, dtype: torch.dtype, layout: str, backend: str) -> list[Tensor]:
    leaves = [draw(3, TIME, WIDTH, seed=seed).to(dtype).requires_grad_() for seed in (1, 2)]
    leaves.append(draw(3, WIDTH, seed=3).to(dtype).requires_grad_())
    reset = torch.zeros(3, TIME, dtype=torch.bool)
    reset[0, 5] = reset[1, 16:18] = True
    outputs = scan([*(LAYOUTS[layout](leaf) for leaf in leaves[:2]), leaves[2]], reset, backend)
    loss = torch.stack([(part * draw(*part.shape, seed=9).to(dtype)).sum() for part in outputs]).sum()
    return [*(part.detach() for part in outputs), *torch.autograd.grad(loss, leaves, allow_unused=True)]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("scan", SCANS)
@pytest.mark.parametrize("name", instruction_sets())
def test_every_instruction_set_agrees_with_the_loop(
    name: str, scan: str, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (diag_scan.native, diag_scan_expanded.native, softmax_scan.native):
        monkeypatch.setattr(module, "library", lambda: library(name))
    wanted = outcome(SCANS[scan], torch.float64, layout, "reference")
    for dtype, limit in ((torch.float64, 1e-11), (torch.float32, 2e-5)):
        for found, value in zip(outcome(SCANS[scan], dtype, layout, "native"), wanted, strict=True):
            if value is not None:
                assert float((found - value).norm()) <= limit * float(value.norm()) + 1e-12


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_change_nothing(threads: int) -> None:
    for scan in ("zoh", "implicit", "softmax"):
        torch.set_num_threads(1)
        alone = outcome(SCANS[scan], torch.float64, "in order", "native")
        torch.set_num_threads(threads)
        together = outcome(SCANS[scan], torch.float64, "in order", "native")
        assert all(a is b or torch.equal(a, b) for a, b in zip(alone, together, strict=True)), scan
