"""Models of other tools: read whatever compresses them, worked out by hand, and written again."""

import bz2
import gzip
import lzma
import shutil
from pathlib import Path

import pytest

from cases.material import ARPA, NATS, SENTENCES, VOCABULARY, bits, by_hand, total
from cli.conftest import Command

PACK = {"plain": bytes, "gzip": gzip.compress, "bzip2": bz2.compress, "xz": lzma.compress}
RECIPE = """
tokenizer = { name = "word", vocabulary = "vocab.txt", end_word = "</s>" }
weights = { file = "MODEL", layout = "arpa" }
corpus = { path = "text.txt", fractions = [1.0, 0.0, 0.0] }
counts = { order = 3 }
"""


def prepare(model: bytes, name: str, vocabulary: str = VOCABULARY) -> None:
    Path(name).write_bytes(model)
    Path("vocab.txt").write_text(vocabulary, encoding="utf-8", newline="")
    Path("text.txt").write_text(SENTENCES)
    Path("arpa.toml").write_text(RECIPE.replace("MODEL", name))


def test_what_kenlm_gives(arpa: Path, unrolled: Command) -> None:
    Path("text.txt").write_text(SENTENCES)
    code, out, err = unrolled("score", arpa, "text.txt")
    assert code == 0
    assert bits(out) == pytest.approx(by_hand(SENTENCES), abs=2e-6)
    assert total(err) == pytest.approx(NATS, abs=1e-6)


@pytest.mark.parametrize("name", ["model.arpa", "model.arpa.gz", "model.arpa.bz2", "model.arpa.xz", "model"])
@pytest.mark.parametrize("kind", PACK)
def test_compressed_whatever_its_name(kind: str, name: str, unrolled: Command) -> None:
    prepare(PACK[kind](ARPA.encode()), name)
    code, _, err = unrolled("train", "arpa.toml", "--out", "run", "--sample", 0)
    if kind == "plain" and name.count(".") == 2:
        assert (code, Path("run").exists()) == (1, False)
        assert "is not compressed so" in err.splitlines()[-1]
        return
    assert code == 0
    assert total(unrolled("score", "run", "text.txt").err) == pytest.approx(NATS, abs=1e-6)


@pytest.mark.parametrize(
    "vocabulary",
    ["\ufeff" + VOCABULARY, VOCABULARY.replace("\n", "\r\n"), VOCABULARY.rstrip()],
    ids=["mark", "crlf", "end"],
)
def test_vocabularies_are_texts(vocabulary: str, unrolled: Command) -> None:
    prepare(ARPA.replace("\n", "\r\n").encode(), "model.arpa", vocabulary)
    assert unrolled("train", "arpa.toml", "--out", "run", "--sample", 0).code == 0
    assert total(unrolled("score", "run", "text.txt").err) == pytest.approx(NATS, abs=1e-6)


def test_a_failed_start_leaves_nothing(unrolled: Command) -> None:
    prepare(gzip.compress(ARPA.encode())[:-20], "model.arpa")
    code, out, err = unrolled("train", "arpa.toml", "--out", "run", "--sample", 0)
    assert (code, out, Path("run").exists()) == (1, "", False)
    assert "Traceback" not in err


@pytest.mark.parametrize("name", ["again.arpa", "again.arpa.gz"])
def test_written_and_read_again(name: str, arpa: Path, unrolled: Command) -> None:
    assert unrolled("export", arpa, name).code == 0
    prepare(Path(name).read_bytes(), "copy.arpa")
    shutil.rmtree("run", ignore_errors=True)
    assert unrolled("train", "arpa.toml", "--out", "run", "--sample", 0).code == 0
    assert total(unrolled("score", "run", "text.txt").err) == pytest.approx(NATS, abs=1e-6)


def test_an_evaluation_is_the_sum_of_its_words(arpa: Path, unrolled: Command) -> None:
    import json

    Path("text.txt").write_text(SENTENCES)
    code, out, _ = unrolled("eval", arpa, "--corpus", "text.txt", "--split", "whole", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["nats"] == pytest.approx(NATS, abs=1e-6)
    assert (found["tokens"], found["words"], found["characters"]) == (13, 13, len(SENTENCES))
