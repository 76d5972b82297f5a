"""A corpus as tokens in files of a bounded size."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data import CorpusConfig, open_corpus
from unrolled.data.built import BuiltCorpus
from unrolled.tokenizer import TOKENIZERS
from unrolled.tokenizer.build import build_corpus
from unrolled.tokenizer.encode import encode_corpus, load_or_train_tokenizer

TEXT = "the cat sat on the mat\nthe dog sat on the log\n\nbut a rare word is lost\n" * 9


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "text").mkdir()
    for split in ("train", "valid", "test"):
        (tmp_path / "text" / f"{split}.txt").write_text(TEXT if split == "train" else "the cat is lost\n" * len(split))
    return tmp_path / "text"


def config(path: Path, **options: Any) -> CorpusConfig:
    return CorpusConfig.parse({"path": str(path), **options})


@pytest.mark.parametrize("tokenizer", ["char", "byte", "word"])
@pytest.mark.parametrize("reset", ["none", "line"])
@pytest.mark.parametrize("shard", [1, 37, 100, 10**6])
def test_it_reads_as_its_text(tokenizer: str, reset: str, shard: int, text: Path, tmp_path: Path) -> None:
    wanted = TOKENIZERS.parse(tokenizer)
    corpus = open_corpus(config(text, reset=reset))
    made = load_or_train_tokenizer(wanted, corpus)
    whole = encode_corpus(corpus, made, tmp_path / "cache")
    index = build_corpus(corpus, tmp_path / "built", wanted, shard)
    built = open_corpus(config(tmp_path / "built"))
    assert isinstance(built, BuiltCorpus)
    assert load_or_train_tokenizer(TOKENIZERS.parse(built.default_tokenizer), built).fingerprint() == made.fingerprint()
    found = encode_corpus(built, made)
    assert tuple(found) == corpus.splits == built.splits
    draw = np.random.default_rng(1)
    for split, tokens in found.items():
        other = whole[split]
        sizes = [file.tokens for file in index.splits[split].ids]  # type: ignore[index]
        assert max(sizes) <= shard
        assert sum(sizes) == len(tokens) == len(other)
        for _ in range(20):
            low, high = sorted(draw.integers(0, len(tokens) + 1, 2).tolist())
            assert np.array_equal(tokens.ids(low, high), other.ids(low, high))
            assert tokens.units(low, high) == other.units(low, high)
        assert tokens.checksum == other.checksum == built.checksum(split)
        assert (built.size(split), built.documents(split)) == (corpus.size(split), corpus.documents(split))
        assert (tokens.starts is None) == (other.starts is None)
        if tokens.starts is not None and other.starts is not None:
            assert np.array_equal(tokens.starts, other.starts)


def built_at(text: Path, tmp_path: Path) -> Path:
    build_corpus(open_corpus(config(text)), tmp_path / "built", TOKENIZERS.parse("char"), 100)
    return tmp_path / "built"


def test_a_file_is_checked_when_it_is_read(text: Path, tmp_path: Path) -> None:
    folder = built_at(text, tmp_path)
    second = folder / "train.ids-00001.bin"
    second.write_bytes(bytes(100))
    corpus = open_corpus(config(folder))
    train = encode_corpus(corpus, load_or_train_tokenizer(TOKENIZERS.parse("char"), corpus))["train"]
    assert len(train.ids(0, 100)) == 100  # of the first, which is whole
    assert len(train.ids(200, 250)) == 50
    with pytest.raises(UnrolledError, match=r"train\.ids-00001\.bin is damaged"):
        train.ids(99, 101)
    second.unlink()
    with pytest.raises(UnrolledError, match="bring that file back"):
        train.ids(150, 151)


def test_refusals(text: Path, tmp_path: Path) -> None:
    folder = built_at(text, tmp_path)
    corpus = open_corpus(config(folder))
    with pytest.raises(UsageError, match="was built with another tokenizer"):
        load_or_train_tokenizer(TOKENIZERS.parse("byte"), corpus)
    with pytest.raises(UsageError, match="holds tokens of another tokenizer"):
        encode_corpus(corpus, load_or_train_tokenizer(TOKENIZERS.parse("byte"), open_corpus(config(text))))
    with pytest.raises(UsageError, match="holds the tokens of a text and not the text itself"):
        list(corpus.blocks("train"))
    with pytest.raises(UsageError, match=r"built with corpus\.reset=none"):
        open_corpus(config(folder, reset="line"))
    with pytest.raises(UsageError, match="in splits; name one of them"):
        open_corpus(config(folder), whole=True)
    with pytest.raises(UsageError, match="is there already"):
        build_corpus(open_corpus(config(text)), folder)
    with pytest.raises(UsageError, match="is built already"):
        build_corpus(corpus, tmp_path / "again")
    assert open_corpus(config(folder, splits=["train"])).splits == ("train",)
    with pytest.raises(UsageError, match="has no split 'test'"):
        open_corpus(config(folder, splits=["train"])).checksum("test")
    value = json.loads((folder / "index.json").read_text())
    value["splits"]["train"]["ids"][0]["tokens"] = -1
    (folder / "index.json").write_text(json.dumps(value))
    with pytest.raises(UnrolledError, match=r"index\.json is damaged or of another release"):
        open_corpus(config(folder))


def test_what_was_half_built_is_not_there(text: Path, tmp_path: Path) -> None:
    (text / "train.txt").write_bytes(b"\xff" * 50)
    with pytest.raises(UsageError):
        build_corpus(open_corpus(config(text)), tmp_path / "built", TOKENIZERS.parse("char"))
    assert not (tmp_path / "built").exists()
    assert not list(tmp_path.glob(".built*"))
