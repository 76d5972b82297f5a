"""Texts in which a token takes the last one back."""

import pytest
import torch

from generate.ended import Letters, random_predictor
from unrolled.core.errors import UsageError
from unrolled.generate import SamplerConfig, beam_search, generate, tree_search

BACK, END = 2, 6


def reduced(tokens: list[int], depth: int = 256) -> list[int]:
    left: list[int] = []
    kept = 0
    for one in tokens:
        if one != BACK:
            left.append(one)
            kept = min(kept + 1, depth)
        elif kept:
            left.pop()
            kept -= 1
    return left


def test_states_and_texts_are_those_of_what_is_left() -> None:
    """The prediction before each token is that after the shorter text, read from its beginning, to the bit."""
    places = 0
    for seed in range(20):
        model, tok = random_predictor(7, seed), Letters(7)
        sampler = SamplerConfig.parse({"backspace": BACK, "seed": seed, "bias": {BACK: 2.0}})
        (found,) = generate(model, tok, ("ab",), 14, sampler)
        total = 0.0
        for place, token in enumerate(found.tokens):
            state = model.consume(model.begin(1), torch.tensor([tok.encode("ab")]))
            for one in reduced(found.tokens[:place]):
                state = model.observe(state, torch.tensor([one]))
            total += float(model.predict(state).log_prob[0, token])
            places += 1
        assert found.log_prob == total
        assert found.text == tok.decode(reduced(found.tokens))
        assert (found.finish_reason == "end") == (found.tokens[-1] == END)
    assert places >= 100


def test_depth_stops_batches_and_penalties() -> None:
    model, tok = random_predictor(7, 3), Letters(7)
    options = {"backspace": BACK, "bias": {BACK: 3.0, END: -50.0}}
    alone = generate(model, tok, ("",), 30, SamplerConfig.parse(options), samples=1)
    several = generate(model, tok, ("", "abc"), 30, SamplerConfig.parse(options), samples=3)
    assert several[0].tokens == alone[0].tokens
    assert len({tuple(one.tokens) for one in several}) >= 4
    shallow = generate(model, tok, ("",), 30, SamplerConfig.parse({**options, "backspace_depth": 1}))[0]
    assert shallow.text == tok.decode(reduced(shallow.tokens, 1))
    assert {one.finish_reason for one in several} == {"length"}
    assert all(len(one.tokens) == 30 for one in several)
    once = generate(model, tok, ("",), 12, SamplerConfig.parse({**options, "no_repeat": 1}))[0]
    left = reduced(once.tokens)
    assert len(set(left)) == len(left), "what was taken back may be said again, what is left may not"
    for one in generate(model, tok, ("",), 40, SamplerConfig.parse(options), stop=("d",), samples=5):
        assert "d" not in one.text


def test_refused() -> None:
    model, tok, sampler = random_predictor(7, 1), Letters(7), SamplerConfig(backspace=BACK)
    for search in (
        lambda: beam_search(model, tok, "", 5, None, sampler),
        lambda: tree_search(model, tok, "", 5, 10, 0, sampler),
    ):
        with pytest.raises(UsageError, match="drawn token by token"):
            search()
    with pytest.raises(UsageError, match="leave it out"):
        generate(model, tok, ("",), 5, SamplerConfig(backspace=7))
    with pytest.raises(UsageError, match="neither a state"):
        generate(model, tok, ("",), 5, sampler, log_probs=3)
