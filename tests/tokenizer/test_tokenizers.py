"""Tokenizers: round trips, exact units, unknown symbols, streaming output, saving."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tokenizer.trained import CONFIGS, TRAIN, tokenizer
from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data import Units
from unrolled.tokenizer import TOKENIZERS, AnyTokenizerConfig, load_tokenizer, save_tokenizer

every = pytest.mark.parametrize("key", CONFIGS)


lossless = pytest.mark.parametrize(
    "key", [key for key in CONFIGS if key not in ("word", "multiword", "char", "byte-seen")]
)


def words_of(line: str) -> list[str]:
    return [word for word in re.split(r"[ \t\v\f\r]+", line) if word]


WORDS = [word for word in TRAIN.decode().replace("\n", " ").split(" ") if word]


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40) | st.text(" \n\r\tabé漢", max_size=40)


def count(text: str) -> Units:
    """Units of a text that ends with a line end or is to be continued, counted on the text itself."""
    words = sum(len(words_of(line)) for line in text.split("\n")) + text.count("\n")
    return Units(0, words, len(text), len(text.encode()))


def normal(text: str) -> str:
    """The word tokenizer's normalisation: single spaces, none at the ends of a line."""
    return "\n".join(" ".join(words_of(line)) for line in text.split("\n"))


@lossless
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_decoding_undoes_encoding(key: str, text: str):
    tok = tokenizer(key)
    assert tok.decode(tok.encode(text)) == text
    assert tok.decode_bytes(tok.encode(text)) == text.encode()


@settings(max_examples=60, deadline=None)
@given(text=st.text(st.sampled_from(sorted(set(TRAIN.decode()))), max_size=40))
def test_char_decoding_undoes_encoding_of_known_characters(text: str):
    tok = tokenizer("char")
    assert tok.decode(tok.encode(text)) == text
    assert len(tok.encode(text)) == len(text)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.sampled_from([*WORDS, " ", "\n"]), max_size=20))
def test_word_decoding_gives_the_text_with_single_spaces(parts: list[str]):
    text = " ".join(parts)
    tok = tokenizer("word")
    assert tok.decode(tok.encode(text)) == normal(text)
    assert tok.encode(normal(text)) == tok.encode(text)


@every
@settings(max_examples=80, deadline=None)
@given(text=TEXTS)
def test_units_are_those_of_the_text(key: str, text: str):
    tok = tokenizer(key)
    if getattr(tok, "unk_id", None) is not None and key not in (
        "word",
        "multiword",
    ):  # an unknown symbol is no blank, whatever it was
        text = re.sub(r"[\t\v\f\r]", "", text)
    encoded = tok.encode_exact(text)
    expected = count(normal(text) if key in ("word", "multiword") else text)
    assert tok.units_of(encoded)[1:] == expected[1:]
    assert tok.units_of(encoded).tokens == len(encoded.ids)


@every
@settings(max_examples=60, deadline=None)
@given(text=TEXTS, cut=st.integers(0, 60))
def test_units_add_up_over_any_cut_between_tokens(key: str, text: str, cut: int):
    tok = tokenizer(key)
    ids = tok.encode_exact(text).ids
    cut = min(cut, len(ids))
    first = tok.tables.count(ids[:cut])
    second = tok.tables.count(ids[cut:], int(ids[cut - 1]) if cut else None)
    assert first + second == tok.tables.count(ids)
    assert [int(part.sum()) for part in tok.tables.per_token(ids)] == list(tok.tables.count(ids)[1:])


@every
@settings(max_examples=40, deadline=None)
@given(lines=st.lists(TEXTS.map(lambda t: t.replace("\n", " ") + "\n"), max_size=6), cut=st.integers(0, 6))
def test_ids_do_not_depend_on_the_cut_into_blocks(key: str, lines: list[str], cut: int):
    tok = tokenizer(key)
    parts = [tok.encode_block("".join(part).encode()).ids for part in (lines[:cut], lines[cut:])]
    assert np.concatenate(parts).tolist() == tok.encode("".join(lines))


@every
@settings(max_examples=60, deadline=None)
@given(text=TEXTS)
def test_streamed_output_is_the_decoded_text_in_whole_characters(key: str, text: str):
    tok = tokenizer(key)
    ids = tok.encode(text)
    decoder = tok.decoder()
    parts = [decoder.push(index) for index in ids] + [decoder.finish()]
    assert "".join(parts) == tok.decode(ids)
    if "�" not in tok.decode(ids):
        assert not any("�" in part for part in parts)


def test_a_continuation_is_decoded_with_its_separator():
    tok = tokenizer("word")
    cat, end = tok.encode("cat\n")
    assert tok.decoder(cat).push(cat) == " cat"
    assert tok.decoder(end).push(cat) == "cat"
    byte = tokenizer("byte").decoder()
    assert [byte.push(value) for value in "é".encode()] == ["", "é"]
    assert byte.push(0xE6) == ""
    assert byte.finish() == "�"
    with pytest.raises(UnrolledError, match="token id 256 is outside the vocabulary of 256"):
        byte.push(256)


@every
def test_saved_and_loaded_tokenizers_are_the_same(key: str, tmp_path: Path):
    tok = tokenizer(key)
    save_tokenizer(tok, tmp_path / "tokenizer.json")
    again = load_tokenizer(tmp_path / "tokenizer.json")
    text = TRAIN.decode() + " new Words\n"
    assert again.encode(text) == tok.encode(text)
    assert (again.vocab_size, again.end_id, again.start_id) == (tok.vocab_size, tok.end_id, tok.start_id)
    assert again.config == tok.config
    assert again.fingerprint() == tok.fingerprint()
    assert [again.token(i) for i in range(again.vocab_size)] == [tok.token(i) for i in range(tok.vocab_size)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"kind": "config"}, "is not a tokenizer file"),
        ({"version": 99}, "has format 99"),
        ({"state": {}}, "damaged tokenizer file"),
    ],
)
def test_foreign_tokenizer_files_are_refused(tmp_path: Path, change: dict, message: str):
    path = tmp_path / "tokenizer.json"
    save_tokenizer(tokenizer("char"), path)
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UnrolledError, match=message):
        load_tokenizer(path)


class _Holder(Config):
    tokenizer: AnyTokenizerConfig = TOKENIZERS.parse("byte")


def _contains(value: dict[str, Any], part: dict[str, Any]) -> bool:
    return all(
        _contains(value[key], inner) if isinstance(inner, dict) else value[key] == inner for key, inner in part.items()
    )


@every
def test_configs_are_parsed_by_name_and_written_whole(key: str):
    held = _Holder.parse({"tokenizer": CONFIGS[key]})
    assert isinstance(held.tokenizer, TOKENIZERS[CONFIGS[key]["name"]].Config)
    assert held.tokenizer == TOKENIZERS.parse(CONFIGS[key])
    assert _contains(held.model_dump()["tokenizer"], CONFIGS[key])
    assert _Holder.parse(held.model_dump(mode="json")) == held


def test_wrong_configs_are_refused():
    with pytest.raises(UsageError, match="unknown tokenizer 'worde'; did you mean 'word'"):
        _Holder.parse({"tokenizer": "worde"})
    with pytest.raises(UsageError, match="sizee"):
        _Holder.parse({"tokenizer": {"name": "bpe", "sizee": 300}})


@every
def test_fields_are_described(key: str):
    for name, field in TOKENIZERS[CONFIGS[key]["name"]].Config.model_fields.items():
        assert field.description, name


def test_every_row_of_the_table_loads():
    for name in TOKENIZERS:
        assert TOKENIZERS[name].kind == name
