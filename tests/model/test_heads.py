"""What is about one head alone; what all share is in tests/conformance/heads."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.kernels.softmax_loss.reference import TorchBlocks
from unrolled.model.heads import HEADS, Head

D, E, V, B, T = 6, 5, 23, 3, 7
CONFIGS: dict[str, dict[str, Any]] = {
    "softmax": {"name": "softmax"},
    "mos": {"name": "mos", "components": 3},
    "mos-latents": {"name": "mos", "components": 3, "mix": "latents"},
    "split": {"name": "split", "cuts": [7, 15]},
    "split-none": {"name": "split", "cuts": []},
    "adaptive": {"name": "adaptive", "cutoffs": [5, 12], "div_value": 2.0},
    "pointer": {"name": "pointer", "length": 4},
}


def make(key: str, tied: bool = False, **more: Any) -> Head:
    torch.manual_seed(3)
    config = HEADS.parse({**CONFIGS[key], **more})
    matrix = nn.Parameter(0.7 * torch.randn(V, E, dtype=torch.float64)) if tied else None
    head = HEADS[config.name](D, V, config, matrix).double()
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return head


def draw(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def inputs() -> tuple[Tensor, Tensor, Tensor]:
    targets = torch.arange(B * T).mul(5).remainder(V).view(B, T)
    return draw(B, T, D).requires_grad_(), targets, draw(B, T, seed=2).abs()


# -- mixture of softmaxes ----------------------------------------------------------------------------------------


def test_one_component_is_the_softmax_of_its_latent() -> None:
    head, (h, targets, _) = make("mos", tied=True, components=1), inputs()
    latent = torch.tanh(h @ head.latent.t() + head.latent_bias)  # type: ignore[operator]
    wanted = torch.log_softmax(latent @ head.weight.t() + head.bias, -1)  # type: ignore[operator]
    torch.testing.assert_close(head.log_prob(h)[0], wanted)
    torch.testing.assert_close(head.loss(h, targets)[1], -wanted.gather(2, targets.unsqueeze(2)).squeeze(2))


def test_a_mixture_breaks_the_rank_bound_and_a_softmax_does_not() -> None:
    """200 contexts, d = 20, V = 200."""
    torch.manual_seed(0)
    h = 3 * torch.randn(200, 20, dtype=torch.float64)
    ranks = {}
    for name, more in (("softmax", {}), ("mos", {"components": 4}), ("mos", {"components": 4, "mix": "latents"})):
        head = HEADS[name](20, 200, HEADS.parse({"name": name, **more})).double()
        with torch.no_grad():
            for parameter in head.parameters():
                parameter.copy_(torch.randn_like(parameter))
        values = torch.linalg.svdvals(head.log_prob(h)[0].detach())
        ranks[name, more.get("mix")] = int((values > 1e-9 * values[0]).sum())
    assert ranks["softmax", None] <= 22
    assert ranks["mos", "latents"] <= 22
    assert ranks["mos", None] > 100


def test_the_floor_caps_the_loss() -> None:
    head = make("mos", floor=1e-8)
    with torch.no_grad():
        head.bias.copy_(torch.linspace(0, 500, V))  # type: ignore[union-attr]
    h, targets, _ = inputs()
    _, nll, _ = head.loss(h, torch.zeros_like(targets))
    assert float(nll.max()) == pytest.approx(-math.log(1e-8), abs=0.01)


@pytest.mark.parametrize("time", [5, 50])
def test_no_more_logits_at_once_than_the_block(time: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the window: what grows with the vocabulary is bounded by the block, in training too."""
    seen: list[int] = []
    original = TorchBlocks.losses

    def watched(self: TorchBlocks, x: Tensor, targets: Tensor) -> Tensor:
        seen.append(len(x) * V)
        return original(self, x, targets)

    monkeypatch.setattr(TorchBlocks, "losses", watched)
    head = make("mos", block=4 * 3 * V)
    h = draw(B, time, D).requires_grad_()
    total, _, _ = head.loss(h, torch.ones(B, time, dtype=torch.int64))
    total.backward()
    assert max(seen) == 4 * 3 * V
    assert sum(seen) == B * time * 3 * V


# -- split and adaptive ------------------------------------------------------------------------------------------


