"""Checks of corpora, and the published counts of those on this machine."""

import dataclasses
import hashlib
import json
import math
from pathlib import Path

import pytest

from unrolled.core.errors import UsageError
from unrolled.data import open_corpus
from unrolled.data.spec import CorpusSpec, FileSpec, Published
from unrolled.data.table import CORPORA
from unrolled.tokenizer import TOKENIZERS
from unrolled.tokenizer.check import check_corpus
from unrolled.tokenizer.encode import encode_corpus, load_or_train_tokenizer

TRAIN, VALID = b"a b <unk> a\n\n", b"a a\n"


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> CorpusSpec:
    folder = tmp_path / "cache" / "corpora" / "small"
    folder.mkdir(parents=True)
    (folder / "a").write_bytes(TRAIN)
    (folder / "b").write_bytes(VALID)
    # Of 6 training tokens 2 are a and 2 are end symbols.
    spec = CorpusSpec(
        name="small",
        description="d",
        licence="l.",
        folder="small",
        files={
            "train": FileSpec(("a",), hashlib.sha256(TRAIN).hexdigest()),
            "valid": FileSpec(("b",), md5=hashlib.md5(VALID).hexdigest()),
        },
        tokenizer="word",
        published={"train": Published(2, 6, 4), "valid": Published(1, 3, 2, 3.0)},
    )
    monkeypatch.setitem(CORPORA, "small", spec)
    return spec


def test_a_corpus_as_published_passes(small: CorpusSpec):
    found = check_corpus("small")
    assert found["ok"]
    assert [file["status"] for file in found["files"]] == ["ok", "ok"]
    assert found["splits"]["train"]["words"] == 6
    assert found["splits"]["valid"]["unigram"] == pytest.approx(3.0)
    assert found["splits"]["train"]["characters"] == len(TRAIN)
    json.dumps(found, allow_nan=False)


@pytest.mark.parametrize(
    ("published", "differs"),
    [
        (Published(1, 3, 2, 3.001), ["unigram"]),
        (Published(2, 3), ["lines"]),
        (Published(1, 4), ["tokens"]),
        (Published(types=3), ["types"]),
    ],
)
def test_counts_that_differ_are_named(small: CorpusSpec, monkeypatch, published: Published, differs: list[str]):
    monkeypatch.setitem(CORPORA, "small", dataclasses.replace(small, published={"valid": published}))
    found = check_corpus("small")
    assert not found["ok"]
    assert found["splits"]["valid"]["differs"] == differs


def test_a_changed_file_is_a_mismatch_and_a_new_word_has_no_figure(small: CorpusSpec, tmp_path: Path, monkeypatch):
    monkeypatch.setitem(CORPORA, "small", dataclasses.replace(small, tokenizer="byte", published={}))
    (tmp_path / "cache" / "corpora" / "small" / "b").write_bytes(b"a c\n")
    found = check_corpus("small")
    assert [file["status"] for file in found["files"]] == ["ok", "mismatch"]
    assert not found["ok"]
    assert found["splits"]["valid"]["unigram"] is None
    assert found["splits"]["train"]["unigram"] > 0


def test_what_cannot_be_checked(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UsageError, match="did you mean 'ptb'"):
        check_corpus("ptbb")
    with pytest.raises(UsageError, match="unrolled corpora get ptb"):
        check_corpus("ptb")
    assert check_corpus("pydoc")["ok"]


EXPECTED = {
    "ptb": {"valid": (73_760, 73_760, 687.0263), "test": (82_430, 82_430, 639.3008)},
    "ptb-char": {"valid": (393_042, 73_760, 4.33622), "test": (442_423, 82_430, 4.34588)},
    "ptb-char-raw": {"valid": (399_782, 73_760, None), "test": (449_945, 82_430, None)},
    "wikitext-2": {"valid": (217_646, 217_646, 965.0861), "test": (245_569, 245_569, 911.7051)},
    "lm1b-heldout-sample": {"train": (322_706, 322_706, None)},
    "tinyshakespeare": {},
    "text8-prefix": {},
    "enwik8-prefix": {},
}


@pytest.mark.parametrize("name", EXPECTED)
def test_real_corpora_have_the_published_counts(name: str, real):
    real(name)
    found = check_corpus(name)
    assert found["ok"], found
    assert {file["status"] for file in found["files"]} == {"ok"}
    for split, (tokens, words, unigram) in EXPECTED[name].items():
        row = found["splits"][split]
        assert (row["tokens"], row["words"]) == (tokens, words)
        if unigram is not None:
            assert math.isclose(row["unigram"], unigram, rel_tol=2e-6)


def test_the_vocabularies_of_the_benchmarks(real):
    real("ptb")
    corpus = open_corpus("ptb")
    tok = load_or_train_tokenizer(TOKENIZERS.parse("word"), corpus)
    assert (tok.vocab_size, tok.end_id) == (10_000, 24)
    assert encode_corpus(corpus, tok)["test"].units().characters == 442_423, "as many as in the character files"
    real("wikitext-2")
    corpus = open_corpus("wikitext-2")
    tok = load_or_train_tokenizer(TOKENIZERS.parse("word"), corpus)
    assert (tok.vocab_size, tok.end_id) == (33_278, 0)
