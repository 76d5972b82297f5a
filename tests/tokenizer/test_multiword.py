"""Tokens of several words."""

import itertools
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
import torch

from tokenizer.trained import TRAIN, tokenizer, trained
from unrolled.core.errors import UsageError
from unrolled.data import CorpusConfig, open_corpus
from unrolled.runs.vocabulary import extend_rows
from unrolled.tokenizer import TOKENIZERS
from unrolled.tokenizer.encode import load_or_train_tokenizer
from unrolled.tokenizer.multiword import MultiWordConfig, MultiWordTokenizer


def drawn_text(lines: int = 300) -> bytes:
    draw = np.random.default_rng(0)
    words = [f"w{i}" for i in range(9)]
    return b"".join((" ".join(draw.choice(words, draw.integers(0, 8))) + "\n").encode() for _ in range(lines))


def test_sequences_are_the_most_frequent_ones_of_the_lines():
    text, counts = drawn_text(), Counter[tuple[str, ...]]()
    for line in text.decode().split("\n"):
        words = line.split()
        for n in (2, 3):
            counts.update(tuple(words[i : i + n]) for i in range(len(words) - n + 1))
    tok = trained({"name": "multiword", "k": 40, "base": {"name": "word", "min_count": 1}}, [text])
    assert isinstance(tok, MultiWordTokenizer)
    named = [tuple(tok.base.token(one) for one in ids) for ids in tok.sequences]
    assert [counts[one] for one in named] == [count for _, count in counts.most_common(40)]
    assert len(set(named)) == 40
    assert tok.token(tok.base.vocab_size) == " ".join(named[0])
    assert tok.find(" ".join(named[0])) == tok.base.vocab_size


@pytest.mark.parametrize("key", ["multiword", "multiword-bpe"])
def test_ids_are_those_of_a_slow_loop(key: str):
    tok = tokenizer(key)
    assert isinstance(tok, MultiWordTokenizer)
    begins, joined = tok._borders.of, 0
    texts = [TRAIN[:n].decode(errors="ignore") for n in range(0, 160, 7)] + ["the end the cat on the mat", ""]
    for text in texts:
        ids = tok.base.encode(text)
        edges, known = set(np.flatnonzero(begins(np.array(ids, np.int64))).tolist()), set(tok.sequences)
        made, at = [], 0
        while at < len(ids):
            stops = [b for b in range(len(ids), at + 1, -1) if b in edges and tuple(ids[at:b]) in known]
            if at in edges and stops:
                made.append(tok.base.vocab_size + tok.sequences.index(tuple(ids[at : stops[0]])))
                at = stops[0]
            else:
                made.append(ids[at])
                at += 1
        assert tok.encode(text) == made
        joined += len(ids) - len(made)
    assert joined


@pytest.mark.parametrize("key", ["multiword", "multiword-bpe"])
def test_text_and_units_are_those_of_the_base(key: str):
    tok = tokenizer(key)
    assert isinstance(tok, MultiWordTokenizer)
    text = TRAIN.decode() + "the zebra sat , on the mat"
    assert tok.decode(tok.encode(text, end=True)) == tok.base.decode(tok.base.encode(text, end=True))
    own, base = (one.units_of(one.encode_exact(text, end=True)) for one in (tok, tok.base))
    assert own[1:] == base[1:]
    assert own.tokens < base.tokens
    ends = {index for index, piece in enumerate(tok.base.pieces) if b"\n" in piece or index == tok.unk_id}
    assert not any(ends.intersection(ids) for ids in tok.sequences)


def test_longer_vocabularies_make_shorter_texts():
    sizes = []
    for k in (0, 5, 40):
        tok = trained({"name": "multiword", "k": k, "base": {"name": "word", "min_count": 1}}, [drawn_text()])
        assert tok.vocab_size == 11 + k - 1
        sizes.append(len(tok.encode(drawn_text(900).decode())))
    assert sizes == sorted(set(sizes), reverse=True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["ptb", "wikitext-2"])
@pytest.mark.parametrize("base", ["word", "bpe"])
def test_ten_thousand_lines_come_back(name: str, base: str, real: Callable[[str], None]):
    real(name)
    corpus = open_corpus(CorpusConfig(name=name))
    text = b"".join(itertools.islice(corpus.blocks("train"), 40)).decode()
    lines = [line + "\n" for line in text.split("\n")[:10_000]]
    lengths = []
    for k in (0, 100, 1000):
        tok = load_or_train_tokenizer(TOKENIZERS.parse({"name": "multiword", "base": base, "k": k}), corpus)
        assert isinstance(tok, MultiWordTokenizer)
        for line in lines:
            assert tok.decode(tok.encode(line)) == (line if base == "bpe" else tok.base.decode(tok.base.encode(line)))
        lengths.append(sum(len(tok.encode(line)) for line in lines))
    assert lengths[0] > lengths[1] > lengths[2]


def test_a_row_is_the_mean_of_its_parts():
    rows = {"table": torch.randn(5, 3), "other": torch.randn(4, 3), "bias": torch.randn(5)}
    shapes = {"table": (7, 3), "other": (4, 3), "bias": (7,)}
    made = extend_rows(rows, shapes, [(0, 3), (4, 4, 1)], 5)
    for name in ("table", "bias"):
        torch.testing.assert_close(made[name][:5], rows[name], rtol=0, atol=0)
        value = rows[name].double()
        expected = torch.stack([(value[0] + value[3]) / 2, (2 * value[4] + value[1]) / 3]).float()
        torch.testing.assert_close(made[name][5:], expected, rtol=0, atol=1e-7)
    assert made["other"] is rows["other"]
    with pytest.raises(UsageError, match="no matrix with a row a token"):
        extend_rows({"table": torch.randn(3, 5)}, {"table": (3, 7)}, [(0, 1), (1, 2)], 5)
    with pytest.raises(UsageError, match="another parameter more"):
        extend_rows(rows, {**shapes, "more": (1,)}, [(0, 3), (4, 1)], 5)


def test_a_base_without_words_is_refused():
    for name in ("number", "multiword"):
        with pytest.raises(UsageError, match="stand above one of byte, char, word, bpe, unigram"):
            MultiWordConfig.parse({"base": name})
