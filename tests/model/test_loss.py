"""The block-by-block loss is cross entropy."""

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from conformance.material import wave
from conformance.tolerance import assert_close
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.kernels.dispatch import Compute
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.heads.softmax import SoftmaxConfig, SoftmaxHead

BATCH, TIME, WIDTH, VOCAB = 3, 5, 6, 11


def head(dtype: torch.dtype = torch.float64, tied: Tensor | None = None, **options: Any) -> SoftmaxHead:
    torch.manual_seed(0)
    matrix = None if tied is None else torch.nn.Parameter(tied)
    made = SoftmaxHead(WIDTH, VOCAB, SoftmaxConfig.parse(options), matrix).to(dtype)
    with torch.no_grad():
        for k, parameter in enumerate(made.parameters()):
            parameter.add_(0.3 * wave(*parameter.shape, phase=k).to(dtype))
    return made


def full(made: SoftmaxHead, h: Tensor, targets: Tensor, weight: Tensor | None) -> tuple[Tensor, Tensor]:
    """All logits at once, by torch."""
    x = h if made.projection is None else linear(h, made.projection)
    logits = linear(x, made.weight, made.bias)
    nll = cross_entropy(logits.flatten(0, 1), targets.flatten(), reduction="none").view_as(targets)
    return (nll if weight is None else nll * weight).sum(), nll


def inputs(dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor, Tensor]:
    h = wave(BATCH, TIME, WIDTH, phase=0.7, dtype=dtype).requires_grad_()
    targets = torch.arange(BATCH * TIME).view(BATCH, TIME) * 7 % VOCAB
    weight = (torch.arange(BATCH * TIME).view(BATCH, TIME) % 3).to(dtype) / 2
    return h, targets, weight


SHAPES: dict[str, dict[str, Any]] = {
    "plain": {},
    "no bias": {"bias": False},
    "projected": {"project": 4},
    "tied": {"tied": wave(VOCAB, WIDTH)},
    "tied and projected": {"tied": wave(VOCAB, 4)},
}


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("block", [1, VOCAB, 2 * VOCAB, 4 * VOCAB + 3, 10**6])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("time_major", [False, True])
def test_loss_and_gradients(time_major: bool, shape: str, block: int, weighted: bool) -> None:
    made = head(**SHAPES[shape], block=block)
    h, targets, weight = inputs()
    if time_major:
        h = h.detach().transpose(0, 1).contiguous().transpose(0, 1).requires_grad_()
    given = weight if weighted else None
    total, nll, _ = made.loss(h, targets, given)
    expected, each = full(made, h, targets, given)
    assert_close(total, expected, "sum")
    assert_close(nll, each, "nats of each position")
    assert not nll.requires_grad
    wanted = [h, *made.parameters()]
    found = torch.autograd.grad(3 * total, wanted)
    for value, other in zip(found, torch.autograd.grad(3 * expected, wanted), strict=True):
        assert_close(value, other, f"gradient of shape {tuple(other.shape)}")


@pytest.mark.parametrize(("training", "first"), [(True, "amax"), (False, "logsumexp")])
def test_blocks_hold_no_more_logits_than_allowed(monkeypatch: pytest.MonkeyPatch, training: bool, first: str) -> None:
    """``first``: what is done first with a block of logits."""
    seen: list[int] = []
    original = getattr(Tensor, first)
    monkeypatch.setattr(Tensor, first, lambda self, *a, **k: seen.append(self.numel()) or original(self, *a, **k))
    h, targets, _ = inputs()
    with torch.set_grad_enabled(training):
        head(block=4 * VOCAB + 3).loss(h, targets)
    assert seen == [4 * VOCAB, 4 * VOCAB, 4 * VOCAB, 3 * VOCAB]


def test_a_position_of_weight_zero_is_left_out() -> None:
    made = head()
    h, targets, _ = inputs()
    weight = torch.ones(BATCH, TIME, dtype=h.dtype)
    weight[1, 2] = 0
    total, nll, _ = made.loss(h, targets, weight)
    (grad,) = torch.autograd.grad(total, h)
    assert not grad[1, 2].any()
    assert grad.count_nonzero(-1).sum() == (BATCH * TIME - 1) * WIDTH
    assert_close(total, nll.sum() - nll[1, 2], "sum")


def test_bf16() -> None:
    made = head(torch.float32)
    h, targets, weight = inputs(torch.float32)
    wanted = [h, *made.parameters()]
    expected = [made.loss(h, targets, weight)[0]]
    expected += torch.autograd.grad(expected[0], wanted)
    made.compute = Compute(precision="bf16")
    found = [made.loss(h, targets, weight)[0]]
    found += torch.autograd.grad(found[0], wanted)
    for value, other in zip(found, expected, strict=True):
        assert_close(value, other, f"shape {tuple(other.shape)}", torch.bfloat16)
    assert not torch.equal(found[1], expected[1]), "bf16 computes in float32"
    low = made.log_prob(h)[0]
    made.compute = Compute()
    assert_close(low, made.log_prob(h)[0], "log-probabilities", torch.bfloat16)


