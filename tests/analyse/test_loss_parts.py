"""The division of the loss: it leaves no remainder, and each token is where a loop over the text would put it."""

import math
import re
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from unrolled.analyse import (
    CATEGORIES,
    LossPartsConfig,
    Memory,
    Passage,
    PassageText,
    loss_parts,
    loss_parts_record,
    passage_text,
    token_kinds,
)
from unrolled.counts import KneserNeyConfig, estimate_kneser_ney
from unrolled.predict import KneserNeyPredictor, NeuralPredictor
from unrolled.tokenizer import TOKENIZERS, Tokenizer

Make = Callable[..., NeuralPredictor]

TRAIN = "the cat sat on the mat, the end.\n" * 3 + "it's a big-hat day\n"
TEXT = "the cat's mat (a hat)\n\n  sat: éa the end"


def char(text: str) -> Tokenizer:
    cls = TOKENIZERS["char"]
    return cls.train(cls.Config.parse({"name": "char"}), [text.encode()])


def passage_over(tokenizer: Tokenizer, text: str, starts: tuple[int, ...] = (0,)) -> Passage:
    return Passage(np.array(tokenizer.encode(text)), np.array(starts), {"tokens": len(tokenizer.encode(text))})


def words_of(text: str) -> Counter[bytes]:
    return Counter(word.encode() for word in re.findall(r"[\w']+", text))


def plain_kinds(text: str, words: Counter[bytes], rare: int) -> list[str]:
    """One a character, by looking left and right of each."""

    def of_word(sign: str) -> bool:
        return sign.isalnum() or sign in "'_"

    found = []
    for t, sign in enumerate(text):
        if sign.isspace():
            found.append("space")
            continue
        if not of_word(sign):
            found.append("punctuation")
            continue
        low = high = t
        while low and of_word(text[low - 1]):
            low -= 1
        while high < len(text) and of_word(text[high]):
            high += 1
        if words[text[low:high].encode()] <= rare:
            found.append("rare")
        else:
            found.append("word_start" if low == t else "word_rest")
    return found


@pytest.mark.parametrize("rare", [0, 1, 3, 100])
def test_kinds_of_characters(rare: int) -> None:
    tokenizer = char(TRAIN + TEXT)
    passage = passage_over(tokenizer, TEXT)
    kinds = token_kinds(passage, passage_text(tokenizer, passage), words_of(TRAIN), rare)
    assert [CATEGORIES[kind] for kind in kinds] == plain_kinds(TEXT, words_of(TRAIN), rare)


def test_words_do_not_run_across_texts() -> None:
    tokenizer = char(TRAIN + TEXT)
    passage = passage_over(tokenizer, "thecat", (0, 3))
    kinds = token_kinds(passage, passage_text(tokenizer, passage), words_of(TRAIN), 0)
    expected = ["word_start", "word_rest", "word_rest"] * 2
    assert [CATEGORIES[kind] for kind in kinds] == expected


def test_kinds_of_longer_tokens() -> None:
    """Words with their spaces, pieces of words, a mark without text."""
    text = b"the cat, zz \n!"
    ends = np.array([3, 5, 7, 8, 11, 13, 13, 14])  # the| c|at|,| zz| \n||!
    passage = Passage(np.arange(len(ends)), np.zeros(1, np.int64), {})
    kinds = token_kinds(passage, PassageText(np.frombuffer(text, np.uint8), ends), words_of(TRAIN), 0)
    assert [CATEGORIES[kind] for kind in kinds] == [
        "word_start", "word_start", "word_rest", "punctuation", "rare", "space", "other", "punctuation",
    ]  # fmt: skip


def measured(predictor: Make, **settings: float) -> tuple:
    text = "abba cab\nfeed aha gag lab\nbad cab fig hi" * 8
    tokenizer = char("abcdefghijkl \n")
    model = predictor("lstm")
    train = np.array(tokenizer.encode("bad cab\n" * 30 + "abba aha feed gag\n"))
    estimation = KneserNeyConfig(order=4, sentences="continuous")
    counts = estimate_kneser_ney(train, tokenizer.vocab_size, tokenizer.start_id, estimation)
    memory = Memory(KneserNeyPredictor(counts), words_of("bad cab " * 30 + "abba aha feed gag hi hi hi"), len(train))
    passage = passage_over(tokenizer, text)
    config = LossPartsConfig.parse({"rare": 1, "threshold": 0.3, **settings})
    found = loss_parts(model, passage, passage_text(tokenizer, passage), memory, config)
    return found, config, model, counts, passage, tokenizer, text, memory


def test_the_parts_sum_to_the_whole(predictor: Make) -> None:
    """To the last digit: fsum of all nats, and every token counted once."""
    found, config, *_ = measured(predictor)
    table = found.table()
    assert list(table) == list(CATEGORIES)
    total = math.fsum(found.nats)
    assert math.fsum(part["nats"] for part in table.values()) == pytest.approx(total, abs=1e-9)
    assert sum(part["share"] for part in table.values()) == pytest.approx(1, abs=1e-12)
    assert sum(part["tokens"] for part in table.values()) == len(found.nats)
    counted = math.fsum(part["count_model_nats"] for part in table.values())
    assert counted == pytest.approx(math.fsum(found.count_nats), abs=1e-9)
    assert sum(part["tokens"] > 0 for part in table.values()) >= 6, "most categories occur"
    (run,) = loss_parts_record([found], config)["runs"]
    assert run["nats"] == total
    assert run["categories"] == table


def test_the_first_test_that_holds_decides(predictor: Make) -> None:
    found, _, model, counts, passage, tokenizer, text, memory = measured(predictor)
    kinds = plain_kinds(text, memory.words, 1)
    state, read = model.begin(1), [tokenizer.start_id]
    for t, token in enumerate(passage.ids.tolist()):
        p = math.exp(float(model.predict(state).log_prob[0, token]))
        context = np.array([([0] * 3 + read)[-3:]])
        q = math.exp(float(counts.log_prob(context, np.array([token]), np.array([min(3, len(read))]))[0]))
        expected = "predicted" if p >= 0.3 else "ngram" if q > 0.3 else kinds[t]
        assert CATEGORIES[found.category[t]] == expected, t
        assert found.nats[t] == pytest.approx(-math.log(p), abs=1e-9)
        assert found.count_nats[t] == pytest.approx(-math.log(q), abs=1e-9)
        state = model.observe(state, torch.tensor([token]))
        read.append(token)


def test_the_settings_act(predictor: Make) -> None:
    usual = measured(predictor)[0].table()
    assert measured(predictor, threshold=0.6)[0].table()["predicted"] != usual["predicted"]
    assert measured(predictor, rare=30)[0].table()["rare"]["tokens"] > usual["rare"]["tokens"]
