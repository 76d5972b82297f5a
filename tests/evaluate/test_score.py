"""Surprisal of words: every token in one row, sums equal to the evaluation's, distributions by hand."""

import math
from typing import Any

import pytest
import torch

from evaluate.scored import TEXT, TOKENIZER, make_model, make_tokenizer, rows
from unrolled.data import TokenSplit
from unrolled.data.plain import BLANKS
from unrolled.evaluate import EvalConfig, evaluate_predictor
from unrolled.predict import (
    NeuralPredictor,
    Predictor,
)
from unrolled.tokenizer import TOKENIZERS, Tokenizer


def split_of(tokenizer: Tokenizer, text: str) -> TokenSplit:
    encoded = tokenizer.encode_exact(text, end=True)
    return TokenSplit(encoded.ids, tokenizer.tables)


@pytest.fixture(params=TOKENIZER)
def both(request: pytest.FixtureRequest) -> tuple[Predictor, Tokenizer]:
    tokenizer = make_tokenizer(request.param)
    return NeuralPredictor(make_model(tokenizer.vocab_size), tokenizer.start_id), tokenizer


def by_hand(predictor: Predictor, tokenizer: Tokenizer, text: str) -> list[tuple[int, torch.Tensor]]:
    """Every token of the closed text and the distribution that it comes from, step by step."""
    state, found = predictor.begin(1), []
    for token in tokenizer.encode(text, end=True):
        found.append((token, predictor.predict(state).log_prob[0]))
        state = predictor.observe(state, torch.tensor([token]))
    return found


def test_words_cover_the_text(both):
    """One row a word and a line end, in order, at the place where the text has it."""
    found = rows(*both)
    words = [one for one in found if one.unit.kind == "word"]
    assert [one.text for one in words] == TEXT.split()
    for one in words:
        assert TEXT[one.offset : one.offset + len(one.text)] == one.text
        line = TEXT.split("\n")[one.unit.line - 1]
        assert line.split()[one.unit.index - 1] == one.text
    assert sum(one.text == "\n" for one in found) == TEXT.count("\n")
    assert sum(one.tokens for one in found) == len(both[1].encode(TEXT, end=True))


@pytest.mark.parametrize("reset", ["none", "line"])
@pytest.mark.parametrize("text", [TEXT, TEXT + "\n", TEXT + "  ", "\n\nsat", "a"], ids=range(5))
def test_the_sum_is_the_evaluations(both, reset, text):
    predictor, tokenizer = both
    wanted = evaluate_predictor(
        predictor, split_of(tokenizer, text), EvalConfig(reset="lines" if reset == "line" else "corpus")
    )
    for config in ({}, {"window": 3}, {"entropy": True}, {"unit": "token"}):
        found = rows(predictor, tokenizer, text, reset=reset, **config)
        assert sum(one.nats for one in found) == pytest.approx(wanted.nats, rel=1e-12)
        assert sum(one.tokens for one in found) == wanted.tokens
    if reset == "line" and text == TEXT:
        assert wanted.nats != pytest.approx(sum(one.nats for one in rows(predictor, tokenizer, text)), rel=1e-6)


def test_a_words_own_tokens(both):
    """The surprisal of a word is that of its tokens, its spaces' among them; so it is written down by hand."""
    predictor, tokenizer = both
    steps = by_hand(predictor, tokenizer, TEXT)
    nats = [-float(log_prob[token]) for token, log_prob in steps]
    tokens = rows(predictor, tokenizer, unit="token")
    assert [one.nats for one in tokens] == pytest.approx(nats, rel=1e-9)
    assert [one.text for one in tokens] == [tokenizer.token(token) for token, _ in steps]
    low = 0
    for word in rows(predictor, tokenizer):
        mine = slice(low, low + word.tokens)
        assert word.nats == pytest.approx(sum(nats[mine]), rel=1e-9)
        assert all(one.unit == word.unit for one in tokens[mine])
        if not tokenizer.tables.implied.any():
            text = b"".join(tokenizer.pieces[token] for token, _ in steps[mine])
            assert text.strip(BLANKS).decode() in (word.text, "", "\n")
        low += word.tokens
    assert low == len(nats)


def test_measures_of_distributions(both):
    predictor, tokenizer = both
    steps = by_hand(predictor, tokenizer, TEXT)
    found = rows(predictor, tokenizer, unit="token", entropy=True, rank=True, top_k=3, window=7)
    for one, (token, log_prob) in zip(found, steps, strict=True):
        assert one.entropy == pytest.approx(-float((log_prob.exp() * log_prob).sum()), rel=1e-9)
        assert one.rank == 1 + sum(value > log_prob[token] for value in log_prob.tolist())
        best = sorted(range(len(log_prob)), key=lambda index: -float(log_prob[index]))[:3]
        assert one.top is not None
        assert [name for name, _ in one.top] == [tokenizer.token(index) for index in best]
        assert [p for _, p in one.top] == pytest.approx([math.exp(float(log_prob[index])) for index in best])
    low = 0
    for word in rows(predictor, tokenizer, entropy=True, rank=True, top_k=3):
        first = found[low]
        assert (word.rank, word.entropy) == (first.rank, pytest.approx(first.entropy))
        low += word.tokens


