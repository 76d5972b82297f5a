"""Tokenizer files with anything wrong inside are one sentence, and never another tokenizer."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.tokenizer import TOKENIZERS, load_tokenizer, save_tokenizer

TEXT = b"the cat sat on the mat and the dog sat too\n" * 30
OPTIONS: dict[str, dict[str, Any]] = {
    "byte": {"values": "seen"},
    "char": {},
    "word": {"min_count": 1},
    "bpe": {"size": 270},
    "unigram": {"size": 280},
    "multiword": {"base": {"name": "word", "min_count": 1}, "k": 5},
}
ODD: list[Any] = [None, 3, -1, 0.5, True, [], ["a"], {}, {"a": 1}, "", "abc", 2**70, [[1]], [None]]


@pytest.fixture(params=OPTIONS)
def saved(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    cls = TOKENIZERS[request.param]
    tokenizer = cls.train(cls.Config.parse(OPTIONS[request.param]), [TEXT])
    save_tokenizer(tokenizer, tmp_path / "tokenizer.json")
    assert load_tokenizer(tmp_path / "tokenizer.json").fingerprint() == tokenizer.fingerprint()
    return tmp_path / "tokenizer.json"


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where something lies in a JSON value; of long lists the first, one within, and the last."""
    found = [path] if path else []
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    else:
        keys = list(range(len(value))) if isinstance(value, list) else []
    for key in keys if len(keys) < 9 else [keys[0], keys[5], keys[-1]]:
        found += places(value[key], (*path, key))
    return found


def put(value: Any, path: tuple[Any, ...], odd: Any) -> None:
    for key in path[:-1]:
        value = value[key]
    value[path[-1]] = odd


def test_anything_odd_anywhere(saved: Path) -> None:
    """Each value of the file replaced by each of ODD: refused in one sentence, or TEXT still comes back."""
    whole = json.loads(saved.read_text())
    refused = tried = held = 0
    for path in places(whole):
        for odd in ODD:
            tried += 1
            changed = json.loads(json.dumps(whole))
            put(changed, path, odd)
            saved.write_text(json.dumps(changed))
            try:
                tokenizer = load_tokenizer(saved)
                encoded = tokenizer.encode_exact(TEXT.decode())
            except UnrolledError as error:
                refused += "\n" not in str(error)
                continue
            held += 1
            assert max(encoded.ids) < tokenizer.vocab_size
            if not len(encoded.positions):
                assert tokenizer.decode_bytes(encoded.ids) == TEXT
    assert refused + held == tried
    assert refused > 100


def break_words(state: dict[str, Any], odd: Any) -> None:
    state["words"][state["words"].index("the")] = odd


@pytest.mark.parametrize("odd", [None, 7, ["a"], {"a": 1}, "", "two words", "a\nb", "cat", True])
def test_a_word_that_is_none(odd: Any, tmp_path: Path) -> None:
    cls = TOKENIZERS["word"]
    file = tmp_path / "tokenizer.json"
    save_tokenizer(cls.train(cls.Config.parse({}), [TEXT]), file)
    value = json.loads(file.read_text())
    break_words(value["state"], odd)
    file.write_text(json.dumps(value))
    with pytest.raises(UnrolledError, match=r"is a damaged tokenizer file; restore it or train again\.$") as caught:
        load_tokenizer(file)
    assert caught.value.exit_code == 1


HOSTILE: dict[str, Callable[[dict[str, Any]], object]] = {
    "draws at random": lambda engine: engine["model"].update(dropout=0.5),
    "changes the text": lambda engine: engine.update(normalizer={"type": "Lowercase"}),
    "adds a space": lambda engine: engine["pre_tokenizer"].update(add_prefix_space=True),
    "cuts the text": lambda engine: engine.update(
        truncation={"direction": "Right", "max_length": 1, "strategy": "LongestFirst", "stride": 0}
    ),
    "lacks a byte": lambda engine: engine["model"]["vocab"].pop("!"),
    "ids with a gap": lambda engine: engine["model"]["vocab"].update({"!": 4_000_000_000}),
    "an id twice": lambda engine: engine["model"]["vocab"].update({"!": 1}),
    "no bytes": lambda engine: engine["model"]["vocab"].update({"\u4e00": 270}),
    "another kind": lambda engine: engine.update(model={"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}),
    "a merge of nothing": lambda engine: engine["model"]["merges"].append(["no", "where"]),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_an_engine_that_would_lose_text(name: str, tmp_path: Path) -> None:
    cls = TOKENIZERS["bpe"]
    file = tmp_path / "tokenizer.json"
    save_tokenizer(cls.train(cls.Config.parse({"size": 270}), [TEXT]), file)
    value = json.loads(file.read_text())
    HOSTILE[name](value["state"]["tokenizers"])
    file.write_text(json.dumps(value))
    with pytest.raises(UnrolledError, match="is a damaged tokenizer file"):
        load_tokenizer(file)


def test_words_of_the_config() -> None:
    parse = TOKENIZERS["word"].Config.parse
    with pytest.raises(UsageError, match="'end_word': a word holds no space"):
        parse({"end_word": "a b"})
    with pytest.raises(UsageError, match="are the same"):
        parse({"end_word": "<unk>"})


def test_vocabularies_that_cannot_be_read(tmp_path: Path) -> None:
    cls = TOKENIZERS["word"]
    for path in (tmp_path, "/dev/zero", "~nobody-of-this-name/words", tmp_path / "none"):
        with pytest.raises(UsageError, match="cannot read the vocabulary"):
            cls.train(cls.Config.parse({"vocabulary": str(path)}), [])
