"""Built-in properties against loops over characters, and a user's column."""

from pathlib import Path

import numpy as np
import pytest

from unrolled.analyse import PROPERTIES, PassageText, property_of, read_property
from unrolled.core.errors import UnrolledError, UsageError

CODE = 'def f(a, b[0]):\n    if (x[{1: 2}]):\n\treturn "so) é"\n\n  # a ) ( b\nend'
PROSE = 'He said “no (not me)”,\nand ``yes\'\' "or\nso" it "was\n\nopen. Never\n'


def text_of(text: str) -> PassageText:
    """Every byte a token."""
    data = np.frombuffer(text.encode(), np.uint8)
    return PassageText(data, np.arange(1, len(data) + 1))


def by_character(text: str, name: str) -> list[float]:
    """Plain loops, one value a character."""
    found: list[float] = []
    quote, column, indent, leading, depth = False, 0, 0, True, dict.fromkeys("([{*", 0)
    for t, sign in enumerate(text):
        if sign == '"':
            quote = not quote
        elif sign == "“" or text[t : t + 2] == "``":
            quote = True
        elif sign == "”" or text[t : t + 2] in ("''", "\n\n"):
            quote = False
        column = 0 if sign == "\n" else column + 1
        for opening, closing in ("()", "[]", "{}"):
            for kind in (opening, "*"):
                depth[kind] += sign == opening
                depth[kind] -= sign == closing and depth[kind] > 0
        if sign == "\n":
            indent, leading = 0, True
        elif leading and sign in " \t":
            indent += 1
        else:
            leading = False
        word_end = not sign.isspace() and (t + 1 == len(text) or text[t + 1].isspace())
        kinds = {"depth": depth["*"], "round": depth["("], "square": depth["["], "curly": depth["{"]}
        rest = {"quote": quote, "line_position": column, "word_end": word_end, "indent": indent}
        found.append(float({**kinds, **rest}[name]))
    return found


@pytest.mark.parametrize("text", [CODE, PROSE, ")))(a", "x"], ids=["code", "prose", "closing first", "one letter"])
@pytest.mark.parametrize("name", PROPERTIES)
def test_equals_the_loop(name: str, text: str) -> None:
    last = np.cumsum([len(sign.encode()) for sign in text])
    found = property_of(name, PassageText(text_of(text).data, last))
    assert found.tolist() == by_character(text, name)


@pytest.mark.parametrize("name", PROPERTIES)
def test_each_varies_somewhere(name: str) -> None:
    assert max(np.ptp(by_character(text, name)) for text in (CODE, PROSE)) > 0


def test_a_token_has_the_value_of_its_last_character() -> None:
    """``ab (``, ``cd``, a mark without text, ``)``."""
    data = np.frombuffer(b"ab (cd)", np.uint8)
    assert property_of("round", PassageText(data, np.array([4, 6, 6, 7]))).tolist() == [1, 1, 1, 0]
    assert property_of("line_position", PassageText(data, np.array([0, 4, 6, 7]))).tolist() == [0, 4, 6, 7]
    with pytest.raises(UsageError, match="unknown property 'quotes'; did you mean 'quote'"):
        property_of("quotes", PassageText(data, np.array([7])))


def test_a_column_of_ones_own(tmp_path: Path) -> None:
    path, text = tmp_path / "p.tsv", "aéb"
    path.write_text('x\tsign\na\t1\n"\t-2.5\nb\t3\n', encoding="utf-8")
    bytewise = text_of(text)
    assert len(bytewise.ends) == 4
    assert read_property(path, "sign", bytewise).tolist() == [1, -2.5, -2.5, 3], "both bytes of é"
    words = PassageText(bytewise.data, np.array([3, 4]))
    assert read_property(path, "sign", words).tolist() == [-2.5, 3]
    path.write_text("sign\n7\n8\n")
    assert read_property(path, "sign", words).tolist() == [7, 8], "a row for every token"


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        ("other\n1\n", UsageError, "unknown column of .*: 'sign'"),
        ("sign\n1\nx\n3\n", UnrolledError, "line 3 of .* has no number in column 'sign'"),
        ("a\tsign\n1\t2\n3\n", UsageError, r"line 3 of .* has 1 field\(s\), fewer than the header \(2\)"),
        ("sign\n1\nnan\n3\n", UnrolledError, "not a finite number"),
        ("sign\n1\n2\n", UsageError, "has 2 rows for 3 characters and 4 tokens"),
    ],
)
def test_broken_columns(tmp_path: Path, content: str, error: type[Exception], message: str) -> None:
    path = tmp_path / "p.tsv"
    path.write_text(content)
    with pytest.raises(error, match=message):
        read_property(path, "sign", text_of("aéb"))
    with pytest.raises(UsageError, match="does not exist"):
        read_property(tmp_path / "no.tsv", "sign", text_of("aéb"))
