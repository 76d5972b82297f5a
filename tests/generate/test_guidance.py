"""Guidance and contrast beside their formulas on whole texts."""

import pytest
import torch
from torch import Tensor

from generate.ended import Letters, random_predictor
from unrolled.core.errors import UsageError
from unrolled.core.tree import leaves, map_tree
from unrolled.generate import BeamConfig, SamplerConfig, beam_search, generate
from unrolled.generate.guidance import Contrast, ContrastConfig, Guidance
from unrolled.predict import NeuralPredictor, PredictorConfig, adapt


def log_probs(model: NeuralPredictor, before: list[int], text: list[int]) -> Tensor:
    """(time, V) of what each token of a text is predicted from, after other tokens."""
    state = model.consume(model.begin(1), torch.tensor([before], dtype=torch.int64))
    return model.distributions(state, torch.tensor([text]))[0][0]


@pytest.mark.parametrize("negative", [[], [2, 1]])
def test_guidance(negative: list[int]) -> None:
    model, prompt, text = random_predictor(7, 1), [0, 3, 4], [1, 2, 5, 5, 0]
    guided = Guidance(model, 0.7, len(prompt), negative)
    formula = 1.7 * log_probs(model, prompt, text) - 0.7 * log_probs(model, negative, text)
    wanted = torch.log_softmax(formula, -1)
    state = guided.consume(guided.begin(2), torch.tensor([prompt, prompt]))
    found = guided.distributions(state, torch.tensor([text, text]))[0]
    assert torch.allclose(found, wanted.expand(2, -1, -1), atol=1e-12)
    stepwise = guided.begin(1)
    for token in prompt:
        stepwise = guided.observe(stepwise, torch.tensor([token]))
    assert torch.allclose(guided.distributions(stepwise, torch.tensor([text]))[0][0], wanted, atol=1e-12)


def test_rows_at_other_places_of_their_prompts() -> None:
    guided = Guidance(random_predictor(7, 1), 0.7, 3, [])
    fresh, later = guided.begin(1), guided.consume(guided.begin(1), torch.tensor([[0, 3]]))
    both = map_tree(lambda a, b: torch.cat([a, b]), fresh, later)
    for _ in range(3):
        ids = torch.tensor([4, 2])
        both = guided.observe(both, ids)
        fresh, later = guided.observe(fresh, ids[:1]), guided.observe(later, ids[1:])
    consumed = guided.consume(both, torch.tensor([[1, 1], [2, 2]]))
    for alone, place, ids in ((fresh, 0, [1, 1]), (later, 1, [2, 2])):
        for one, other in zip(leaves(alone), leaves(both), strict=True):
            assert torch.allclose(one[0], other[place], atol=1e-12)
        for one, other in zip(leaves(guided.consume(alone, torch.tensor([ids]))), leaves(consumed), strict=True):
            assert torch.allclose(one[0], other[place], atol=1e-12)


def test_contrast() -> None:
    expert, amateur, text = random_predictor(7, 1), random_predictor(7, 2), [1, 2, 5, 5, 0]
    both = Contrast(expert, amateur, ContrastConfig())
    strong, weak = log_probs(expert, [], text), log_probs(amateur, [], text)
    found = both.distributions(both.begin(1), torch.tensor([text]))[0][0]
    kept = strong.exp() >= 0.1 * strong.exp().amax(-1, keepdim=True)
    assert torch.equal(found.isfinite(), kept)
    wanted = torch.log_softmax(torch.where(kept, 1.5 * strong - 0.5 * weak, -torch.inf), -1)
    assert torch.allclose(found[kept], wanted[kept], atol=1e-12)


def test_weight_nought_is_the_model() -> None:
    model, tokenizer = random_predictor(7, 1), Letters(7)
    sampler = SamplerConfig(seed=4)
    (plain,) = generate(model, tokenizer, ("abc",), 20, sampler)
    neutral = Contrast(model, random_predictor(7, 2), ContrastConfig(weight=0, plausible=0))
    for one in (Guidance(model, 0.0, 3, []), neutral):
        (found,) = generate(one, tokenizer, ("abc",), 20, sampler)
        assert found.tokens == plain.tokens
        assert found.log_prob == pytest.approx(plain.log_prob, abs=1e-9)
        assert beam_search(one, tokenizer, "abc", 9, BeamConfig(beams=3))[0].tokens == (
            beam_search(model, tokenizer, "abc", 9, BeamConfig(beams=3))[0].tokens
        )


def test_refused() -> None:
    learns = adapt(random_predictor(7, 1), PredictorConfig.parse({"dynamic": "sgd"}))
    with pytest.raises(UsageError, match="neither guidance nor contrast"):
        Guidance(learns, 0.5, 0, [])
    with pytest.raises(Exception, match="the model predicts 6 tokens"):
        Contrast(random_predictor(7, 1), random_predictor(6, 1), ContrastConfig())
