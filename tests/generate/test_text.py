"""Texts from models and from a predictor that recites."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.generate import SamplerConfig, generate, stream
from unrolled.generate.prompts import read_prompts
from unrolled.predict import NeuralPredictor, Prediction, Predictor
from unrolled.tokenizer import TOKENIZERS, Tokenizer
from unrolled.tokenizer.byte import ByteTokenizer

GREEDY = SamplerConfig.parse({"temperature": 0})


class Reciter(Predictor):
    """Every row recites the same tokens over and over, with probability 0.9 each. State: (batch, 1) position."""

    def __init__(self, tokens: list[int], vocab_size: int):
        self.tokens, self.vocab_size, self.start_id = tokens, vocab_size, 0

    def begin(self, batch: int, first: Tensor | None = None) -> Tensor:
        return torch.zeros(batch, 1, dtype=torch.int64)

    def predict(self, state: Tensor) -> Prediction:
        p = torch.full((len(state), self.vocab_size), 0.1 / (self.vocab_size - 1), dtype=torch.float64)
        for row, position in enumerate(state[:, 0].tolist()):
            p[row, self.tokens[position % len(self.tokens)]] = 0.9
        return Prediction(p.log(), None)

    def observe(self, state: Tensor, ids: Tensor) -> Tensor:
        return state + 1


def recite(text: str, **options: Any) -> list:
    tok = ByteTokenizer()
    reciter = Reciter(list(text.encode()), 256)
    return list(stream(reciter, tok, ("",), options.pop("max_tokens", 40), GREEDY, **options))


def shown(pieces: list) -> str:
    return "".join(piece.text for piece in pieces)


def plain(model: NeuralPredictor, tok: Tokenizer, prompt: str, count: int) -> tuple[list[int], float]:
    """Greedy text by running the model over everything from the start, each time anew."""
    ids, nats = [model.start_id, *tok.encode(prompt)], 0.0
    with torch.no_grad():
        for _ in range(count):
            out = model.model(torch.tensor([ids]))
            log_prob, _ = model.model.head.log_prob(out.raw[0, -1])
            ids.append(int(log_prob.argmax()))
            nats += float(log_prob.max())
    return ids[-count:], nats


@pytest.mark.parametrize("cell", ["lstm", "mlstm"])
@pytest.mark.parametrize("prompt", ["", "a", "hello hello"])
def test_greedy_text_is_the_plain_loop(predictor, tokenizer, cell, prompt):
    model = predictor(cell)
    (got,) = generate(model, tokenizer, [prompt], 15, GREEDY)
    tokens, nats = plain(model, tokenizer, prompt, 15)
    assert got.tokens == tokens
    assert got.log_prob == pytest.approx(nats, rel=1e-10)
    assert got.text == tokenizer.decode(tokens)
    assert (got.prompt, got.finish_reason) == (prompt, "length")


def test_log_prob_is_the_models_own(predictor, tokenizer):
    model = predictor()
    sampler = SamplerConfig.parse({"temperature": 0.7, "top_k": 5, "seed": 3})
    (got,) = generate(model, tokenizer, ["abc"], 20, sampler)
    state = model.consume(model.begin(1), torch.tensor([tokenizer.encode("abc")]))
    assert got.log_prob == pytest.approx(-float(model.window(state, torch.tensor([got.tokens])).nll.sum()))


@pytest.mark.parametrize("cell", ["lstm", "mlstm"])
def test_a_text_does_not_depend_on_its_batch(predictor, tokenizer, cell):
    model = predictor(cell)
    prompts = ["abc abc", "", "f", "a longer line for a model\n", "ff", "abc abc"]
    sampler = SamplerConfig.parse({"seed": 5, "top_p": 0.9})
    together = generate(model, tokenizer, prompts, 25, sampler, ["e", "q"], samples=2)
    assert [one.prompt for one in together] == [prompt for prompt in prompts for _ in range(2)]
    assert len({len(one.tokens) for one in together}) > 2
    for place, prompt in enumerate(prompts):
        alone = generate(model, tokenizer, [prompt], 25, sampler, ["e", "q"], samples=2)
        for one, other in zip(alone, together[2 * place :], strict=False):
            assert one.tokens == other.tokens
            assert one.text == other.text
            assert one.finish_reason == other.finish_reason
            assert one.log_prob == pytest.approx(other.log_prob, rel=1e-10)
    first = [one for one in together if one.prompt == "abc abc"]
    assert first[0].tokens == first[2].tokens
    assert first[0].tokens != first[1].tokens


def test_seeds(predictor, tokenizer):
    model = predictor()

    def text(seed: int) -> str:
        return generate(model, tokenizer, ["a"], 30, SamplerConfig.parse({"seed": seed}))[0].text

    assert text(1) == text(1)
    assert text(1) != text(2)


@pytest.mark.parametrize("lengths", [[0], [3], [0, 0], [2, 0, 5, 2, 1], [1300, 7, 513]])
def test_prompts_are_read_as_they_would_be_alone(predictor, lengths):
    model = predictor()
    prompts = [[(7 * n + row) % 20 for n in range(length)] for row, length in enumerate(lengths)]
    together = tree.leaves(read_prompts(model, prompts))
    for row, prompt in enumerate(prompts):
        alone = model.begin(1)
        if prompt:
            alone = model.window(alone, torch.tensor([prompt])).state
        for one, other in zip(tree.leaves(alone), together, strict=True):
            torch.testing.assert_close(one[0], other[row], rtol=1e-9, atol=1e-9)


def test_pieces_never_hold_part_of_a_character():
    pieces = recite("né→𝄞 ", max_tokens=22)
    assert "".join(shown(pieces)) == "né→𝄞 né→𝄞 "
    assert "\ufffd" not in shown(pieces)
    assert [piece.text for piece in pieces[:4]] == ["n", "", "é", ""]
    cut = recite("né→𝄞 ", max_tokens=8)
    assert shown(cut) == "né→\ufffd"
    assert cut[-1].finish_reason == "length"


def test_stop_strings_are_never_shown_in_part():
    pieces = recite("one STone STOP two", stop=["STOP", "never"])
    assert shown(pieces) == "one STone "
    assert pieces[-1].finish_reason == "stop"
    assert len(pieces) == len("one STone STOP")
    seen = ""
    for piece in pieces[:-1]:
        seen += piece.text
        assert piece.finish_reason is None
        assert "one STone ".startswith(seen)


def test_a_stop_string_that_does_not_come_is_given_back():
    pieces = recite("abSTO", stop=["STOP"], max_tokens=5)
    assert [piece.text for piece in pieces] == ["a", "b", "", "", "STO"]
    assert pieces[-1].finish_reason == "length"


def test_a_stop_string_inside_a_token_and_across_tokens():
    cls = TOKENIZERS["word"]
    tok = cls.train(cls.Config.parse({"name": "word"}), [b"the cat sat the cat sat on\n" * 3])
    words = tok.encode("the cat sat on\n")
    (got,) = generate(Reciter(words, tok.vocab_size), tok, ["the"], 20, GREEDY, ["t s"])
    assert (got.text, got.tokens) == (" ca", words[1:3])
    (line,) = generate(Reciter(words, tok.vocab_size), tok, [""], 20, GREEDY, ["\n"])
    assert (line.text, line.finish_reason) == ("the cat sat on", "stop")


def test_an_end_symbol_without_text_ends_the_text():
    cls = TOKENIZERS["bpe"]
    tok = cls.train(cls.Config.parse({"name": "bpe", "size": 260}), [b"abc abc abc\n"])
    words = tok.encode("abc abc")
    assert tok.end_id is not None
    (got,) = generate(Reciter([*words, tok.end_id], tok.vocab_size), tok, [""], 50, GREEDY, ["cX"])
    assert (got.text, got.finish_reason) == ("abc abc", "end")
    assert got.tokens == [*words, tok.end_id]
    assert got.log_prob == pytest.approx(len(got.tokens) * math.log(0.9))


def test_finished_rows_leave_the_batch():
    class Watched(Reciter):
        sizes: list[int] = []

        def observe(self, state: Tensor, ids: Tensor) -> Tensor:
            self.sizes.append(len(state))
            assert len(ids) == len(state)
            return super().observe(state, ids)

    tok = ByteTokenizer()
    watched = Watched(list(b"x"), 256)
    sampler = SamplerConfig.parse({"temperature": 3.0})
    done = generate(watched, tok, ["", ""], 60, sampler, ["x"], samples=3)
    assert {one.finish_reason for one in done} == {"stop"}
    longest = max(len(one.tokens) for one in done)
    assert len(watched.sizes) == longest - 1
    assert watched.sizes == [sum(len(one.tokens) > n for one in done) for n in range(1, longest)]


def test_refusals(predictor, tokenizer):
    model = predictor()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"samples": 0}, "samples must be at least 1"),
        ({"stop": ["a", ""]}, "empty"),
        ({"prompts": []}, "no prompt"),
        ({"prompts": ["abc", "Zebra"]}, "not in the vocabulary"),
    ]
    for options, message in cases:
        with pytest.raises(UsageError, match=message):
            stream(model, tokenizer, **options)
    with pytest.raises(UnrolledError, match="256"):
        stream(model, ByteTokenizer())
    with torch.no_grad():
        model.model.head.bias[0] = math.nan
    with pytest.raises(UnrolledError, match="finite"):
        generate(model, tokenizer)
