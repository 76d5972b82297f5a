"""The loss of a softmax, and of a mixture of them, in C++ and by torch, is that of the whole logits under autograd."""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from kernels.threads import assert_threads_change_no_bit
from unrolled.core.errors import UsageError
from unrolled.kernels.cpu import instruction_sets, library, why_no_library
from unrolled.kernels.dispatch import choices, forget_choices
from unrolled.kernels.softmax_loss import BACKENDS, native, softmax_loss

needs_library = pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    generator = torch.Generator().manual_seed(sum(shape) + seed)
    return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)


def plainly(
    h: Tensor,
    matrix: Tensor,
    bias: Tensor | None,
    targets: Tensor,
    weight: Tensor | None,
    shift: Tensor | None,
    log_prior: Tensor | None,
    floor: float,
    product: Callable[[Tensor, Tensor], Tensor] = lambda h, matrix: h @ matrix.t(),
) -> tuple[Tensor, Tensor]:
    """All logits at once: (n, K, V)."""
    logits = product(h, matrix) if bias is None else product(h, matrix) + bias
    index = targets.view(-1, 1, 1).expand(-1, h.shape[1], 1)
    if shift is not None:
        logits = logits - shift + torch.zeros_like(logits).scatter(2, index, shift[index])
    each = torch.log_softmax(logits, 2).gather(2, index).squeeze(2)
    log_p = each.squeeze(1) if log_prior is None else (log_prior + each).logsumexp(1)
    nll = -(log_p.exp() + floor).log() if floor else -log_p
    return (nll if weight is None else nll * weight).sum(), nll


CASES: dict[str, dict[str, Any]] = {
    "plain": {},
    "bias": {"bias": True},
    "weights": {"bias": True, "weight": True},
    "sampled": {"bias": True, "shift": True},
    "sampled without bias": {"shift": True, "weight": True},
    "mixture": {"components": 3, "bias": True},
    "mixture with weights and floor": {"components": 2, "weight": True, "floor": 0.01},
    "mixture of one with floor": {"components": 1, "mixed": True, "floor": 0.01},
}
# rows, tokens, width: one of each; less and more than a tile (384 or 192 columns), a block (128), a panel, a vector
SIZES = [(1, 1, 1), (5, 7, 3), (130, 50, 49), (33, 401, 20), (300, 97, 16), (129, 1000, 9)]


