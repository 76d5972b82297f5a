"""Attention: every form against the loop over queries, and that against torch's modules."""

from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.tolerance import assert_close
from unrolled.core.errors import UsageError
from unrolled.kernels.bias_attention import EMPTY, bias_attention
from unrolled.kernels.cpu import why_no_library

NATIVE = [] if why_no_library() else ["native"]

# batch, time, keys before, heads, groups, size, values
SHAPES = ((2, 1, 2, 2, 2, 4, 4), (2, 3, 9, 4, 1, 5, 7), (2, 37, 0, 4, 2, 16, 16), (1, 70, 33, 2, 2, 20, 20))
CASES = [
    (shape, first, extra)
    for shape in SHAPES
    for first in ("none", "window", "any")
    for extra in ((), ("level",), ("memory", "lse"), ("level", "memory", "lse"))
]


def outcome(shape: tuple[int, ...], first: str, extra: tuple[str, ...], backend: str) -> list[Tensor]:
    """Outputs and all gradients of one call with fixed numbers."""
    batch, time, before, heads, groups, size, values = shape
    source = torch.Generator().manual_seed(1)

    def draw(*sizes: int) -> Tensor:
        return torch.randn(*sizes, generator=source, dtype=torch.float64).requires_grad_()

    keys = before + time
    q, k, v = draw(batch, time, heads, size), draw(batch, keys, groups, size), draw(batch, keys, groups, values)
    level = draw(batch, keys, heads) if "level" in extra else None
    memory = (draw(1, 3, groups, size), draw(batch, 3, groups, values)) if "memory" in extra else None
    start = None
    if first == "window":
        start = (torch.arange(time) + before - 6).clamp_min(0).expand(batch, -1)
    elif first == "any":  # of each head; some queries see nothing
        start = torch.randint(0, keys + 2, (batch, time, heads), generator=source)
    y, lse = bias_attention(q, k, v, start, level, None, memory, lse="lse" in extra, backend=backend)
    outputs = [y] if lse is None else [y, lse.clamp_min(-1e3)]
    loss = torch.stack([(part * torch.randn(part.shape, generator=source).double()).sum() for part in outputs]).sum()
    wanted = [part for part in (q, k, v, level, *(memory or ())) if part is not None]
    return [part.detach() for part in outputs] + list(torch.autograd.grad(loss, wanted))


@pytest.mark.parametrize(("shape", "first", "extra"), CASES)
@pytest.mark.parametrize("backend", [*NATIVE, "torch", "dense"])
def test_forms_agree(shape: Any, first: str, extra: Any, backend: str) -> None:
    if backend == "torch" and ("lse" in extra or shape[-1] != shape[-2]):
        with pytest.raises(UsageError, match="torch"):
            outcome(shape, first, extra, backend)
        return
    for found, expected in zip(
        outcome(shape, first, extra, backend), outcome(shape, first, extra, "reference"), strict=True
    ):
        assert_close(found, expected, f"{backend} at {shape}, {first}, {extra}")


@pytest.mark.parametrize("weights", ["softmax", "relu2", "laplace"])
def test_a_bias_and_other_weights(weights: str) -> None:
    source = torch.Generator().manual_seed(2)
    q, k, v = (torch.randn(2, n, 2, 4, generator=source, dtype=torch.float64) for n in (5, 8, 8))
    bias = torch.randn(2, 5, 8, generator=source, dtype=torch.float64)
    options: dict[str, Any] = {"bias": bias, "weights": weights}
    expected, _ = bias_attention(q, k, v, backend="reference", **options)
    for backend in ("dense", "auto"):
        assert_close(bias_attention(q, k, v, backend=backend, **options)[0], expected, f"{weights} by {backend}")
    assert not torch.allclose(expected, bias_attention(q, k, v, weights=weights)[0]), "the bias acts"


def test_strong_decay_leaves_the_newest_key() -> None:
    q, k, v = (torch.randn(1, 6, 1, 4) for _ in range(3))
    level = -1e4 * torch.arange(6.0).view(1, 6, 1)
    for backend in (*NATIVE, "torch", "dense", "reference"):
        y, _ = bias_attention(q, k, v, level=level, backend=backend)
        assert torch.equal(y, v), backend


def test_memory_is_torchs_attention_to_what_is_no_window() -> None:
    """Every query sees the memory, and its own key alone beside: cross-attention with one key more."""
    torch.manual_seed(0)
    module = torch.nn.MultiheadAttention(8, 2, batch_first=True, dtype=torch.float64)
    x, memory = torch.randn(2, 5, 8, dtype=torch.float64), torch.randn(2, 7, 8, dtype=torch.float64)
    seen = torch.cat([memory.unsqueeze(1).expand(-1, 5, -1, -1), x.unsqueeze(2)], 2).flatten(0, 1)
    expected, _ = module(x.flatten(0, 1).unsqueeze(1), seen, seen)
    weight, bias = module.in_proj_weight, module.in_proj_bias

    def cut(y: Tensor) -> tuple[Tensor, ...]:
        return tuple(part.unflatten(-1, (2, 4)) for part in (y @ weight.T + bias).chunk(3, -1))

    (q, k, v), (_, old_k, old_v) = cut(x), cut(memory)
    first = torch.arange(5).expand(2, -1)
    for backend in (*NATIVE, "torch", "dense", "reference"):
        y, _ = bias_attention(q, k, v, first, memory=(old_k, old_v), backend=backend)
        assert_close(module.out_proj(y.flatten(2)).flatten(0, 1).unsqueeze(1), expected, backend)


def test_a_query_that_sees_nothing_gives_zero() -> None:
    q, k, v = (torch.randn(1, 2, 1, 4) for _ in range(3))
    first = torch.tensor([[1, 0]])
    for backend in (*NATIVE, "dense", "reference"):
        y, lse = bias_attention(q, k, v, first, lse=True, backend=backend)
        assert lse is not None
        assert torch.equal(y[:, 0], torch.zeros(1, 1, 4)), backend
        assert lse[0, 0, 0] == torch.tensor(EMPTY), backend


def test_two_runs_of_keys_join_by_their_logarithms() -> None:
    """The softmax over a union from those over its parts: what dilated attention does."""
    q, k, v = (torch.randn(1, 6, 2, 4, dtype=torch.float64) for _ in range(3))
    whole, _ = bias_attention(q[:, -1:], k, v)
    a, at = bias_attention(q[:, -1:], k[:, :4], v[:, :4], lse=True)
    b, bt = bias_attention(q[:, -1:], k[:, 4:], v[:, 4:], lse=True)
    assert at is not None
    assert bt is not None
    share = torch.sigmoid(at - bt).unsqueeze(-1)
    assert_close(share * a + (1 - share) * b, whole, "union")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"k": torch.zeros(1, 1, 2, 4), "v": torch.zeros(1, 1, 2, 4)}, "do not fit"),
        ({"k": torch.zeros(1, 3, 2, 5)}, "do not fit"),
        ({"k": torch.zeros(1, 3, 3, 4), "v": torch.zeros(1, 3, 3, 4)}, "do not fit"),
        ({"weights": "sigmoid"}, "unknown weights 'sigmoid'"),
        ({"weights": "relu2", "lse": True}, "leave lse out"),
        ({"weights": "relu2", "backend": "torch"}, "torch has the softmax alone"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    given: dict[str, Any] = {name: torch.zeros(1, 3, 2, 4) for name in ("q", "k", "v")}
    with pytest.raises(UsageError, match=words):
        bias_attention(**{**given, **change})
