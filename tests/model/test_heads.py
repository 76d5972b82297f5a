"""Every head: probabilities, losses and all gradients against the plain form, blocks, and life in a model."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import unrolled as ur
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.kernels.softmax_loss.reference import TorchBlocks
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.heads import HEADS, Head

D, E, V, B, T = 6, 5, 23, 3, 7
CONFIGS: dict[str, dict[str, Any]] = {
    "softmax": {"name": "softmax"},
    "mos": {"name": "mos", "components": 3},
    "mos-latents": {"name": "mos", "components": 3, "mix": "latents"},
    "mos-floor": {"name": "mos", "components": 2, "floor": 0.01},
    "mos-plain": {"name": "mos", "components": 2, "bias": False, "project": 4},
    "split": {"name": "split", "cuts": [7, 15]},
    "split-one": {"name": "split", "cuts": [1]},
    "split-none": {"name": "split", "cuts": []},
    "split-plain": {"name": "split", "cuts": [4, 5, 20], "bias": False},
    "adaptive": {"name": "adaptive", "cutoffs": [5, 12], "div_value": 2.0},
    "adaptive-bias": {"name": "adaptive", "cutoffs": [5], "div_value": 2.0, "head_bias": True},
    "pointer": {"name": "pointer", "length": 4},
    "pointer-plain": {"name": "pointer", "length": 9, "bias": False},
}
every = pytest.mark.parametrize("key", CONFIGS)
stateless = pytest.mark.parametrize("key", [key for key in CONFIGS if not key.startswith("pointer")])


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


def plain(head: Head, h: Tensor, targets: Tensor, state: Any) -> Tensor:
    """The nats through ``log_prob``, one step after another."""
    nats = []
    for t in range(targets.shape[1]):
        log_prob, _ = head.log_prob(h[:, t], state)
        nats.append(-log_prob.gather(1, targets[:, t : t + 1]))
        if state is not None:
            _, _, state = head.loss(h[:, t : t + 1], targets[:, t : t + 1], None, state)
    return torch.cat(nats, 1)


@every
@pytest.mark.parametrize("tied", [False, True])
def test_probabilities_sum_to_one(key: str, tied: bool) -> None:
    if tied and (key.startswith("adaptive") or key in ("mos-plain",)):
        pytest.skip("cannot be tied")
    head, (h, targets, _) = make(key, tied), inputs()
    state = head.initial_state(B, dtype=torch.float64)
    if state is not None:
        _, _, state = head.loss(h, targets, None, state)
    log_prob, _ = head.log_prob(h[:, -1], state)
    assert log_prob.shape == (B, V)
    wanted = 1 + (V * 0.01 if key == "mos-floor" else 0)
    torch.testing.assert_close(log_prob.exp().sum(-1), torch.full((B,), wanted, dtype=torch.float64))


@every
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("block", [1, 100, 2**22])
def test_the_loss_is_that_of_the_probabilities_in_value_and_every_gradient(key: str, tied: bool, block: int) -> None:
    if tied and (key.startswith("adaptive") or key in ("mos-plain",)):
        pytest.skip("cannot be tied")
    head, (h, targets, weight) = make(key, tied, block=block), inputs()
    state = head.initial_state(B, dtype=torch.float64)
    wanted = plain(head, h, targets, state)
    parameters = dict(head.named_parameters())
    total, nll, _ = head.loss(h, targets, weight, state)
    torch.testing.assert_close(nll, wanted.detach())
    torch.testing.assert_close(total, (wanted * weight).sum())
    found = torch.autograd.grad(2 * total, [h, *parameters.values()])
    if state is None:
        grads = torch.autograd.grad(2 * (wanted * weight).sum(), [h, *parameters.values()])
        for name, a, b in zip(["h", *parameters], found, grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9, msg=name)
    with torch.no_grad():
        torch.testing.assert_close(head.loss(h, targets, weight, state)[0], total)
    torch.testing.assert_close(head.loss(h, targets, None, state)[0], wanted.sum())


@stateless
def test_masks_on_the_projected_output(key: str) -> None:
    more: dict[str, Any] = {"project": 4} if key in ("softmax", "split") else {}
    head, (h, targets, _) = make(key, **more), inputs()
    for per_step in (False, True):
        masks = head.draw_masks(B, T, 0.5, per_step, RandomStreams(1), 0)
        if head.projected_width is None:
            assert masks is None
            continue
        mask = getattr(masks, "projected", masks)
        assert mask.shape == (B, T if per_step else 1, head.projected_width)
        total, nll, _ = head.loss(h, targets, masks=masks)
        total.backward()
        assert (nll - head.loss(h, targets)[1]).abs().max() > 1e-6


def test_bf16_products() -> None:
    for key in CONFIGS:
        head, (h, targets, _) = make(key).float(), inputs()
        state = head.initial_state(B, dtype=torch.float32)
        _, exact, _ = head.loss(h.float(), targets, None, state)
        if key.startswith("adaptive"):
            continue  # torch's own products
        head.compute = head.compute.model_copy(update={"precision": "bf16"})
        total, low, _ = head.loss(h.float(), targets, None, state)
        assert total.dtype == torch.float32
        assert 0 < float((low - exact).abs().max()) < 0.2, key
        assert (head.log_prob(h[:, 0].float(), state)[0].exp().sum(-1) - 1).abs().max() < (
            0.5 if "floor" in key else 1e-3
        )


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


# -- in a model --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["mos", "mos-latents", "split", "adaptive", "pointer"])
def test_flops(key: str) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    config = ModelConfig.parse({"width": D, "head": CONFIGS[key], "compute": {"backend": "reference"}})
    model = LanguageModel(config, V)
    state = model.initial_state(1)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        out = model(torch.zeros(1, 1, dtype=torch.int64), state)
        model.head.log_prob(out.raw[:, 0], state.head)
    assert counter.get_total_flops() == pytest.approx(model.flops_per_token(), rel=0.02)


@pytest.mark.parametrize(
    "head",
    [
        {"name": "mos", "components": 3},
        {"name": "split", "cuts": [5]},
        {"name": "adaptive", "cutoffs": [4]},
        {"name": "pointer", "length": 6},
    ],
    ids=lambda head: head["name"],
)
def test_every_head_trains_evaluates_and_generates(
    head: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    text = "the cat and the dog run over the hill and the cat sleeps under the green tree"
    words = text.split()
    (tmp_path / "text").mkdir()
    for split, lines in (("train", 120), ("valid", 30), ("test", 30)):
        rows = (" ".join(words[(i * 7 + j * j) % len(words)] for j in range(5 + i % 4)) for i in range(lines))
        (tmp_path / "text" / f"{split}.txt").write_text("\n".join(rows) + "\n")
    tied = head["name"] != "adaptive"
    config = ur.ExperimentConfig.parse(
        {
            "corpus": {"path": str(tmp_path / "text")},
            "tokenizer": {"name": "word", "order": "frequency"},
            "stream": {"columns": 4, "window": 12},
            "model": {
                "width": 12,
                "embedding": {"size": 8, "tied": tied},
                "head": head,
                "dropout": {"projected": 0.2, "output": 0.1},
            },
            "train": {"steps": 40, "validations": 2, "final_eval": False, "optimizer": {"name": "adam", "lr": 0.02}},
        }
    )
    run = ur.train(config, tmp_path / "run", device="cpu")
    model = ur.load(run, device="cpu").double()
    assert isinstance(model, LanguageModel)
    events = [line for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines() if '"valid"' in line]
    import json

    assert json.loads(events[-1])["nats"] < 0.95 * math.log(model.vocab_size)
    from unrolled.evaluate import EvalConfig, evaluate_predictor
    from unrolled.predict import NeuralPredictor
    from unrolled.runs import Run

    opened = Run(run, "cpu")
    _, splits = opened.splits()
    predictor = NeuralPredictor(model, opened.tokenizer.start_id)
    figures = [
        evaluate_predictor(predictor, splits["valid"], EvalConfig.parse({"split": "valid", "window": window})).nats
        for window in (1, 5, 50)
    ]
    assert figures[1] == pytest.approx(figures[0], rel=1e-12)
    assert figures[2] == pytest.approx(figures[0], rel=1e-12)
    assert ur.generate(run, "the cat", tokens=8)[0].text


@every
def test_temperature_divides_the_logits(key: str) -> None:
    """Two temperatures against the plain form: every logit of the vocabulary divided, loss and log_prob alike."""
    head, (h, targets, _) = make(key), inputs()
    hot = head.tempered(1.7)
    assert head.tempered(1.0) is head
    assert head.logit_scale == 1.0
    assert all(a is b for a, b in zip(head.parameters(), hot.parameters(), strict=True))
    state = head.initial_state(B, dtype=torch.float64)
    _, nll, _ = hot.loss(h.detach(), targets, None, state)
    torch.testing.assert_close(nll, plain(hot, h.detach(), targets, state))
    if key in ("softmax", "mos-latents", "split-none"):  # one softmax: p^(1/T), normalised
        log_prob, _ = head.log_prob(h.detach())
        wanted = torch.log_softmax(log_prob / 1.7, -1)
        torch.testing.assert_close(hot.log_prob(h.detach())[0], wanted)
    log_prob, _ = hot.log_prob(h[:, 0].detach(), state)
    assert not torch.allclose(log_prob, head.log_prob(h[:, 0].detach(), state)[0])


def test_a_tempered_mixture_is_one_of_tempered_components() -> None:
    head, (h, _, _) = make("mos"), inputs()
    log_prior, latents = head._mixture(h)  # type: ignore[operator]
    wanted = 0.0
    for k in range(3):
        logits = (latents[..., k, :] @ head.weight.t() + head.bias) / 0.8  # type: ignore[operator]
        wanted = wanted + log_prior[..., k : k + 1].exp() * torch.softmax(logits, -1)
    torch.testing.assert_close(head.tempered(0.8).log_prob(h)[0].exp(), wanted)
