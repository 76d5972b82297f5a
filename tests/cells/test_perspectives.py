"""Multiple temporal perspectives: RWKV-4 several times over the same tokens."""

from pathlib import Path
from typing import Any

import pytest
import torch

import unrolled as ur
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.tree import leaves, save_tensors
from unrolled.model import LanguageModel, ModelConfig
from unrolled.runs.weights import load_weights, weights

WIDTH, LAYERS, VOCABULARY = 8, 4, 11


def config(count: int, head: dict[str, Any] | None = None, **options: Any) -> ModelConfig:
    each = {"perspectives": count}
    cells = {"pattern": "rwkv4, rwkv4_channel", "rwkv4": each, "rwkv4_channel": each}
    return ModelConfig.parse(
        {
            "width": WIDTH,
            "layers": LAYERS,
            "cell": cells,
            "stack": {"kind": "residual", "input_norm": "layer"},
            "head": head or {"name": "perspectives", "count": count},
            **options,
        }
    )


def model(count: int, **options: Any) -> LanguageModel:
    """In float64, with no parameter at a special value."""
    torch.manual_seed(count)
    made = LanguageModel(config(count, **options), VOCABULARY).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return made


def log_probs(of: LanguageModel, tokens: torch.Tensor) -> torch.Tensor:
    return of.head.log_prob(of(tokens).dropped)[0]


@pytest.fixture
def tokens() -> torch.Tensor:
    return torch.randint(0, VOCABULARY, (3, 13), generator=torch.Generator().manual_seed(5))


def saved(of: LanguageModel, folder: Path) -> Path:
    save_tensors(folder / "model.safetensors", dict(weights(of)))
    return folder / "model.safetensors"


def test_one_perspective_is_rwkv4(tokens: torch.Tensor, tmp_path: Path) -> None:
    one, base = model(1), model(1, head={"name": "softmax"})
    assert set(weights(one)) == set(weights(base))
    load_weights(base, saved(one, tmp_path))
    assert torch.equal(log_probs(one, tokens), log_probs(base, tokens))


@pytest.mark.parametrize("count", [2, 3])
def test_several_begin_as_the_one_and_add_only_what_the_paper_counts(
    count: int, tokens: torch.Tensor, tmp_path: Path
) -> None:
    base, several = model(1), model(count)
    assert several.num_params() - base.num_params() == (count - 1) * 5 * WIDTH * LAYERS // 2 + count * WIDTH
    load_weights(several, saved(base, tmp_path), several=True)
    assert (log_probs(several, tokens) - log_probs(base, tokens)).abs().max() < 1e-13
    sizes = [sum(part.numel() for part in leaves(each.initial_state(1).cells)) for each in (base, several)]
    assert sizes[1] == count * sizes[0]


def test_a_run_of_several_is_not_taken_for_one_of_one(tmp_path: Path) -> None:
    with pytest.raises(UnrolledError, match="does not fit"):
        load_weights(model(3), saved(model(2), tmp_path), several=True)
    with pytest.raises(UnrolledError, match="does not fit"):
        load_weights(model(2), saved(model(1), tmp_path))


def test_a_head_that_mixes_nothing_is_not_begun_from_one(tmp_path: Path) -> None:
    with pytest.raises(UnrolledError, match="does not fit"):
        load_weights(model(2, head={"name": "softmax"}), saved(model(1), tmp_path), several=True)


def test_perspectives_are_mixed_as_logits(tokens: torch.Tensor) -> None:
    """The mixture of logits, each perspective by a softmax head of one, in place of the mixture of outputs."""
    several = model(3)
    h = several(tokens).dropped
    apart = h.unflatten(-1, (3, WIDTH))
    head: Any = several.head
    share = torch.softmax(apart.mean(-2) @ head.combine.T, -1)
    logits = (share.unsqueeze(-1) * (apart @ head.weight.T + head.bias)).sum(-2)
    assert (torch.log_softmax(logits, -1) - log_probs(several, tokens)).abs().max() < 1e-13


def test_each_perspective_is_a_model_of_its_own_mixing(tokens: torch.Tensor) -> None:
    """What goes through the stack for one perspective is a model of one with its vectors."""
    several, one = model(3), model(1)
    with torch.no_grad():
        for k in range(3):
            for name, parameter in weights(one).items():
                other = weights(several)[name]
                parameter.copy_(other if other.shape == parameter.shape else other[k])
            h = several(tokens).raw.unflatten(-1, (3, WIDTH))[..., k, :]
            assert (one(tokens).raw - h).abs().max() < 1e-13


def test_heads_and_layers_that_do_not_go_together() -> None:
    with pytest.raises(UsageError, match=r"head mixes 2 perspectives and the cells have 3; set model.head.count=3"):
        model(3, head={"name": "perspectives", "count": 2})
    with pytest.raises(UsageError, match="has 1 streams side by side and the first layer 2"):
        LanguageModel(
            ModelConfig.parse({"cell": {"pattern": "rwkv4, rwkv4_channel", "rwkv4": {"perspectives": 2}}, "width": 4}),
            5,
        )


def test_an_adapter_trains_the_mixing_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """From a run of one perspective: all but the mixing vectors and the combiner stays, bit for bit."""
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat and the dog sat on the log\n" * 60)
    train = {"steps": 6, "validations": 1, "final_eval": False, "optimizer": {"name": "adam", "lr": 0.01}}
    common = {"corpus": {"path": str(text)}, "stream": {"columns": 2, "window": 8}}
    start = {**common, "model": config(1).model_dump(), "train": train}
    ur.train(ur.ExperimentConfig.parse(start), tmp_path / "base", device="cpu")
    file = tmp_path / "base" / "model.safetensors"
    adapted = {
        **common,
        "model": config(2).model_dump(),
        "weights": {"file": str(file)},
        "train": {**train, "trainable": ["*.mix_*", "head.combine"]},
    }
    ur.train(ur.ExperimentConfig.parse(adapted), tmp_path / "more", device="cpu")
    before, after = weights(ur.load(tmp_path / "base")), weights(ur.load(tmp_path / "more"))
    moved = {name for name in before if not torch.equal(before[name].expand(after[name].shape), after[name])}
    assert moved
    assert all(".mix_" in name for name in moved)