def test_no_gradients_are_made_where_none_are_wanted(monkeypatch: pytest.MonkeyPatch) -> None:
    made = head()
    h, targets, _ = inputs()
    expected, _, _ = made.loss(h, targets)
    monkeypatch.setattr(Tensor, "addmm_", None)  # what the gradient of the matrix is made by
    with torch.no_grad():
        assert_close(made.loss(h, targets)[0], expected.detach(), "sum")


@pytest.mark.parametrize("shape", SHAPES)
def test_log_prob_is_the_losses_distribution(shape: str) -> None:
    made = head(**SHAPES[shape])
    h, targets, _ = inputs()
    log_prob, _ = made.log_prob(h)
    assert_close(log_prob.exp().sum(-1), torch.ones(BATCH, TIME, dtype=h.dtype), "sum of probabilities")
    assert_close(-log_prob.gather(2, targets.unsqueeze(2)).squeeze(2), made.loss(h, targets)[1], "nats")


def test_tied_matrix_has_both_gradients() -> None:
    torch.manual_seed(1)
    model = LanguageModel(ModelConfig.parse({"width": WIDTH, "embedding": {"tied": True}}), VOCAB).double()
    assert model.head.weight is model.embedding.weight
    assert model.num_params() == sum(p.numel() for p in model.parameters())
    tokens = torch.arange(8).view(2, 4)
    total, _, _ = model.loss(tokens, tokens + 1)
    (found,) = torch.autograd.grad(total, model.embedding.weight)

    entry, exit_ = (model.embedding.weight.detach().clone().requires_grad_() for _ in range(2))
    y, _ = model.stack(torch.nn.functional.embedding(tokens, entry), model.initial_state(2).cells)
    logits = linear(y, exit_, model.head.bias)
    loss = cross_entropy(logits.flatten(0, 1), (tokens + 1).flatten(), reduction="sum")
    parts = torch.autograd.grad(loss, [entry, exit_])
    assert_close(found, parts[0] + parts[1], "gradient of the shared matrix")


def test_unigram_bias() -> None:
    made = head(bias_init="unigram")
    counts = torch.arange(VOCAB) ** 2
    assert made.needs_counts
    made.use_counts(counts)
    assert made.bias is not None
    expected = (counts + 1).double() / (counts + 1).sum()
    assert_close(made.bias.detach(), expected.log(), "bias")
    log_prob, _ = made.log_prob(torch.zeros(1, 1, WIDTH, dtype=torch.float64))
    assert_close(log_prob.exp()[0, 0], expected, "distribution at the start")
    assert not head().needs_counts
    assert not head(bias=False, bias_init="unigram").needs_counts
    assert not SoftmaxHead(WIDTH, VOCAB, SoftmaxConfig()).get_parameter("bias").any()


class TestSampled:
    """Sampled softmax."""

    def made(self, negatives: int = 4, frequent: int = 2) -> SoftmaxHead:
        made = head(negatives=negatives, frequent=frequent)
        made.use_counts(torch.arange(VOCAB).flip(0) * 3)
        return made

    def draw(self, made: SoftmaxHead, window: int = 0) -> Any:
        return made.draw_masks(BATCH, TIME, 0.0, False, RandomStreams(1), window)

    def test_every_token_drawn_is_the_full_softmax(self) -> None:
        made, (h, targets, weight) = self.made(negatives=VOCAB - 3), inputs()
        masks = self.draw(made)._replace(negatives=torch.arange(2, VOCAB))
        total, nll, _ = made.loss(h, targets, weight, masks=masks)
        expected, each = full(made, h, targets, weight)
        assert_close(total, expected, "sum")
        assert_close(nll, each, "nats")

    def test_the_estimate_is_corrected_for_the_chance_of_being_drawn(self) -> None:
        """exp(nats) is the partition function over the target's share, and that is estimated without bias."""
        made, (h, targets, _) = self.made(), inputs()
        unigram = torch.arange(VOCAB).flip(0) * 3.0 + 1
        generator = torch.Generator().manual_seed(0)
        found = []
        for window in range(600):
            targets = torch.multinomial(unigram, BATCH * TIME, True, generator=generator).view(BATCH, TIME)
            targets[0, 0] = 0
            with torch.no_grad():
                found.append(made.loss(h, targets, masks=self.draw(made, window))[1][0, 0].exp())
        estimates = torch.stack(found)
        assert estimates.std() > 0.01 * estimates.mean(), "each window has its own words"
        exact = full(made, h, targets, None)[1][0, 0].detach().exp()
        assert float(estimates.mean()) == pytest.approx(float(exact), rel=0.04)

    def test_counts_are_needed(self) -> None:
        with pytest.raises(UsageError, match="use_counts"):
            self.draw(head(negatives=4))

    def test_evaluation_is_full(self) -> None:
        made, (h, targets, _) = self.made(), inputs()
        assert_close(made.loss(h, targets)[0], full(made, h, targets, None)[0], "sum")
