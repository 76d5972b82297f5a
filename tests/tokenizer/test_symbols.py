"""The tokenizer of a fixed list of names."""

from pathlib import Path

import pytest

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data import Units
from unrolled.tokenizer import TOKENIZERS, load_tokenizer, save_tokenizer
from unrolled.tokenizer.symbols import SymbolTokenizer

NAMES = (">", "_", "k0", "v0", "(0", "café")


def test_names_with_blanks_between() -> None:
    tok = SymbolTokenizer.of(NAMES)
    assert tok.encode(" k0 v0\t(0  \n café ") == [2, 3, 4, 0, 5]
    assert tok.decode([2, 3, 4, 0, 5]) == "k0 v0 (0\ncafé"
    assert tok.encode("") == []
    assert (tok.start_id, tok.end_id, tok.vocab_size) == (0, 0, 6)
    assert tok.token(5) == "café"
    assert tok.token(0) == ">"
    assert (tok.find("k0"), tok.find(">"), tok.find("\n"), tok.find("x")) == (2, 0, 0, None)
    assert tok.units_of(tok.encode_exact("k0 café")) == Units(2, 2, 7, 8)


def test_a_name_outside_the_list_is_refused() -> None:
    tok = SymbolTokenizer.of([*NAMES, *(f"name{i}" for i in range(500))])
    with pytest.raises(UsageError, match="unknown symbol 'k9'; did you mean 'k0'"):
        tok.encode("k0 k9")
    with pytest.raises(UsageError, match="unknown symbol '>'; known"):
        tok.encode("k0 >")
    with pytest.raises(UsageError, match="unknown symbol '漢'; known: ") as raised:
        tok.encode("漢")
    assert len(str(raised.value)) < 1500


@pytest.mark.parametrize("names", [[], ["a", "a"], ["a b"], ["a", ""], ["a\n"]])
def test_lists_that_are_no_names(names: list[str]) -> None:
    with pytest.raises(UsageError, match="without blanks"):
        SymbolTokenizer.of(names)


def test_the_list_is_given_or_that_of_the_text() -> None:
    cls = TOKENIZERS["symbols"]
    given = TOKENIZERS.parse({"name": "symbols", "names": [">", "b", "a"]})
    assert not cls.needs_training(given)
    assert cls.train(given, ()).encode("a b") == [2, 1]
    seen = TOKENIZERS.parse("symbols")
    assert cls.needs_training(seen)
    assert cls.train(seen, [b"b c\n", b"a b"]).encode("a b c\n") == [1, 2, 3, 0]


def test_save_and_load(tmp_path: Path) -> None:
    tok, path = SymbolTokenizer.of(NAMES), tmp_path / "tokenizer.json"
    save_tokenizer(tok, path)
    again = load_tokenizer(path)
    assert again.fingerprint() == tok.fingerprint()
    assert again.symbols_checksum() == tok.symbols_checksum() != SymbolTokenizer.of(NAMES[::-1]).symbols_checksum()
    assert again.encode("v0 k0") == [3, 2]
    whole = path.read_text()
    for odd in ('{"names": 3}', '{"names": ["a", 4]}', '{"names": ["a", "a"]}', "{}", "[]"):
        begin = whole.index('"state"')
        path.write_text(whole[:begin] + f'"state": {odd}}}')
        with pytest.raises(UnrolledError, match="damaged"):
            load_tokenizer(path)