def test_split_is_torchs_adaptive_softmax_with_identity_tails() -> None:
    """div_value = 1: torch's tails are projections followed by matrices; with identities these are the split's."""
    head, (h, targets, _) = make("split", bias=False), inputs()
    assert head.in_width == D
    module = nn.AdaptiveLogSoftmaxWithLoss(D, V, [7, 15], div_value=1.0, head_bias=False).double()
    with torch.no_grad():
        head.tail_bias.zero_()  # type: ignore[operator]
        # torch's clusters follow the frequent ids in order, ours in the published, reversed one
        module.head.weight.copy_(torch.cat([head.weight[:7], head.tail_vectors.flip(0)]))  # type: ignore
        for i, (low, high) in enumerate(((7, 15), (15, 23))):
            module.tail[i][0].weight.copy_(torch.eye(D))  # type: ignore[index]
            module.tail[i][1].weight.copy_(head.weight[low:high])  # type: ignore
    flat = h.detach().flatten(0, 1)
    torch.testing.assert_close(head.log_prob(flat)[0], module.log_prob(flat), rtol=0, atol=1e-10)
    torch.testing.assert_close(head.loss(h, targets)[1].flatten(), -module(flat, targets.flatten()).output)


@pytest.mark.parametrize(
    ("vocabulary", "cuts"), [(75_000, ()), (75_001, (2800, 20000)), (267_735, (2800, 20000, 76000))]
)
def test_published_cuts(vocabulary: int, cuts: tuple[int, ...]) -> None:
    if vocabulary == 75_001:
        pytest.skip("the published cuts reach beyond such a vocabulary")
    with torch.device("meta"):
        assert HEADS["split"](4, vocabulary, HEADS.parse("split")).cuts == cuts


@pytest.mark.parametrize("key", ["split", "adaptive"])
def test_ids_must_fall_in_frequency(key: str) -> None:
    head = make(key)
    assert head.needs_counts
    head.use_counts(torch.arange(V, 0, -1))
    with pytest.raises(UsageError, match=r"set tokenizer\.order=frequency"):
        head.use_counts(torch.arange(V))
    assert not make("split-none").needs_counts


@pytest.mark.parametrize(
    ("config", "says"),
    [
        ({"name": "split", "cuts": [5, 3]}, "cuts must rise"),
        ({"name": "split", "cuts": [V]}, "cuts must rise"),
        ({"name": "adaptive", "cutoffs": [0]}, "cutoffs must rise"),
        ({"name": "adaptive", "cutoffs": []}, "at least one cutoff"),
        ({"name": "adaptive", "cutoffs": [4, 9]}, r"lower head\.div_value"),
    ],
)
def test_cuts_that_cannot_be_are_refused(config: dict[str, Any], says: str) -> None:
    with pytest.raises(UsageError, match=says):
        HEADS[config["name"]](D, V, HEADS.parse(config))
    with pytest.raises(UsageError, match="cannot be tied"):
        make("adaptive", tied=True)


# -- pointer -----------------------------------------------------------------------------------------------------


