"""The self-terminating head: its formula row by row, its bound, and that decoding stops."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch

import unrolled as ur
from generate.ended import Letters
from unrolled.core.errors import UsageError
from unrolled.generate import BeamConfig, SamplerConfig, beam_search, generate
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.heads.terminating import TerminatingConfig, TerminatingState
from unrolled.predict import NeuralPredictor

V, END, EPSILON, MOST = 7, 6, 0.02, 100


def random_model(seed: int, head: dict[str, Any], dtype: torch.dtype = torch.float32) -> LanguageModel:
    torch.manual_seed(seed)
    model = LanguageModel(ModelConfig.parse({"width": 8, "head": head}), V)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 1)
    return model.to(dtype)


def terminating(seed: int, dtype: torch.dtype = torch.float32, epsilon: float = EPSILON) -> LanguageModel:
    return random_model(seed, {"name": "terminating", "epsilon": epsilon, "end": END}, dtype)


@torch.no_grad()
def by_definition(head: Any, h: torch.Tensor, t: int) -> list[float]:
    """The distribution at one position, in Python's numbers."""
    z = [float(h @ head.weight[i] + head.bias[i]) for i in range(V)]
    going_on = (1 - 1 / (1 + math.exp(-z[END]))) * (1 - EPSILON) ** t
    others = sum(math.exp(z[i]) for i in range(V) if i != END)
    return [1 - going_on if i == END else going_on * math.exp(z[i]) / others for i in range(V)]


def test_window_and_steps_are_the_definition_through_ends_and_resets():
    head = terminating(0, torch.float64).head
    torch.manual_seed(1)
    h = torch.randn(3, 11, 8, dtype=torch.float64)
    targets = torch.randint(0, V - 1, (3, 11))
    targets[0, 3] = targets[0, 4] = targets[1, 10] = targets[2, 5] = END
    reset = torch.zeros(3, 11, dtype=torch.bool)
    reset[1, 0] = reset[1, 4] = reset[2, 6] = reset[2, 7] = True
    before = TerminatingState(torch.tensor([[5], [9], [0]]))
    _, nll, after = head.loss(h, targets, None, before, reset)
    last = []
    for row in range(3):
        count, state = int(before.count[row]), TerminatingState(before.count[row : row + 1])
        for k in range(11):
            if reset[row, k]:
                count, state = 0, head.initial_state(1)
            wanted = by_definition(head, h[row, k], count + 1)
            log_prob, _ = head.log_prob(h[row : row + 1, k], state)
            assert log_prob[0].exp().tolist() == pytest.approx(wanted, abs=1e-12)
            assert float(nll[row, k]) == pytest.approx(-math.log(wanted[int(targets[row, k])]), abs=1e-10)
            state = head.learn(h[row : row + 1, k], targets[row, k : k + 1], state)
            count = 0 if targets[row, k] == END else count + 1
            assert int(state.count) == count
        last.append([count])
    assert after.count.tolist() == last


def test_sums_and_bound_in_single_precision():
    for seed in range(6):
        model = NeuralPredictor(terminating(seed, epsilon=0.01), END)
        state = model.begin(4)
        for t in range(1, 60):
            p = model.predict(state).log_prob.exp()
            assert (p.sum(-1) - 1).abs().max() < 1e-6
            assert (p[:, END] >= 1 - (1 - 0.01) ** t - 1e-6).all()
            state = model.observe(state, torch.arange(4) + t % 3)


def test_a_temperature_leaves_the_end_symbol_alone():
    head = terminating(3, torch.float64).head
    h, state = torch.randn(2, 8, dtype=torch.float64), TerminatingState(torch.tensor([[4], [50]]))
    plain, cold = head.log_prob(h, state)[0], head.tempered(0.1).log_prob(h, state)[0]
    torch.testing.assert_close(cold[:, END], plain[:, END], rtol=0, atol=1e-14)
    assert (cold[:, 0] - plain[:, 0]).abs().max() > 0.1


