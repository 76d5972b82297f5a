"""Capped logits of the softmax head, and the start of its matrix."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.kernels.dispatch import Compute
from unrolled.model.heads import HEADS, Head

D, E, V, B, T = 6, 5, 23, 3, 7


def make(tied: bool = False, **options: Any) -> Head:
    torch.manual_seed(3)
    matrix = nn.Parameter(0.7 * torch.randn(V, E, dtype=torch.float64)) if tied else None
    head = HEADS["softmax"](D, V, HEADS.parse({"name": "softmax", **options}), matrix).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    targets = torch.arange(B * T).mul(5).remainder(V).view(B, T)
    return draw(B, T, D).requires_grad_(), targets, draw(B, T, seed=2).abs()


@pytest.mark.parametrize("temperature", [1.0, 1.7])
@pytest.mark.parametrize("options", [{}, {"bias": False}, {"block": 3 * V}], ids=str)
@pytest.mark.parametrize("tied", [False, True])
def test_capped_logits_are_what_they_are_defined_to_be(options: dict[str, Any], tied: bool, temperature: float) -> None:
    """In losses, log-probabilities and all gradients; no logit exceeds the cap, whatever the temperature."""
    head, (h, targets, weight) = make(tied=tied, cap=1.5, **options).tempered(temperature), inputs()
    own: Any = head
    read = h if own.projection is None else h @ own.projection.t()
    plain = read @ own.weight.t() + (0 if own.bias is None else own.bias)
    logits = 1.5 * torch.tanh(plain / 1.5)
    assert float(plain.detach().abs().max()) > 2
    wanted = torch.log_softmax(logits / temperature, -1)
    torch.testing.assert_close(head.log_prob(h)[0], wanted)
    nll = -wanted.gather(2, targets.unsqueeze(2)).squeeze(2)
    total, found, _ = head.loss(h, targets, weight)
    torch.testing.assert_close(found, nll.detach())
    torch.testing.assert_close(total, (nll * weight).sum())
    parameters = [h, *head.parameters()]
    for one, other in zip(
        torch.autograd.grad(total, parameters), torch.autograd.grad((nll * weight).sum(), parameters), strict=True
    ):
        torch.testing.assert_close(one, other)


def test_a_capped_softmax_is_sampled_after_the_cap() -> None:
    head, (h, targets, _) = make(cap=1.5, negatives=6, frequent=4), inputs()
    own: Any = head
    own.use_counts(torch.arange(V).flip(0))
    drawn = own.train().draw_masks(B, T, 0.0, False, RandomStreams(1), 0)
    ids, places, shift = own._candidates(targets.flatten(), drawn.negatives)
    read = h if own.projection is None else h @ own.projection.t()
    logits = 1.5 * torch.tanh((read @ own.weight.t() + own.bias) / 1.5)[..., ids] - shift
    aimed = places.view(B, T, 1)
    logits = logits.scatter_add(2, aimed, shift[aimed])
    wanted = -torch.log_softmax(logits, -1).gather(2, aimed).squeeze(2)
    torch.testing.assert_close(head.loss(h, targets, None, None, None, drawn)[1], wanted.detach())


def test_a_backend_without_caps_is_refused() -> None:
    head, (h, targets, _) = make(cap=1.5), inputs()
    head.compute = Compute(backend={"softmax_loss": "reference"})
    head.loss(h, targets)
    head.compute = Compute(backend={"softmax_loss": "native"})
    with pytest.raises(UsageError, match="has no capped logits"):
        head.loss(h, targets)


@pytest.mark.parametrize("init", ["truncated_normal", "orthogonal"])
def test_the_start_of_the_matrix_is_scaled(init: str) -> None:
    made = []
    for scale in (1.0, 0.25):
        torch.manual_seed(3)
        made.append(HEADS["softmax"](D, V, HEADS.parse({"name": "softmax", "init": init, "init_scale": scale})))
    torch.testing.assert_close(made[1].weight, 0.25 * made[0].weight)
    tied = nn.Parameter(torch.ones(V, D))
    HEADS["softmax"](D, V, HEADS.parse({"name": "softmax", "init_scale": 0.25}), tied)
    assert bool((tied == 1).all()), "a tied matrix begins as the embedding's"
