"""The table of named corpora and the corpora that come with Python."""

import dataclasses
import gzip
import re

import pytest

from unrolled.core.errors import UsageError
from unrolled.data import CorpusConfig, list_corpora, open_corpus
from unrolled.data.spec import SPLITS, FileSpec
from unrolled.data.table import CORPORA


@pytest.mark.parametrize("name", CORPORA)
def test_every_row_is_complete(name: str):
    spec = CORPORA[name]
    assert spec.name == name
    assert spec.description
    assert spec.licence.endswith(".")
    assert spec.splits[0] == "train"
    assert set(spec.files) <= {*SPLITS, "all"}
    assert bool(spec.embedded) != bool(spec.folder and spec.files)
    assert ("all" in spec.files) == (spec.cut is not None)
    for file in spec.files.values():
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
        assert file.md5 is None or re.fullmatch("[0-9a-f]{32}", file.md5)
    for download in spec.downloads:
        wanted = next(file for file in spec.files.values() if file.names[0] == download.file)
        assert wanted.sha256 or wanted.md5, "an address without a checksum proves nothing"


def test_prefixes_say_that_they_compare_with_nothing():
    for name in ("text8-prefix", "enwik8-prefix", "lm1b-heldout-sample"):
        assert "no number is comparable with a published one" in CORPORA[name].description


def test_list_has_every_corpus_and_where_it_was_found():
    rows = {row["name"]: row for row in list_corpora()}
    assert list(rows) == list(CORPORA)
    assert rows["pydoc"]["found"] == "with Python"
    assert rows["ptb"]["found"] is None


@pytest.mark.parametrize("name", ["pydoc", "stdlib"])
def test_embedded_corpora_need_nothing_and_are_the_same_each_time(name: str):
    corpus = open_corpus(name)
    sizes = {split: corpus.size(split) for split in corpus.splits}
    total = sum(sizes.values())
    assert 300_000 < total <= 10_000_000
    assert sizes["valid"] / total == pytest.approx(0.05, abs=0.03)
    assert sizes["test"] / total == pytest.approx(0.05, abs=0.03)
    assert corpus.documents("train") > 20
    names = [part.name for split in corpus.splits for part in corpus.parts(split)]
    assert len(set(names)) == len(names)
    assert corpus.fingerprint() == open_corpus(name).fingerprint()
    assert all(piece.data.endswith(b"\n") for piece in corpus.pieces("valid", text=True))


def test_the_benchmark_of_a_billion_words_keeps_its_test_shard_apart(tmp_path, monkeypatch):
    monkeypatch.setenv("UNROLLED_DATA", str(tmp_path))
    train = tmp_path / "lm1b" / "training-monolingual.tokenized.shuffled"
    held = tmp_path / "lm1b" / "heldout-monolingual.tokenized.shuffled"
    train.mkdir(parents=True)
    held.mkdir()
    for number in (1, 2):
        (train / f"news.en-{number:05d}-of-00100").write_text(f"train {number}\n")
    for number in (0, 1, 2):
        (held / f"news.en.heldout-{number:05d}-of-00050").write_text(f"held {number}\n")
    corpus = open_corpus("lm1b")
    text = {split: b"".join(corpus.blocks(split)) for split in corpus.splits}
    assert text == {"train": b"train 1\ntrain 2\n", "valid": b"held 1\nheld 2\n", "test": b"held 0\n"}
    assert corpus.reset == "line"


def test_files_are_found_under_other_published_names_and_in_the_cache(tmp_path):
    folder = tmp_path / "cache" / "corpora" / "mwc-fi" / "wiki_fi" / "ptb_format_large"
    folder.mkdir(parents=True)
    for short in ("tr", "va", "te"):
        (folder / f"wiki_fi.{short}.raw.unk").write_text(f"{short}\n")
    corpus = open_corpus("mwc-fi")
    assert [b"".join(corpus.blocks(split)) for split in SPLITS] == [b"tr\n", b"va\n", b"te\n"]
    named = open_corpus(CorpusConfig(name="mwc-fi", path=str(folder)))
    assert named.fingerprint() == corpus.fingerprint()
    assert named.default_tokenizer == "char"


def test_one_file_is_cut_at_the_published_bytes(tmp_path, monkeypatch):
    spec = CORPORA["enwik8"]
    assert spec.cut is not None
    assert sum(spec.cut) == spec.files["all"].size == 100_000_000
    small = dataclasses.replace(spec, cut=(90, 5, 5), files={"all": FileSpec(("enwik8",), size=100)})
    monkeypatch.setitem(CORPORA, "enwik8", small)
    folder = tmp_path / "cache" / "corpora" / "enwik8"
    folder.mkdir(parents=True)
    data = bytes(range(100))
    (folder / "enwik8.gz").write_bytes(gzip.compress(data))
    corpus = open_corpus("enwik8")
    text = {split: b"".join(corpus.blocks(split)) for split in corpus.splits}
    assert text == {"train": data[:90], "valid": data[90:95], "test": data[95:]}
    (folder / "enwik8.gz").write_bytes(gzip.compress(data[:99]))
    with pytest.raises(UsageError, match=r"enwik8\.gz has 99 bytes where enwik8 has 100: it is cut off"):
        open_corpus("enwik8")
