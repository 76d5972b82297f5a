"""The sampled softmax against its definition, row by row."""

import math

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


def log_uniform(negatives: int, frequent: int = 5) -> LanguageModel:
    made = model(head={"negatives": negatives, "frequent": frequent, "sampler": "log_uniform"})
    made.head.use_counts(torch.arange(V, 0, -1) ** 2)
    return made


def test_log_uniform_draws_equal_the_definition():
    head, drawn = log_uniform(4).head, [7, 9, 7, 20]
    h, targets = torch.randn(1, 3, N, dtype=torch.float64), torch.tensor([[0, 8, 31]])
    p = (torch.arange(V, 0, -1) ** 2 + 1).double()
    p = p / p.sum()
    weight = [math.log((i + 2) / (i + 1)) if i >= 5 else 0.0 for i in range(V)]
    ids = sorted({*range(5), *drawn, 0, 8, 31})
    wanted = 0.0
    for row, target in zip(h[0], targets[0].tolist(), strict=True):
        terms = {}
        for i in ids:
            out = (1 - weight[i] / sum(weight)) ** 4 * (1 - float(p[i])) ** 3
            chance = 1.0 if i < 5 or i == target else 1 - out
            terms[i] = float((row @ head.weight[i] + head.bias[i]).detach()) - math.log(chance)
        wanted += math.log(sum(math.exp(value) for value in terms.values())) - terms[target]
    got, _, _ = head.loss(h, targets, masks=SoftmaxMasks(None, torch.tensor(drawn)))
    assert float(got.detach()) == pytest.approx(wanted, abs=1e-10)


def test_log_uniform_draws_favour_frequent_tokens():
    head = log_uniform(4000).head
    drawn = head.draw_masks(2, 3, 0.0, False, RandomStreams(1), 0).negatives
    counts = torch.bincount(drawn, minlength=V)
    assert not counts[:5].any()
    weight = torch.tensor([math.log((i + 2) / (i + 1)) if i >= 5 else 0.0 for i in range(V)])
    expected = 4000 * weight / weight.sum()
    assert float(((counts - expected)[5:] ** 2 / expected[5:]).sum()) < 70, "chi-square of 34 degrees of freedom"


@pytest.mark.parametrize("sampler", ["uniform", "log_uniform"])
@torch.no_grad()
def test_the_mean_of_the_estimate_approaches_the_full_loss(sampler: str):
    size, draws = 500, 60
    torch.manual_seed(0)
    config = {"width": N, "head": {"negatives": 10, "frequent": 20, "sampler": sampler}}
    made = LanguageModel(ModelConfig.parse(config), size).double()
    made.head.weight.normal_()
    made.head.use_counts((1e6 / torch.arange(1, size + 1)).long())
    h, targets = torch.randn(2, 4, N, dtype=torch.float64), torch.randint(0, size, (2, 4))
    full, errors = float(made.head.loss(h, targets)[0]) / 8, []
    for count in (10, 50, 450):
        made.head.config = made.head.config.model_copy(update={"negatives": count})
        masks = [made.head.draw_masks(2, 4, 0.0, False, RandomStreams(3), w) for w in range(draws)]
        mean = sum(float(made.head.loss(h, targets, masks=one)[0]) / 8 for one in masks) / draws
        errors.append(abs(mean - full))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.02
    made.head.config = made.head.config.model_copy(update={"negatives": size - 20})
    assert (made.head.draw_masks(2, 4, 0.0, False, RandomStreams(3), 0) is None) == (sampler == "uniform")
