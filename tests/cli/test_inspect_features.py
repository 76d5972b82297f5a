"""``unrolled inspect features``: tables, JSON, files, plots, refusals."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command

needs_sklearn = pytest.mark.skipif(
    importlib.util.find_spec("sklearn") is None, reason="scikit-learn is not installed (the extra probe)"
)


@pytest.fixture
def labelled(tmp_path: Path) -> tuple[Path, Path]:
    """Sentences with cats are positive. train.csv and test.jsonl, with other names than the usual ones."""
    animals = ["the cat", "a dog", "cat runs", "dog sleeps", "green hill cat", "small dog state"]
    rows = [(f"{words} {more}", int("cat" in words)) for more in ("runs", "sleeps", "over", "of") for words in animals]
    lines = ["text,kind", *(f"{text},{kind}" for text, kind in rows)]
    (tmp_path / "train.csv").write_text("\n".join(lines) + "\n")
    made = [json.dumps({"text": f"the {text}", "kind": kind}) + "\n" for text, kind in rows[::2] + rows[1::4]]
    (tmp_path / "test.jsonl").write_text("".join(made))
    return tmp_path / "train.csv", tmp_path / "test.jsonl"


def _arguments(run: Path, labelled: tuple[Path, Path]) -> list[object]:
    names = ["--text", "text", "--label", "kind", "--held-out", 0.3]
    return ["inspect", "features", run, labelled[0], "--test", labelled[1], *names]


@needs_sklearn
def test_json_and_files(unrolled: Command, trained: Path, labelled: tuple[Path, Path]) -> None:
    code, out, err = unrolled(*_arguments(trained, labelled), "--json", "--out", "made/features")
    assert code == 0, err
    found = json.loads(out)
    assert found == json.loads(Path("made/features/record.json").read_text())
    assert (found["layer"], found["state"], found["units"]) == (0, "c", 8)
    assert found["sentences"] == {"train": 17, "dev": 7, "test": 18}
    assert found["classes"] == {"negative": "0", "positive": "1"}
    for fit in ("regression", "bag_of_words", "best_unit"):
        assert 0 <= found[fit]["test"]["low"] <= found[fit]["test"]["accuracy"] <= found[fit]["test"]["high"] <= 1
    assert found["bag_of_words"]["test"]["accuracy"] == 1, "one word tells all"
    head, *rows = [line.split("\t") for line in Path("made/features/units.tsv").read_text().splitlines()]
    assert head == ["unit", "auc_train", "gap_train", "auc_test", "weight"]
    assert int(rows[0][0]) == found["best_unit"]["unit"]
    assert sorted(int(row[0]) for row in rows) == list(range(8))
    assert [float(row[1]) for row in rows] == sorted((float(row[1]) for row in rows), reverse=True)
    assert sum(float(row[4]) != 0 for row in rows) == found["regression"]["nonzero_weights"]
    head, *rows = [line.split("\t") for line in Path("made/features/histogram.tsv").read_text().splitlines()]
    assert head == ["low", "high", "0", "1"]
    assert len(rows) == 40
    assert sum(int(cell) for row in rows for cell in row[2:]) == 18


@needs_sklearn
def test_the_settings_arrive(unrolled: Command, trained: Path, labelled: tuple[Path, Path]) -> None:
    def figures(*options: object) -> str:
        code, out, err = unrolled(*_arguments(trained, labelled), "--json", *options)
        assert code == 0, err
        found = json.loads(out)
        return json.dumps([found["regression"], found["best_unit"], found["sentences"]])

    usual = figures()
    assert figures() == usual
    assert figures("--state", "c", "--layer", 0, "--pool", "last", "--seed", 1) == usual
    changed = [("--state", "h"), ("--pool", "mean"), ("--seed", 2), ("--held-out", 0.5), ("--dev", labelled[1])]
    assert len({usual, *(figures(*options) for options in changed)}) == 6


@needs_sklearn
@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_text_and_plots(unrolled: Command, trained: Path, labelled: tuple[Path, Path]) -> None:
    code, out, err = unrolled(*_arguments(trained, labelled), "--out", "made", "--bins", 7)
    assert (code, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    assert [line[0] for line in lines[:4:2]] == ["features", lines[2][0]]
    assert [line[0].split()[0] for line in lines[1:4]] == ["all", "unit", "words"]
    assert lines[4] == ["c of layer 0; 17 sentences in training, 7 choose C, 18 measured"]
    assert len(Path("made/histogram.tsv").read_text().splitlines()) == 8
    assert Path("made/histogram.png").read_bytes().startswith(b"\x89PNG")
    drawn = Path("made/histogram.svg").read_text()
    assert "test sentences" in drawn
    code, out, _ = unrolled(*_arguments(trained, labelled), "--no-words", "--out", "twice", "--bins", 7)
    assert "words" not in out
    assert Path("twice/histogram.svg").read_text() == drawn, "equal figures give equal bytes"


@needs_sklearn
def test_without_matplotlib(
    unrolled: Command, trained: Path, labelled: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from unrolled.analyse import plots

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(plots, "importlib", type("Absent", (), {"import_module": staticmethod(absent)}))
    code, _, err = unrolled(*_arguments(trained, labelled), "--out", "made")
    assert code == 0
    assert err == 'the plot needs matplotlib and is left out; install it with: pip install "unrolled[report]"\n'
    assert {path.name for path in Path("made").iterdir()} == {"record.json", "units.tsv", "histogram.tsv"}


def test_without_scikit_learn(
    refused: Callable[..., str], trained: Path, labelled: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Said before any sentence is read."""
    from unrolled.analyse import probe
    from unrolled.analyse.features import make as features

    def absent(name: str) -> None:
        raise ImportError(name)

    def read(*_: object) -> None:
        raise AssertionError("it has read")

    monkeypatch.setattr(probe, "importlib", type("Absent", (), {"import_module": staticmethod(absent)}))
    monkeypatch.setattr(features, "sentence_states", read)
    sentence = refused(*_arguments(trained, labelled), code=1)
    assert sentence == 'the logistic regression needs scikit-learn; install it with: pip install "unrolled[probe]".'


@needs_sklearn
def test_refusals(
    refused: Callable[..., str], unrolled: Command, trained: Path, labelled: tuple[Path, Path], text: Path
) -> None:
    train, test = labelled
    usual = _arguments(trained, labelled)
    assert "there are no sentences to measure on; give --test FILE" in refused(*usual[:4], "--text", "text")
    assert "did you mean 'text'?" in refused("inspect", "features", trained, train, "--test", test, "--text", "texts")
    assert "SST-2 is not on this machine" in refused("inspect", "features", trained, "sst2")
    assert "the model has no layer 1; its layers are 0 to 0" in refused(*usual, "--layer", 1)
    assert "unknown state of layer 0: 'g'; known: c, h" in refused(*usual, "--state", "g")
    assert "config key 'states.pool'" in refused(*usual, "--pool", "first")
    assert "config key 'held_out'" in refused(*usual, "--held-out", 1)
    assert "give a dev file" in refused(*usual, "--held-out", 0.01)
    Path("one.csv").write_text("text,kind\nthe cat,1\n")
    assert "the sentences of one.csv all have one label" in refused(*usual, "--test", "one.csv")
    Path("counts.toml").write_text('corpus.name = "pydoc"\ntokenizer.name = "word"\n[counts]\norder = 2\n')
    assert unrolled("train", "counts.toml", "--corpus", text, "--out", "counted", "--sample", 0).code == 0
    assert "is a count model, which has no neural weights" in refused(*_arguments(Path("counted"), labelled))