def lengths(model: LanguageModel, seed: int, beams: bool) -> dict[str, int]:
    """Tokens until each decoding stopped; MOST + 1 where it did not."""
    predictor, symbols = NeuralPredictor(model, END), Letters(V)
    ways: dict[str, dict[str, Any]] = {
        "greedy": {"temperature": 0}, "top-k": {"top_k": 2, "seed": seed}, "nucleus": {"top_p": 0.3, "seed": seed},
    }  # fmt: skip
    found = {
        name: generate(predictor, symbols, ("",), MOST, SamplerConfig.parse(options))[0]
        for name, options in ways.items()
    }
    ended = {name: len(one.tokens) if one.finish_reason == "end" else MOST + 1 for name, one in found.items()}
    if beams:
        config = BeamConfig.parse({"beams": 4, "length": 0})
        (best,) = beam_search(predictor, symbols, "", MOST, config)
        ended["beams"] = len(best.tokens) if best.finish_reason == "end" else MOST + 1
    return ended


def check_endings(models: range, beams: range) -> None:
    for seed in models:
        ended = lengths(terminating(seed), seed, seed in beams)
        assert ended["greedy"] <= 36, "the bound is above a half from the 35th token on"
        assert max(ended.values()) <= MOST, f"seed {seed}: {ended}"


def test_every_decoding_ends():
    check_endings(range(12), range(12))


@pytest.mark.slow
def test_every_decoding_of_a_thousand_models_ends():
    check_endings(range(1000), range(1000))


def goes_on(seed: int) -> bool:
    model = random_model(seed, {"name": "softmax"})
    with torch.no_grad():
        model.head.bias[END] = -20
    found = generate(NeuralPredictor(model, END), Letters(V), ("",), MOST, SamplerConfig.parse({"temperature": 0}))[0]
    return found.finish_reason == "length" and len(found.tokens) == MOST


def test_a_softmax_that_dislikes_the_end_goes_on():
    assert all(goes_on(seed) for seed in range(4))


@pytest.mark.slow
def test_a_thousand_softmaxes_that_dislike_the_end_go_on():
    assert sum(goes_on(seed) for seed in range(1000)) == 1000


def experiment(folder: Path, tokenizer: str) -> ur.ExperimentConfig:
    return ur.ExperimentConfig.parse(
        {
            "corpus": {"path": str(folder)},
            "tokenizer": {"name": tokenizer},
            "stream": {"columns": 2, "window": 6},
            "model": {"width": 6, "head": {"name": "terminating", "epsilon": 0.02}},
            "train": {"steps": 2, "validations": 1, "final_eval": False},
        }
    )


def test_a_run_keeps_the_end_symbol_of_its_tokenizer_and_bytes_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text"
    text.mkdir()
    for split in ("train", "valid", "test"):
        (text / f"{split}.txt").write_text("a b c d\nb a c\n" * 20)
    run = ur.train(experiment(text, "word"), tmp_path / "run", device="cpu")
    model = ur.load(run, device="cpu")
    assert isinstance(model, LanguageModel)
    assert model.head.end == ur.Run(run, "cpu").tokenizer.end_id
    # a line end is text: it stops what is written where it is a stop text
    assert ur.generate(run, "a b", tokens=500, stop=["\n"], temperature=0)[0].finish_reason == "stop"
    with pytest.raises(UsageError, match="needs an end symbol"):
        ur.train(experiment(text, "byte"), tmp_path / "other", device="cpu")


def test_what_it_cannot_do_without_is_said():
    with pytest.raises(UsageError, match="outside the 7 ids"):
        random_model(0, {"name": "terminating", "end": V})
    unknown = random_model(0, {"name": "terminating"})
    with pytest.raises(UsageError, match="does not know the end symbol"):
        NeuralPredictor(unknown, 0).predict(NeuralPredictor(unknown, 0).begin(1))
    assert TerminatingConfig(end=3).with_end(None).end == 3
    assert TerminatingConfig(end=3).with_end(1).end == 3


def test_the_bias_begins_at_the_frequencies():
    model = random_model(0, {"name": "terminating", "end": END, "bias_init": "unigram", "epsilon": 1e-12})
    counts = torch.tensor([9, 4, 0, 2, 30, 1, 5])
    model.head.use_counts(counts)
    wanted = (counts + 1).double() / (counts + 1).sum()
    found = model.head.double().log_prob(torch.zeros(1, 8, dtype=torch.float64))[0].exp()[0]
    torch.testing.assert_close(found, wanted, rtol=0, atol=1e-7)
