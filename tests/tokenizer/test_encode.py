"""Token files: exact, typed narrowly, cached by content, safe against other processes and sudden ends."""

import os
import resource
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from train.killing import servers
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.random import RandomStreams
from unrolled.data import Corpus, CorpusConfig, Stream, StreamConfig, TokenSplit, Units, open_corpus
from unrolled.data.tokens import id_type
from unrolled.tokenizer import TOKENIZERS, Tokenizer, encode, save_tokenizer
from unrolled.tokenizer.encode import encode_corpus, load_or_train_tokenizer

LINES = [f" the cat number {n * n} sat\n" if n % 7 else "\n" for n in range(600)]
TEXT = "".join(LINES)


def written(tmp_path: Path, text: bytes = TEXT.encode(), **fields) -> Corpus:
    path = tmp_path / "text.txt"
    path.write_bytes(text)
    return open_corpus(CorpusConfig(path=str(path), **fields))


def tokenizer_for(corpus: Corpus, name: str | dict) -> Tokenizer:
    return load_or_train_tokenizer(TOKENIZERS.parse(name), corpus)


def ids_of(split: TokenSplit) -> np.ndarray:
    return split.ids(0, len(split))


KINDS = ["byte", "char", {"name": "word"}, {"name": "bpe", "size": 300}, {"name": "unigram", "size": 300}]


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("reset", ["none", "document", "line"])
def test_token_files_hold_the_text(tmp_path: Path, kind, reset: str):
    corpus = written(tmp_path, reset=reset)
    tok = tokenizer_for(corpus, kind)
    splits = encode_corpus(corpus, tok)
    assert list(splits) == ["train", "valid", "test"]
    for name, split in splits.items():
        text = b"".join(corpus.blocks(name)).decode()
        ids = ids_of(split)
        assert len(ids) == len(split)
        assert ids.tolist() == tok.encode(text, end=True)
        units = split.units()
        assert units.words == len(text.split()) + text.count("\n")
        size = len(" ".join(text.split(" "))) if tok.kind != "word" else len(text) - text.count(" the")
        assert (units.characters, units.bytes) == (size, size)
        assert split.checksum == corpus.checksum(name)
        if reset == "none":
            assert split.starts is None
        elif reset == "document":
            assert split.starts is not None
            assert split.starts.tolist() == [0]
        else:
            assert split.starts is not None
            lines = text.splitlines(keepends=True)
            offsets = np.cumsum([0, *(len(tok.encode(line)) for line in lines)])
            assert split.starts.tolist() == offsets[:-1].tolist() + (
                [int(offsets[-1])] if len(ids) > offsets[-1] else []
            )


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_units_of_ranges_add_up_and_agree_with_single_tokens(tmp_path: Path, kind):
    corpus = written(
        tmp_path, ("é rare%d the\n" * 50 % tuple(range(50))).encode() + b"the tail" * 9, fractions=(1, 0, 0)
    )
    split = encode_corpus(corpus, tokenizer_for(corpus, kind))["train"]
    total, size = split.units(), len(split)
    for cut in (0, 1, size // 3, size - 1, size):
        assert split.units(0, cut) + split.units(cut) == total
    for part, whole in zip(split.per_token(3, size - 2), split.units(3, size - 2)[1:], strict=True):
        assert part.sum() == whole
    assert len(split.per_token(3, size - 2)[0]) == size - 5
    assert total.bytes == (tmp_path / "text.txt").stat().st_size, "unknown words keep their length"
    assert split.units(5, 5) == Units(0, 0, 0, 0)


def test_units_agree_between_tokenizers(tmp_path: Path):
    corpus = written(tmp_path, TEXT.replace(" the", "the").encode())
    found = {str(kind): encode_corpus(corpus, tokenizer_for(corpus, kind))["train"].units()[1:] for kind in KINDS}
    assert len(set(found.values())) == 1, found


def test_documents_begin_where_files_do(tmp_path: Path):
    for number, text in enumerate(["one two\n", "three", "four\n"]):
        (tmp_path / f"{number}.txt").write_text(text)
    corpus = open_corpus(CorpusConfig(train=str(tmp_path / "*.txt"), reset="document"))
    for kind, starts in (("byte", [0, 8, 14]), ("word", [0, 3, 5])):
        split = encode_corpus(corpus, tokenizer_for(corpus, kind))["train"]
        assert split.starts is not None
        assert split.starts.tolist() == starts
    tok = tokenizer_for(corpus, {"name": "bpe", "size": 270})
    ids = ids_of(encode_corpus(corpus, tok)["train"])
    assert (ids == tok.end_id).sum() == 3
    assert tok.decode(ids) == "one two\nthree\nfour\n"


def test_ids_take_the_narrowest_type():
    assert [id_type(size) for size in (256, 257, 65536, 65537)] == [np.uint8, np.uint16, np.uint16, np.uint32]


def test_a_second_run_reads_what_the_first_wrote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    corpus = written(tmp_path)
    seen: list[tuple[str, int]] = []
    first = encode_corpus(corpus, tokenizer_for(corpus, "word"), progress=lambda *told: seen.append(told))
    assert seen[-1] == ("test", corpus.size("test"))
    monkeypatch.setattr(encode, "encode_split", lambda *_: pytest.fail("encoded again"))
    monkeypatch.setattr(TOKENIZERS["word"], "train", lambda *_: pytest.fail("trained again"))
    corpus = open_corpus(CorpusConfig(path=str(tmp_path / "text.txt")))
    second = encode_corpus(corpus, tokenizer_for(corpus, "word"))
    assert np.array_equal(ids_of(first["train"]), ids_of(second["train"]))


def test_another_text_tokenizer_or_reset_makes_other_files(tmp_path: Path):
    places = tmp_path / "cache" / "tokens"
    corpus = written(tmp_path)
    encode_corpus(corpus, tokenizer_for(corpus, "byte"))
    encode_corpus(corpus, tokenizer_for(corpus, "char"))
    other = open_corpus(CorpusConfig(path=str(tmp_path / "text.txt"), reset="line"))
    encode_corpus(other, tokenizer_for(other, "byte"))
    changed = written(tmp_path, TEXT.encode() + b"!\n")
    encode_corpus(changed, tokenizer_for(changed, "byte"))
    assert len(list(places.iterdir())) == 4


def test_a_pinned_vocabulary_that_changes_trains_anew(tmp_path: Path):
    words = tmp_path / "words"
    corpus = written(tmp_path)
    for text in ("<eos>\n<unk>\n", "<eos>\n<unk>\nthe\n"):
        words.write_text(text)
        tok = tokenizer_for(corpus, {"name": "word", "vocabulary": str(words)})
        assert tok.vocab_size == text.count("\n")


def _encode(path: str, cache: str, start) -> None:
    os.environ["UNROLLED_CACHE"] = cache  # the server's own is that of the test that began it
    start.wait()
    corpus = open_corpus(CorpusConfig(path=path))
    encode_corpus(corpus, load_or_train_tokenizer(TOKENIZERS.parse("word"), corpus))


def test_processes_that_encode_at_once_both_succeed(tmp_path: Path):
    corpus = written(tmp_path, TEXT.encode() * 50)
    start = servers.Event()
    workers = [
        servers.Process(target=_encode, args=(str(tmp_path / "text.txt"), str(tmp_path / "cache"), start))
        for _ in range(2)
    ]
    for worker in workers:
        worker.start()
    start.set()
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert [path.name[0] != "." for path in (tmp_path / "cache" / "tokens").iterdir()] == [True]
    assert len(encode_corpus(corpus, tokenizer_for(corpus, "word"))["train"]) > 0


def test_the_slower_of_two_writers_takes_the_files_of_the_faster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    corpus = written(tmp_path)
    tok = tokenizer_for(corpus, "byte")
    whole = encode.encode_split
    raced = []

    def overtaken(*arguments):
        if not raced:
            raced.append(True)
            encode_corpus(corpus, tok)
        return whole(*arguments)

    monkeypatch.setattr(encode, "encode_split", overtaken)
    assert len(encode_corpus(corpus, tok)["train"]) == corpus.size("train")
    assert len(list((tmp_path / "cache" / "tokens").iterdir())) == 1


def test_an_interrupted_run_leaves_nothing_that_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    corpus = written(tmp_path)
    tok = tokenizer_for(corpus, "byte")

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(encode, "write_json", interrupted)
        with pytest.raises(KeyboardInterrupt):
            encode_corpus(corpus, tok)
    places = tmp_path / "cache" / "tokens"
    assert list(places.iterdir()) == []
    # What a killed process leaves is ignored, and removed when it is old.
    encode_corpus(corpus, tok)
    home = next(places.iterdir())
    home.rename(places / f".{home.name}.killed.part")
    encode_corpus(corpus, tok)
    assert len(list(places.iterdir())) == 2
    old = time.time() - 2 * 24 * 3600
    os.utime(places / f".{home.name}.killed.part", (old, old))
    home.rename(places / "elsewhere")
    encode_corpus(corpus, tok)
    assert sorted(path.name for path in places.iterdir()) == sorted([home.name, "elsewhere"])


def test_damaged_token_files_are_refused(tmp_path: Path):
    corpus = written(tmp_path)
    tok = tokenizer_for(corpus, "byte")
    encode_corpus(corpus, tok)
    home = next((tmp_path / "cache" / "tokens").iterdir())
    with (home / "train.ids").open("rb+") as file:
        file.truncate(10)
    with pytest.raises(UnrolledError, match="damaged; delete that folder"):
        encode_corpus(corpus, tok)


def test_texts_without_tokens_and_with_foreign_characters_are_refused(tmp_path: Path):
    corpus = written(tmp_path, TEXT.encode() + b"caf\xe9\n" * 50)
    with pytest.raises(UsageError, match="is not UTF-8 at byte"):
        encode_corpus(corpus, TOKENIZERS["char"].train(TOKENIZERS.parse("char"), [TEXT.encode()]))
    assert len(encode_corpus(corpus, tokenizer_for(corpus, "byte"))) == 3
    (tmp_path / "spaces").write_text("   ")
    blank = open_corpus(CorpusConfig(train=str(tmp_path / "spaces"), layout="symbols"))
    with pytest.raises(UsageError, match="has no tokens; give a text with words in it"):
        encode_corpus(blank, tokenizer_for(corpus, "byte"))
    assert list((tmp_path / "cache" / "tokens").glob(".*")) == []


def test_a_large_text_streams_in_little_memory(tmp_path: Path):
    line = b"a line of text that is repeated very often\n"
    with (tmp_path / "large.txt").open("wb") as file:
        for _ in range(200):
            file.write(line * 25_000)
    corpus = open_corpus(CorpusConfig(train=str(tmp_path / "large.txt")))
    before = _resident()
    tracemalloc.start()
    split = encode_corpus(corpus, tokenizer_for(corpus, "byte"))["train"]
    stream = Stream(split, StreamConfig(columns=16, window=100), RandomStreams(1), 10)
    for position in range(0, stream.windows_per_epoch(), 1000):
        stream.at(position)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(split) == 200 * 25_000 * len(line)
    assert peak < 50e6, "memory of Python and numpy"
    assert _resident() - before < 50e6, "file pages that the process holds count too"


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_tokenizers_are_files(tmp_path: Path):
    corpus = written(tmp_path)
    tok = tokenizer_for(corpus, "char")
    save_tokenizer(tok, tmp_path / "tokenizer.json")
    assert (tmp_path / "tokenizer.json").read_text().startswith('{\n  "kind": "tokenizer"')
