"""The ARPA format, in and out; KenLM reads what is written, where it is installed."""

import gzip
from pathlib import Path

import numpy as np
import pytest

from counts.texts import START, WORDS, estimate, make_text
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.counts import NgramModel, read_arpa, write_arpa

TEXT = make_text(600)
HELD_OUT = make_text(300, seed=1)

# As SRILM writes it: tabs, no backoff where there is none, n-grams in the order of their words.
FOREIGN = """
made by hand

\\data\\
ngram 1=5
ngram 2=5
ngram 3=2

\\1-grams:
-0.5\t</s>
-99\t<s>\t-0.25
-0.75\t<unk>
-0.5\ta\t-0.125
-1.0\tb\t0.0625

\\2-grams:
-0.25\t<s> a\t-0.5
-0.125\ta </s>
-0.375\ta b\t-0.0625
-0.5\tb </s>
-0.625\tb a

\\3-grams:
-0.03125\t<s> a b
-0.1875\ta b </s>

\\end\\
"""
FOREIGN_WORDS = ["a", "b", "<eos>", "<unk>"]
A, B, E, U = range(4)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    path = tmp_path / "foreign.arpa"
    path.write_text(FOREIGN)
    return path


def test_a_foreign_file(foreign: Path) -> None:
    """Decimal logarithms, summed by hand from the file."""
    model = read_arpa(foreign, FOREIGN_WORDS)
    assert model.config.sentences == "reset"
    assert model.config.start_id == E
    assert model.config.estimation is None
    cases = [
        ([E], A, -0.25),  # <s> a
        ([E], B, -0.25 - 1.0),
        ([E], E, -0.25 - 0.5),  # an empty line
        ([E, A], B, -0.03125),  # <s> a b
        ([E, A], E, -0.5 - 0.125),  # backoff of <s> a, then a </s>
        ([E, A], A, -0.5 - 0.125 - 0.5),
        ([A, B], E, -0.1875),
        ([A, B], A, -0.0625 - 0.625),
        ([A, B], B, -0.0625 + 0.0625 - 1.0),
        ([B, A], U, -0.125 - 0.75),
        ([U, A], B, -0.375),
        ([A, U], B, -1.0),
        ([U, U], U, -0.75),
        ([A, E], A, -0.25),  # after a </s> stands <s>
        ([A, E, A], B, -0.03125),
    ]
    for context, token, expected in cases:
        found = model.log_prob(np.array([context]), np.array([token]))
        assert found[0] / np.log(10) == pytest.approx(expected, abs=1e-12), (context, token)


def round_trip(model: NgramModel, words: list[str], path: Path) -> None:
    write_arpa(model, words, path)
    again = read_arpa(path, words, model.config.start_id)
    assert again.config.sentences == model.config.sentences
    starts = np.array([0, 50])
    np.testing.assert_allclose(again.score(HELD_OUT, starts)[0], model.score(HELD_OUT, starts)[0], rtol=0, atol=1e-10)
    contexts = np.stack([TEXT[t : t + 5] for t in range(0, 300, 10)])
    np.testing.assert_allclose(again.distribution(contexts), model.distribution(contexts), rtol=0, atol=1e-10)


