"""The norm in C++ is torch's, with its gradients, whatever the layout."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from kernels.threads import assert_threads_change_no_bit
from unrolled.kernels import rms_norm as module
from unrolled.kernels.cpu import instruction_sets, library, why_no_library
from unrolled.kernels.dispatch import choices, forget_choices
from unrolled.kernels.rms_norm import rms_norm
from unrolled.model import LanguageModel, ModelConfig

pytestmark = pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))

LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "in order": lambda x: x,
    "time first": lambda x: x.transpose(0, 1).contiguous().transpose(0, 1),
    "part of more": lambda x: torch.cat([x, x], -1)[..., : x.shape[-1]],
    "columns apart": lambda x: x.transpose(1, 2).contiguous().transpose(1, 2),
    "one of many": lambda x: x[:1].expand_as(x),
}


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sizes", [(1, 1, 1), (3, 50, 17), (2, 70, 48)])
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", instruction_sets())
def test_it_is_torchs(
    name: str, layout: str, sizes: tuple[int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "library", lambda: library(name))
    x, weight = draw(*sizes, dtype=dtype).requires_grad_(), draw(sizes[2], seed=1, dtype=dtype).requires_grad_()
    grad = LAYOUTS["time first"](draw(*sizes, seed=2, dtype=dtype))
    limits = 1e-12 if dtype == torch.float64 else 1e-4
    forget_choices()
    y = rms_norm(LAYOUTS[layout](x), weight, 1e-6, subject="here")
    assert choices() == {"rms_norm here": "native"}
    exact, wide = x.detach().double().requires_grad_(), weight.detach().double().requires_grad_()
    expected = torch.nn.functional.rms_norm(LAYOUTS[layout](exact), wide.shape, wide, 1e-6)
    torch.testing.assert_close(y.double(), expected, rtol=limits, atol=limits)
    found = torch.autograd.grad(y, [x, weight], grad)
    for value, right in zip(found, torch.autograd.grad(expected, [exact, wide], grad.double()), strict=True):
        torch.testing.assert_close(value.double(), right, rtol=limits, atol=limits)


def test_threads_change_no_bit() -> None:
    x, weight = draw(5, 60, 33).requires_grad_(), draw(33, seed=1).requires_grad_()

    def run() -> list[Tensor]:
        y = rms_norm(x, weight, 1e-6)
        return [y, *torch.autograd.grad(y.sum(), [x, weight])]

    assert_threads_change_no_bit(run)


@pytest.mark.parametrize("backend", ["auto", "generic", "reference"])
def test_a_model_asks_for_it(backend: str) -> None:
    config = {"width": 8, "stack": {"output_norm": "rms"}, "compute": {"backend": backend}}
    model = LanguageModel(ModelConfig.parse(config), 11)
    forget_choices()
    model.loss(torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3, dtype=torch.int64))[0].backward()
    assert choices()["rms_norm norm"] == ("reference" if backend == "reference" else "native")
