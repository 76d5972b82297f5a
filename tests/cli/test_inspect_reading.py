"""``unrolled inspect reading``: the surprisals of ``score``, several models, files, refusals."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cli.conftest import Command
from train.runs import make_text


@pytest.fixture
def times() -> str:
    """Six texts of 40 words, and a measure that a fixed generator gives."""
    words = make_text(60, 3).decode().split()
    rng, rows = np.random.default_rng(1), ["word\titem\tzone\trt"]
    for i, word in enumerate(words[:240]):
        rows.append(f"{word}\t{i // 40}\t{i % 40 + 1}\t{250 + 10 * len(word) + 30 * rng.random():.3f}")
    Path("times.tsv").write_text("\n".join(rows) + "\n")
    return "times.tsv"


@pytest.fixture
def counted(unrolled: Command, text: Path) -> str:
    Path("counts.toml").write_text('corpus.name = "pydoc"\ntokenizer.name = "char"\n[counts]\norder = 4\n')
    assert unrolled("train", "counts.toml", "--corpus", text, "--out", "counted", "--sample", 0).code == 0
    return "counted"


def test_several_models(unrolled: Command, trained: Path, counted: str, times: str) -> None:
    verb = ["inspect", "reading", trained, counted, times, "--measure", "rt", "--order", "zone"]
    code, out, err = unrolled(*verb, "--json", "--out", "made")
    assert code == 0, err
    record = json.loads(out)
    assert record == json.loads(Path("made/record.json").read_text())
    assert (record["kind"], record["texts"], record["words_measured"]) == ("reading", 6, 6 * 38)
    assert record["frequency"]["run"] == counted, "the first count run"
    neural, counts = record["runs"]
    assert neural["less_than_first"] is None
    difference = neural["gain"]["mean"] - counts["gain"]["mean"]
    assert counts["less_than_first"]["mean"] == pytest.approx(difference, abs=1e-12)
    # the sum over the words of each text, as score has them
    scored = unrolled("score", counted, times, "--column", "word", "--break", "item", "--reset", "line", "--json").out
    bits = [json.loads(line)["surprisal_bits"] for line in scored.splitlines()]
    assert counts["bits_per_word"] == pytest.approx(sum(bits) / 240, rel=1e-6)
    assert (neural["words"], neural["words_unknown"]) == (240, 0)
    assert {"gains.tsv", "coefficients.tsv"} <= {path.name for path in Path("made").iterdir()}
    if importlib.util.find_spec("matplotlib") is not None:
        assert Path("made/reading.svg").exists()
    code, out, err = unrolled(*verb, "--frequency", trained, "--spillover", 1, "--boundary", "trailing")
    assert (code, err) == (0, "")
    assert out.splitlines()[0].startswith("234 measured words of 6 texts; baseline ")


def test_unknown_words_are_told(unrolled: Command, text: Path, times: str) -> None:
    Path("words.toml").write_text(
        'corpus.name = "pydoc"\ntokenizer = { name = "word", max_size = 14 }\n[counts]\norder = 2\n'
    )
    assert unrolled("train", "words.toml", "--corpus", text, "--out", "words", "--sample", 0).code == 0
    Path(times).write_text(Path(times).read_text().replace("\nthe\t", "\nThe,\t"))
    code, out, err = unrolled("inspect", "reading", "words", times, "--measure", "rt")
    assert code == 0, err
    assert "of 240 words as unknown" in err
    assert "perplexity per word" in out


def test_refusals(refused: Callable[..., str], trained: Path, times: str) -> None:
    verb = ["inspect", "reading", trained, times]
    assert "unknown column of times.tsv: 'rtt'" in refused(*verb, "--measure", "rtt")
    assert "as word, which is no number" in refused(*verb, "--measure", "word")
    assert "no/run is not a run" in refused("inspect", "reading", "no/run", times, "--measure", "rt")
    assert "is a run, whose record would be lost" in refused(*verb, "--measure", "rt", "--out", trained)
    assert "resample" in refused(*verb, "--measure", "rt", "--resample", "lines")
    lines = Path(times).read_text().splitlines(True)
    Path(times).write_text("".join(lines[:41]))
    assert "1 text(s) have measured words" in refused(*verb, "--measure", "rt")
    Path(times).write_text("".join(lines[:10] + lines[11:]))
    assert "lacks word 10 of text 0" in refused(*verb, "--measure", "rt", "--order", "zone")