def pointer_by_hand(head: Any, h: Tensor, targets: Tensor, reset: Tensor | None) -> Tensor:
    """log p of every target, (B, T, V), position by position."""
    rows = []
    for b in range(h.shape[0]):
        past: list[tuple[Tensor, int]] = []
        for t in range(h.shape[1]):
            if reset is not None and reset[b, t]:
                past = []
            q = torch.tanh(head.query @ h[b, t] + head.query_bias)
            seen = past[-head.config.length :]
            z = torch.stack([*(q @ key for key, _ in seen), q @ head.sentinel])
            a = torch.softmax(z, 0)
            p = a[-1] * torch.softmax(head.weight @ h[b, t] + head.bias, 0)
            for share, (_, word) in zip(a, seen, strict=False):
                p = p + share * nn.functional.one_hot(torch.tensor(word), V)
            rows.append(p.log())
            past.append((h[b, t], int(targets[b, t])))
    return torch.stack(rows).view(*h.shape[:2], V)


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("pieces", [(7,), (1, 2, 4), (1,) * 7])
def test_pointer_equals_the_loop_in_values_and_gradients(resets: bool, pieces: tuple[int, ...]) -> None:
    head, (h, _, _) = make("pointer"), inputs()
    targets = torch.randint(4, (B, T), generator=torch.Generator().manual_seed(6))  # many repetitions
    reset = None
    if resets:
        reset = torch.zeros(B, T, dtype=torch.bool)
        reset[0, 3] = reset[1, 0] = reset[2, 2] = reset[2, 5] = True
    wanted = -pointer_by_hand(head, h, targets, reset).gather(2, targets.unsqueeze(2)).squeeze(2)
    state, nats, total, low = head.initial_state(B, dtype=torch.float64), [], torch.zeros(()), 0
    for size in pieces:
        part = slice(low, low + size)
        given = None if reset is None else reset[:, part]
        more, nll, state = head.loss(h[:, part], targets[:, part], None, state, given)
        total, low = total + more, low + size
        nats.append(nll)
    torch.testing.assert_close(torch.cat(nats, 1), wanted.detach())
    parameters = [h, *head.parameters()]
    for a, b in zip(torch.autograd.grad(total, parameters), torch.autograd.grad(wanted.sum(), parameters), strict=True):
        assert a.isfinite().all()
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9)


def test_pointer_blocks_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    from unrolled.model.heads import pointer

    head, (h, targets, _) = make("pointer"), inputs()
    whole = head.loss(h, targets)[1]
    monkeypatch.setattr(pointer, "_SCORES", 1)
    torch.testing.assert_close(head.loss(h, targets)[1], whole)


def test_the_gate_alone_is_the_softmax_and_without_it_the_pointer_is_pure() -> None:
    head, (h, _, _) = make("pointer"), inputs()
    targets = torch.tensor([[2, 2, 5, 2, 9, 9, 1]]).repeat(B, 1)
    _, _, state = head.loss(h, targets)
    with torch.no_grad():
        head.query_bias.fill_(30.0)  # type: ignore[operator]  # q is all ones
        for value, pure in ((1e4, False), (-1e4, True)):
            head.sentinel.fill_(value)  # type: ignore[operator]
            p = head.log_prob(h[:, 0], state)[0].exp()
            if not pure:
                softmax = torch.log_softmax(h[:, 0] @ head.weight.t() + head.bias, -1)  # type: ignore[operator]
                torch.testing.assert_close(p, softmax.exp())
                continue
            # the last four words, of which 9 comes twice
            a = torch.softmax((state.keys * 1.0).sum(-1), -1)
            assert state.ids[0].tolist() == [2, 9, 9, 1]
            torch.testing.assert_close(p[:, 9], a[:, 1] + a[:, 2])
            torch.testing.assert_close(p[:, 2], a[:, 0])
            assert float(p[:, 5].max()) < 1e-6


def test_the_gate_loss_trains_and_is_not_reported() -> None:
    (h, targets, _), base, more = inputs(), make("pointer"), make("pointer", gate_loss=0.5)
    first, second = base.loss(h, targets), more.loss(h, targets)
    torch.testing.assert_close(first[1], second[1])
    assert float(second[0].detach()) > float(first[0].detach())
    with torch.no_grad():
        torch.testing.assert_close(more.loss(h, targets)[0], base.loss(h, targets)[0])


@pytest.mark.parametrize("key", ["softmax", "mos-latents", "split-none"])
def test_one_softmax_tempered_is_its_power_normalised(key: str) -> None:
    head, (h, _, _) = make(key), inputs()
    wanted = torch.log_softmax(head.log_prob(h.detach())[0] / 1.7, -1)
    torch.testing.assert_close(head.tempered(1.7).log_prob(h.detach())[0], wanted)


def test_a_tempered_mixture_is_one_of_tempered_components() -> None:
    head, (h, _, _) = make("mos"), inputs()
    log_prior, latents = head._mixture(h)  # type: ignore[operator]
    wanted = 0.0
    for k in range(3):
        logits = (latents[..., k, :] @ head.weight.t() + head.bias) / 0.8  # type: ignore[operator]
        wanted = wanted + log_prior[..., k : k + 1].exp() * torch.softmax(logits, -1)
    torch.testing.assert_close(head.tempered(0.8).log_prob(h)[0].exp(), wanted)
