"""Tokenizers in the form of transformers: ids, text, special tokens, padding."""

import random

import pytest
from transformers import AutoTokenizer

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.serve.hf.tokenizers import ENGINES, fast_tokenizer, specials
from unrolled.tokenizer import TOKENIZERS
from unrolled.tokenizer.number import NumberConfig, NumberTokenizer

TEXT = "the cat sat on the mat\n\nthe dog , a naïve one , sat  too\n" * 8 + " odd\tblanks \n"
CONFIGS = [
    {"name": "byte"},
    {"name": "byte", "values": "seen"},
    {"name": "char"},
    {"name": "char", "unknown": "unk"},
    {"name": "word", "min_count": 9},
    {"name": "word", "order": "frequency"},
    {"name": "symbols"},
    {"name": "bpe", "size": 280},
    {"name": "bpe", "size": 280, "end": "line"},
    {"name": "unigram", "size": 270},
    {"name": "unigram", "size": 270, "end": "line"},
]
CASES = pytest.mark.parametrize("config", CONFIGS, ids=lambda config: "-".join(map(str, config.values())))


def made(config):
    parsed = TOKENIZERS.parse(config)
    return TOKENIZERS[parsed.name].train(parsed, [TEXT.encode()])


def texts():
    """Texts of known pieces in any order, with blanks and line ends anywhere."""
    draw = random.Random(0)
    pieces = [*TEXT.split(), " ", "\n", "\n\n", "  ", "e", "ï", "xyz", "\t"]
    odd = ["".join(draw.choice(pieces) for _ in range(12)) for _ in range(200)]
    return [TEXT, "", *odd, *(draw.choice([" ", "\n", "  "]).join(draw.choices(TEXT.split(), k=9)) for _ in range(40))]


def test_tokens_of_several_words_are_refused():
    with pytest.raises(UsageError, match="have no form of transformers"):
        fast_tokenizer(made({"name": "multiword", "k": 3}))


def test_every_kind_has_an_engine():
    assert set(ENGINES) == set(TOKENIZERS)


def test_numbers(tmp_path):
    own = NumberTokenizer(NumberConfig(base=10, digits=3, exponent=2))
    fast_tokenizer(own).save_pretrained(tmp_path)
    fast = AutoTokenizer.from_pretrained(tmp_path)
    for y in (0.5, -31.4, 1e-30):
        text = own.decode(own.encode_number(y)) + "\n"
        assert fast(text)["input_ids"] == [specials(own).start, *own.encode(text)]


@CASES
def test_ids_and_text_are_ours(config, tmp_path):
    own, ids = made(config), specials(made(config))
    fast_tokenizer(own).save_pretrained(tmp_path)
    fast, read, refused = AutoTokenizer.from_pretrained(tmp_path), 0, 0
    assert (len(fast), fast.padding_side) == (own.vocab_size + 2, "left")
    assert (fast.pad_token_id, fast.bos_token_id, fast.eos_token_id) == (ids.pad, ids.start, ids.end)
    for text in texts():
        try:
            expected = own.encode(text)
        except UsageError:
            with pytest.raises(Exception, match="UNK"):
                fast(text)
            refused += 1
            continue
        assert fast(text)["input_ids"] == [ids.start, *expected]
        assert fast.decode([ids.start, *expected], skip_special_tokens=True) == own.decode(expected)
        read += 1
    assert read > 30
    assert bool(refused) == (getattr(own, "unk_id", None) is None and own.kind in ("char", "word", "symbols"))


@CASES
def test_a_batch_is_padded_at_the_left(config):
    own = made(config)
    batch = fast_tokenizer(own)(["the cat", "the cat sat on the"], padding=True)
    lengths = [len(own.encode(text)) + 1 for text in ("the cat", "the cat sat on the")]
    assert [sum(row) for row in batch["attention_mask"]] == lengths
    assert batch["attention_mask"][0][0] == 0
    assert batch["input_ids"][0][0] == own.vocab_size


def test_another_encoding_is_noticed(monkeypatch):
    own = made({"name": "char"})
    monkeypatch.setitem(ENGINES, "char", ENGINES["word"])
    with pytest.raises(UnrolledError, match=r"would read .* otherwise"):
        fast_tokenizer(own)
    monkeypatch.delitem(ENGINES, "char")
    with pytest.raises(UsageError, match="kind char has no form of transformers"):
        fast_tokenizer(own)