@pytest.mark.parametrize("block", [5, 1 << 16])
@pytest.mark.parametrize("end", ["<eos>", "</s>"])
@pytest.mark.parametrize("sentences", ["reset", "continuous"])
@pytest.mark.parametrize("order", [1, 2, 4])
def test_round_trip(
    order: int, sentences: str, end: str, block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unrolled.counts.arpa._BLOCK", block)
    words = [*WORDS[:START], end, *WORDS[START + 1 :]]
    if order == 1 and end == "</s>":
        sentences = "reset"  # without contexts the two are one, and the file cannot tell them apart
    model = estimate(TEXT, order=order, sentences=sentences, prune=(1, 1, 2)[:order])
    round_trip(model, words, tmp_path / "m.arpa")
    round_trip(model, words, tmp_path / "m.arpa.gz")
    assert gzip.decompress((tmp_path / "m.arpa.gz").read_bytes()) == (tmp_path / "m.arpa").read_bytes()


def test_orders_without_ngrams_are_left_out(tmp_path: Path) -> None:
    model = estimate(np.array([0, START, START, 1, START]), order=5)
    write_arpa(model, WORDS, tmp_path / "m.arpa")
    again = read_arpa(tmp_path / "m.arpa", WORDS)
    assert again.config.order == 3
    np.testing.assert_allclose(again.score(HELD_OUT)[0], model.score(HELD_OUT)[0], rtol=0, atol=1e-10)


def test_what_is_written(tmp_path: Path) -> None:
    for sentences in ("reset", "continuous"):
        model = estimate(TEXT, order=2, sentences=sentences)
        write_arpa(model, WORDS, tmp_path / "m.arpa")
        lines = (tmp_path / "m.arpa").read_text(encoding="utf-8").split("\n")
        grams = [line.split("\t") for line in lines if "\t" in line]
        unigrams = {gram[1]: gram for gram in grams if " " not in gram[1]}
        assert unigrams["<s>"][0] == "-99"
        assert float(unigrams["né"][0]) == pytest.approx(model.tables[0].log_prob[2] / np.log(10))
        if sentences == "reset":
            assert set(unigrams) == {*WORDS, "<s>", "</s>"} - {"<eos>"}
            assert unigrams["</s>"][2] == "0"
            assert float(unigrams["<s>"][2]) < 0
        else:
            assert set(unigrams) == {*WORDS, "<s>", "</s>"}
            assert unigrams["</s>"][0] == "-99"
            assert float(unigrams["<eos>"][2]) < 0
        assert f"ngram 1={len(unigrams)}" in lines
        assert not any("</s> " in line or " <s>" in line for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (WORDS[:-1], "11 words for a vocabulary of 12"),
        ([*WORDS[:-1], "the"], "two ids"),
        ([*WORDS[:-1], "a b"], "white space"),
        ([*WORDS[:-1], ""], "empty"),
        ([*WORDS[:-1], "<s>"], "meaning of its own"),
        ([*WORDS[:-1], "</s>"], "meaning of its own"),
    ],
)
def test_words_that_cannot_be_written(words: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        write_arpa(estimate(TEXT, order=2), words, tmp_path / "m.arpa")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("\\end\\", "", "damaged"),
        ("\\data\\", "data", "damaged"),
        ("ngram 2=5", "ngram 2=6", "announces 6"),
        ("ngram 2=5", "ngram 4=5", "damaged"),
        ("\\2-grams:", "\\3-grams:", "damaged"),
        ("-0.625\tb a", "-x\tb a", "damaged"),
        ("-0.625\tb a", "-0.625\tb", "damaged"),
        ("-0.625\tb a", "-0.625\tb a b -1", "damaged"),
        ("-0.625\tb a", "-0.625\tb c", "'c', which the vocabulary lacks"),
        ("-0.625\tb a", "-0.625\tb </s>", "twice"),
        ("-0.625\tb a", "-0.625\tb <s>", "midst"),
        ("-0.625\tb a", "-0.625\t</s> a", "midst"),
        ("-0.625\tb a", "-0.625\t<unk> <s>", "midst"),
        ("-0.625\tb a", "0.625\tb a", "order 2"),
        ("-0.625\tb a", "nan\tb a", "order 2"),
        ("-0.1875\ta b </s>", "-0.1875\ta <unk> b", "first 2 token"),
        ("-1.0\tb\t0.0625", "-1.0\ta\t0.0625", "order 1 twice"),
    ],
)
def test_damaged_files_are_refused(foreign: Path, old: str, new: str, message: str) -> None:
    assert old in FOREIGN
    foreign.write_text(FOREIGN.replace(old, new))
    with pytest.raises(UnrolledError, match=message):
        read_arpa(foreign, FOREIGN_WORDS)


def test_vocabularies_that_differ(foreign: Path, tmp_path: Path) -> None:
    with pytest.raises(UnrolledError, match="lacks the word 'c'"):
        read_arpa(foreign, [*FOREIGN_WORDS, "c"])
    with pytest.raises(UnrolledError, match="'b', which the vocabulary lacks"):
        read_arpa(foreign, ["a", "<eos>"])
    with pytest.raises(UsageError, match="start_id"):
        read_arpa(foreign, ["a", "b", "<unk>"])
    with pytest.raises(UsageError, match="start_id 4 is outside"):
        read_arpa(foreign, FOREIGN_WORDS, 4)
    with pytest.raises(UnrolledError, match="does not exist"):
        read_arpa(tmp_path / "none.arpa", FOREIGN_WORDS)
    bad = tmp_path / "bad.arpa.gz"
    bad.write_bytes(gzip.compress(FOREIGN.encode())[:-20])
    with pytest.raises(UnrolledError, match="damaged"):
        read_arpa(bad, FOREIGN_WORDS)


def test_an_unknown_word_that_the_vocabulary_lacks_is_left_out(foreign: Path) -> None:
    foreign.write_text(FOREIGN.replace("-0.625\tb a", "-0.625\tb <unk>"))
    model = read_arpa(foreign, FOREIGN_WORDS[:3])
    total = np.exp(model.distribution(np.zeros((1, 0), np.int64))).sum()
    assert total == pytest.approx(10**-0.5 + 10**-0.5 + 10**-1)
    assert len(model.tables[1].keys) == 4


def sentences_of(ids: np.ndarray, words: list[str]) -> list[str]:
    lines = " ".join(words[index] for index in ids).split(WORDS[START])
    return [line.strip() for line in lines[:-1]]


@pytest.mark.parametrize("prune", [(1,), (1, 1, 2)])
def test_kenlm_gives_the_same_probabilities(prune: tuple[int, ...], tmp_path: Path) -> None:
    kenlm = pytest.importorskip("kenlm", reason="kenlm is not installed")
    path = tmp_path / "m.arpa"
    ids = HELD_OUT[: np.flatnonzero(HELD_OUT == START)[-1] + 1]
    model = estimate(TEXT, order=4, prune=prune)
    write_arpa(model, WORDS, path)
    theirs = [score for line in sentences_of(ids, WORDS) for score, _, _ in kenlm.Model(str(path)).full_scores(line)]
    np.testing.assert_allclose(theirs, model.score(ids)[0] / np.log(10), rtol=0, atol=1e-5)

    model = estimate(TEXT, order=4, prune=prune, sentences="continuous")
    write_arpa(model, WORDS, path)
    text = " ".join(WORDS[index] for index in [START, *ids])
    theirs = [score for score, _, _ in kenlm.Model(str(path)).full_scores(text, bos=False, eos=False)]
    np.testing.assert_allclose(theirs[1:], model.score(ids)[0] / np.log(10), rtol=0, atol=1e-5)
