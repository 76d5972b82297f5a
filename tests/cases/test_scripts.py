"""Tables of words of languages that write no spaces between them."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from cases.conftest import MakeRun
from cases.material import rows
from cli.conftest import Command

# words, and the text that they make
SCRIPTS = {
    "Chinese": (["老师", "喜欢", "苹果", "。"], "老师喜欢苹果。"),
    "Japanese": (["先生", "は", "りんご", "が", "スキー", "ー", "です", "。"], "先生はりんごがスキーーです。"),
    "Thai": (["ครู", "ชอบ", "แอปเปิล"], "ครูชอบแอปเปิล"),
    "Khmer": (["គ្រូ", "ចូលចិត្ត"], "គ្រូចូលចិត្ត"),
    "Lao": (["ຄູ", "ມັກ"], "ຄູມັກ"),
    "Myanmar": (["ဆရာ", "ကြိုက်"], "ဆရာကြိုက်"),
    "Tibetan": (["དགེ་", "རྒན་"], "དགེ་རྒན་"),
    "beyond the basic plane": (["𠀀", "𠀁"], "𠀀𠀁"),
    "full width": (["ＡＢ", "，", "好"], "ＡＢ，好"),
    "Korean": (["선생님은", "사과를", "좋아한다", "."], "선생님은 사과를 좋아한다 ."),
    "German": (["die", "Straße", "ist", "naß"], "die Straße ist naß"),
    "Hindi": (["शिक्षक", "सेब"], "शिक्षक सेब"),
    "Arabic": (["المعلم", "يحب"], "المعلم يحب"),
    "Vietnamese": (["thầy", "giáo"], "thầy giáo"),
    "mixed": (["用", "iPhone", "15", "Pro", "。"], "用iPhone 15 Pro。"),
}


def of_characters(text: str, run: Path, unrolled: Command) -> list[float]:
    """Bits of every character of one line of running text."""
    Path("plain.txt").write_text(text + "\n", encoding="utf-8")
    found = rows(unrolled("score", run, "plain.txt", "--unit", "token", "--no-ends").out)
    return [float(row["surprisal_bits"]) for row in found]


def sums(words: Sequence[str], text: str, each: Sequence[float]) -> list[float]:
    """Bits of every word: its characters, and the space before it where there is one."""
    found, at = [], 0
    for word in words:
        stop = text.index(word, at) + len(word)
        found.append(sum(each[at:stop]))
        at = stop
    return found


@pytest.mark.parametrize(("words", "text"), SCRIPTS.values(), ids=SCRIPTS)
def test_words_join_by_their_script(
    words: list[str], text: str, count: MakeRun, unrolled: Command, tmp_path: Path
) -> None:
    run = count(f"{text}\n{text[::-1]}\n" * 4, "char")
    (tmp_path / "w.tsv").write_text("item\tword\n" + "".join(f"1\t{word}\n" for word in words), encoding="utf-8")
    out = unrolled("score", run, "w.tsv", "--column", "word", "--break", "item", "--reset", "line")
    each = of_characters(text, run, unrolled)
    assert [float(row["surprisal_bits"]) for row in rows(out.out)] == pytest.approx(sums(words, text, each), abs=1e-5)
    told = "are joined without spaces; --join says otherwise" in out.err
    assert told == (len("".join(words)) == len(text) or "用" in text)


@pytest.mark.parametrize(("join", "between"), [("space", " "), ("none", "")])
@pytest.mark.parametrize("words", [["老师", "喜欢"], ["die", "Straße"]], ids=["Chinese", "German"])
def test_a_separator_that_is_said(
    words: list[str], join: str, between: str, count: MakeRun, unrolled: Command, tmp_path: Path
) -> None:
    text = between.join(words)
    run = count(f"{text}\n{text} \n" * 4, "char")
    (tmp_path / "w.txt").write_text("\n".join(words), encoding="utf-8")
    found = rows(unrolled("score", run, "w.txt", "--words", "--join", join).out)
    each = of_characters(text, run, unrolled)
    assert [float(row["surprisal_bits"]) for row in found] == pytest.approx(sums(words, text, each), abs=1e-5)


def test_a_vocabulary_of_words_has_spaces(count: MakeRun, unrolled: Command, tmp_path: Path) -> None:
    run = count("老师 喜欢 苹果 。\n" * 5, "word")
    (tmp_path / "w.txt").write_text("老师\n喜欢\n苹果\n。\n", encoding="utf-8")
    (tmp_path / "a.txt").write_text("老师 喜欢 苹果 。\n", encoding="utf-8")
    table, text = (rows(unrolled("score", run, *way, "--no-ends").out) for way in (["w.txt", "--words"], ["a.txt"]))
    assert table == text
    assert {row["unknown"] for row in table} == {"0"}


def test_options_about_tables_need_one(count: MakeRun, unrolled: Command, tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a\n")
    run = count("a b\n" * 5)
    for option in (["--join", "none"], ["--quotes", "plain"]):
        code, _, err = unrolled("score", run, "a.txt", *option)
        assert code == 2
        assert "are about tables" in err
    code, _, err = unrolled("score", run, "a.txt", "--words", "--join", "tab")
    assert code == 2
    assert "unknown join: 'tab'" in err or "unknown join 'tab'" in err
