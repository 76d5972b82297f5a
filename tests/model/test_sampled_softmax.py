"""The sampled softmax against its definition, row by row."""

import pytest
import torch

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.heads.softmax import SoftmaxMasks

V, N = 40, 6


def model(**parts: object) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(ModelConfig.parse({"width": N, **parts}), V).double()


def sampled() -> LanguageModel:
    made = model(head={"negatives": 8, "frequent": 5})
    made.head.use_counts(torch.arange(V, 0, -1) ** 2)
    return made


def plain_loss(head: torch.nn.Module, h: torch.Tensor, targets: torch.Tensor, drawn: list[int]) -> torch.Tensor:
    """Row by row: every candidate's logit less the log of its chance to be one, but for the row's own target."""
    counts = (torch.arange(V, 0, -1) ** 2 + 1).double()
    p = counts / counts.sum()
    ids = sorted({*range(5), *drawn, *targets.flatten().tolist()})
    total = h.new_zeros(())
    for row, target in zip(h.flatten(0, 1), targets.flatten().tolist(), strict=True):
        terms = []
        for i in ids:
            chance = 1.0 if i < 5 or i == target else 1 - (1 - 8 / (V - 5)) * (1 - float(p[i])) ** targets.numel()
            terms.append(row @ head.weight[i] + head.bias[i] - torch.tensor(chance, dtype=h.dtype).log())  # type: ignore
        total = total + torch.stack(terms).logsumexp(0) - terms[ids.index(target)]
    return total


def test_loss_and_gradients_equal_the_definition():
    head, drawn = sampled().head, [7, 9, 12, 20, 21, 30, 38, 39]
    h = torch.randn(2, 3, N, dtype=torch.float64, requires_grad=True)
    targets = torch.tensor([[0, 8, 9], [31, 8, 39]])
    wanted = plain_loss(head, h, targets, drawn)
    got, _, _ = head.loss(h, targets, masks=SoftmaxMasks(None, torch.tensor(drawn)))
    torch.testing.assert_close(got, wanted, rtol=1e-12, atol=1e-12)
    leaves = [h, head.weight, head.bias]
    for a, b in zip(torch.autograd.grad(got, leaves), torch.autograd.grad(wanted, leaves), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-11, atol=1e-11)


def test_draws_come_from_the_less_frequent_tokens_and_change_with_the_window():
    head = sampled().head
    first, second = (head.draw_masks(2, 3, 0.0, False, RandomStreams(1), w).negatives for w in (0, 1))
    assert len(set(first.tolist())) == 8
    assert min(first.tolist()) >= 5
    assert first.tolist() != second.tolist()


def test_a_projection_that_cannot_feed_a_tied_matrix_is_refused():
    with pytest.raises(UsageError, match="tied"):
        model(embedding={"size": 4, "tied": True}, head={"project": 5})