def case(name: str, sizes: tuple[int, int, int], dtype: torch.dtype) -> tuple[dict[str, Any], list[Tensor]]:
    """Arguments, and those with a gradient."""
    options, (n, vocabulary, width) = dict(CASES[name]), sizes
    count = options.get("components", 1)

    def of(*shape: int, seed: int) -> Tensor:
        return draw(*shape, seed=seed, dtype=dtype)

    given: dict[str, Any] = {
        "h": of(n, count, width, seed=1),
        "matrix": of(vocabulary, width, seed=2),
        "bias": of(vocabulary, seed=3) if options.get("bias") else None,
        "log_prior": of(n, count, seed=4).log_softmax(1) if count > 1 or options.get("mixed") else None,
    }
    leaves = [t.requires_grad_() for t in given.values() if t is not None]
    given |= {
        "targets": torch.arange(n) * 7 % vocabulary,
        "weight": of(n, seed=5).abs() if options.get("weight") else None,
        "shift": of(vocabulary, seed=6) if options.get("shift") else None,
        "floor": options.get("floor", 0.0),
    }
    return given, leaves


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("by", [*instruction_sets(), "reference"])
def test_losses_and_gradients(
    by: str, name: str, sizes: tuple[int, int, int], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    if by != "reference":
        monkeypatch.setattr(native, "library", lambda: library(by))
        monkeypatch.setitem(BACKENDS, "native", BACKENDS["native"]._replace(pays=lambda *_: True))
    forget_choices()
    given, leaves = case(name, sizes, dtype)
    exact, exact_leaves = case(name, sizes, torch.float64)
    expected_total, expected = plainly(**exact)
    total, nll = softmax_loss(**given, block=64 * sizes[1], backend="reference" if by == "reference" else "auto")
    assert choices() == {"softmax_loss softmax": "reference" if by == "reference" else "native"}
    assert not nll.requires_grad
    limits: dict[str, Any] = {"rtol": 1e-10, "atol": 1e-10} if dtype == torch.float64 else {"rtol": 2e-5, "atol": 2e-4}
    torch.testing.assert_close(nll.double(), expected, **limits)
    torch.testing.assert_close(total.double(), expected_total, **limits)
    found = torch.autograd.grad(1.5 * total, leaves)
    for value, right in zip(found, torch.autograd.grad(1.5 * expected_total, exact_leaves), strict=True):
        torch.testing.assert_close(value.double(), right, **limits)
    with torch.no_grad():
        torch.testing.assert_close(softmax_loss(**given)[1].double(), expected, **limits)


@needs_library
@pytest.mark.parametrize("low", [False, True])
def test_threads_change_no_bit(monkeypatch: pytest.MonkeyPatch, low: bool) -> None:
    if low and not library().lowers:
        pytest.skip("the processor multiplies no bf16 numbers")
    monkeypatch.setitem(BACKENDS, "native", BACKENDS["native"]._replace(pays=lambda *_: True))
    given, leaves = case("mixture", (300, 500, 30), torch.float32)

    def run() -> list[Tensor]:
        total, nll = softmax_loss(**given, low=low)
        return [nll, *torch.autograd.grad(total, leaves)]

    assert_threads_change_no_bit(run)


@needs_library
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_not_a_number_stays_so(value: float) -> None:
    given, leaves = case("bias", (20, 3000, 20), torch.float32)
    with torch.no_grad():
        given["matrix"][1234, 5] = value
    (total, nll), (other, expected) = softmax_loss(**given), softmax_loss(**given, backend="reference")
    assert not nll.isfinite().all()
    assert torch.equal(nll.isfinite(), expected.isfinite())
    found, right = (torch.autograd.grad(y, leaves)[0] for y in (total, other))
    assert torch.equal(found.isfinite(), right.isfinite())


@needs_library
def test_far_apart_logits() -> None:
    """Exponentials that underflow are nothing; the loss of an unlikely token is exact."""
    h, matrix = torch.eye(2), torch.zeros(3000, 2)
    matrix[7] = torch.tensor([1000.0, -1000.0])
    total, nll = softmax_loss(h, matrix, None, torch.tensor([7, 7]))
    assert nll[0] == 0
    assert float(nll[1]) == pytest.approx(1000 + torch.tensor(2999.0).log().item(), rel=1e-6)
    assert float(total) == float(nll.sum())


@needs_library
@pytest.mark.parametrize(
    ("sizes", "elsewhere", "on_amd"),
    [((3000, 20), True, True), ((300, 20), False, False), ((3000, 300), False, True), ((60, 600), False, True)],
)
@pytest.mark.parametrize("amd", [False, True])
def test_when_it_pays(
    monkeypatch: pytest.MonkeyPatch, sizes: tuple[int, int], elsewhere: bool, on_amd: bool, amd: bool
) -> None:
    monkeypatch.setattr(native, "beats_torch", lambda: amd)
    expected = on_amd if amd else elsewhere
    forget_choices()
    softmax_loss(draw(4, sizes[1]), draw(*sizes), None, torch.arange(4), subject="here")
    assert choices() == {"softmax_loss here": "native" if expected else "reference"}
    assert native.pays(draw(4, sizes[1]), draw(*sizes), True) == on_amd, (
        "of bf16 the products are the library's anywhere"
    )


@pytest.mark.parametrize("backend", ["reference", "auto"])
def test_what_is_asked_for_runs(backend: str) -> None:
    forget_choices()
    softmax_loss(draw(4, 20), draw(3000, 20), None, torch.arange(4), backend=backend)
    plain = backend == "reference" or why_no_library() is not None
    assert choices() == {"softmax_loss softmax": "reference" if plain else "native"}


def rounded(x: Tensor) -> Tensor:
    return x.float().bfloat16().double()


class Rounded(torch.autograd.Function):
    """h matrix^T, its factors and those of its gradients rounded to bf16, its sums exact."""

    @staticmethod
    def forward(ctx: Any, h: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(h, matrix)
        return rounded(h) @ rounded(matrix).t()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        (h, matrix), grad = ctx.saved_tensors, rounded(grad)
        return grad @ rounded(matrix), grad.flatten(0, 1).t() @ rounded(h).flatten(0, 1)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("by", [*(one for one in instruction_sets() if library(one).lowers), "reference"])
def test_bf16_factors(by: str, name: str, sizes: tuple[int, int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    """In C++ nothing else is rounded; torch's products may come out rounded too."""
    if by != "reference":
        monkeypatch.setattr(native, "library", lambda: library(by))
        monkeypatch.setitem(BACKENDS, "native", BACKENDS["native"]._replace(pays=lambda *_: True))
    forget_choices()
    given, leaves = case(name, sizes, torch.float32)
    exact, exact_leaves = case(name, sizes, torch.float64)
    wish = "reference" if by == "reference" else "auto"
    total, nll = softmax_loss(**given, block=64 * sizes[1], low=True, backend=wish)
    assert choices() == {"softmax_loss softmax": "reference" if by == "reference" else "native"}
    found = [nll, *torch.autograd.grad(total, leaves)]
    errors = []
    for product in (Rounded.apply, lambda h, matrix: h @ matrix.t()):
        expected_total, expected = plainly(**exact, product=product)
        right = [expected.detach(), *torch.autograd.grad(expected_total, exact_leaves)]
        errors.append(
            max(float((a.double() - b).norm() / (b.norm() + 1e-3)) for a, b in zip(found, right, strict=True))
        )
    # a number between two of bf16 may be rounded either way
    assert errors[0] < (2e-2 if by == "reference" else 3e-4)
    assert errors[1] > 1e-3 or sizes[1] == 1, "bf16 factors and exact ones are told apart"


@pytest.mark.parametrize("lowers", [False, True])
def test_bf16_goes_to_who_has_products_for_it(monkeypatch: pytest.MonkeyPatch, lowers: bool) -> None:
    monkeypatch.setattr(native, "why_no_library", lambda: None)
    monkeypatch.setattr(native, "library", lambda: SimpleNamespace(lowers=lowers))
    h, matrix = torch.zeros(4, 20), torch.zeros(3000, 20)
    assert (native.refuse(h, matrix, True) is None) == lowers
    assert native.refuse(h.double(), matrix.double(), True) is not None
    assert native.refuse(h, matrix, False) is None


@needs_library
def test_strides_and_frozen_parts() -> None:
    h, matrix = draw(40, 20)[:, 3:15].requires_grad_(), draw(12, 3000).t()
    targets = torch.arange(40) * 70
    total, _ = softmax_loss(h, matrix, None, targets)
    expected, _ = plainly(h.unsqueeze(1), matrix, None, targets, None, None, None, 0.0)
    torch.testing.assert_close(torch.autograd.grad(total, h), torch.autograd.grad(expected, h))
    assert not softmax_loss(h.detach(), matrix, None, targets)[0].requires_grad


@needs_library
def test_other_types_and_strides_are_taken() -> None:
    given, leaves = case("sampled", (30, 3000, 20), torch.float32)
    exact, _ = case("sampled", (30, 3000, 20), torch.float64)
    wide = {name: exact[name].detach() for name in ("bias", "shift")}
    odd = {"targets": given["targets"].int().repeat_interleave(2)[::2], "weight": torch.arange(30)}
    total, nll = softmax_loss(**{**given, **wide, **odd})
    expected_total, expected = plainly(**{**exact, "weight": torch.arange(30)})
    torch.testing.assert_close(nll.double(), expected, rtol=2e-5, atol=2e-4)
    torch.testing.assert_close(total.double(), expected_total, rtol=2e-5, atol=2e-3)
    assert torch.autograd.grad(total, leaves[0])[0].isfinite().all()


@needs_library
@pytest.mark.parametrize("target", [-1, 3000])
def test_a_target_outside_of_the_vocabulary_is_refused(target: int) -> None:
    with pytest.raises(UsageError, match="targets must be from 0 to 2999"):
        softmax_loss(draw(4, 20), draw(3000, 20), None, torch.full((4,), target))