def test_word_ends_counted_to_the_word(both):
    """Each word's probability under the trailing convention, from the distributions themselves."""
    predictor, tokenizer = both
    steps = by_hand(predictor, tokenizer, TEXT)
    opening = [
        bool(tokenizer.tables.implied[index]) or (not piece or piece[0] in BLANKS + b"\n")
        for index, piece in enumerate(tokenizer.pieces)
    ]
    ended = [-math.log(sum(math.exp(float(p)) for p, o in zip(log, opening, strict=True) if o)) for _, log in steps]
    state = predictor.begin(1)
    for token, _ in steps:
        state = predictor.observe(state, torch.tensor([token]))
    last = predictor.predict(state).log_prob[0].exp()
    ended.append(-math.log(sum(float(p) for p, o in zip(last, opening, strict=True) if o)))
    leading, trailing = rows(predictor, tokenizer), rows(predictor, tokenizer, boundary="trailing", window=5)
    low, joined = 0, False
    for one, other in zip(leading, trailing, strict=True):
        high = low + one.tokens
        wanted = one.nats - (ended[low] if joined else 0) + (ended[high] if one.unit.kind == "word" else 0)
        assert other.nats == pytest.approx(wanted, rel=1e-9, abs=1e-12)
        assert other.nats > -1e-12
        low, joined = high, one.unit.kind == "word"
    sums = [sum(one.nats for one in each) for each in (leading, trailing)]
    open_end = ended[-1] if leading[-1].unit.kind == "word" else 0.0
    assert sums[1] == pytest.approx(sums[0] + open_end, rel=1e-9)
    if tokenizer.kind in ("byte", "char"):
        assert leading[0].nats != pytest.approx(trailing[0].nats, rel=1e-3)


def test_trailing_probabilities_of_words_sum_to_one():
    """Over all words of up to one letter after a word, and all that are longer: a proper distribution over words.

    The same sum of the leading convention does not reach one, since part of it is the last word's own end.
    """
    cls = TOKENIZERS["char"]
    tokenizer = cls.train(cls.Config.parse({"name": "char"}), [b"ab \n"])
    predictor = NeuralPredictor(make_model(tokenizer.vocab_size), tokenizer.start_id)

    def last(word: str, **config: Any) -> float:
        return math.exp(-next(one for one in rows(predictor, tokenizer, f"ab {word} a\n", **config)[1:]).nats)

    def longer(first: str, second: str) -> float:
        """P(the next word begins with two letters | the word before has ended)."""
        steps = by_hand(predictor, tokenizer, f"ab {first}{second}")
        space, end = tokenizer.find(" "), tokenizer.find("\n")
        after = steps[2][1].exp()
        ended = float(after[space] + after[end])
        p = math.prod(math.exp(float(log[token])) for token, log in steps[2:])
        return p / ended

    short = sum(last(word, boundary="trailing") for word in "ab")
    long = sum(longer(first, second) for first in "ab" for second in "ab")
    steps = by_hand(predictor, tokenizer, "ab\n")
    after = steps[2][1].exp()
    ended = float(after[tokenizer.find(" ")] + after[tokenizer.find("\n")])
    line_end = float(after[steps[2][0]]) / ended
    spaces = []  # a further space, or a line end after the space
    for sign in " \n":
        steps = by_hand(predictor, tokenizer, f"ab {sign}")
        spaces.append(math.exp(sum(float(log[token]) for token, log in steps[2:])) / ended)
    assert short + long + line_end + sum(spaces) == pytest.approx(1, rel=1e-9)


@pytest.mark.parametrize("reset", ["line", "document"])
def test_the_state_restarts(both, reset):
    """What stands after a restart scores as at the beginning of a text."""
    predictor, tokenizer = both
    text = "A cat sat\non the mat.\n\nThe dogs\nThe cat\n"
    if tokenizer.kind == "char":
        text = text.replace("dogs", "cats")
    found = rows(predictor, tokenizer, text, reset=reset)
    pieces = {"line": ["A cat sat\n", "on the mat.\n", "\n", text.split("\n")[3] + "\n", "The cat\n"],
              "document": ["A cat sat\non the mat.\n\n", text.split("\n")[3] + "\nThe cat\n"]}[reset]  # fmt: skip
    alone = [one for piece in pieces for one in rows(predictor, tokenizer, piece) if one.text]
    assert [one.nats for one in found if one.text] == pytest.approx([one.nats for one in alone], rel=1e-9)
    carried = [one.nats for one in rows(predictor, tokenizer, text) if one.text]
    assert carried != pytest.approx([one.nats for one in alone], rel=1e-6)


def test_unknown_words_are_marked():
    tokenizer = make_tokenizer("word")
    predictor = NeuralPredictor(make_model(tokenizer.vocab_size), tokenizer.start_id)
    found = {one.text: one.unknown for one in rows(predictor, tokenizer, "The zebra <unk>\n")}
    assert found == {"The": False, "zebra": True, "<unk>": True, "\n": False}
