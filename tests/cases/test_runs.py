"""A run knows its text, its vocabulary and its tokenizer, wherever it is asked from."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command
from train.runs import make_text

TINY = """
title = "tiny"
tokenizer.name = "char"
corpus.path = "text.txt"
stream = { columns = 4, window = 10 }
model = { width = 8, cell = { name = "lstm" } }
train = { steps = 3, threads = 1, validations = 1, final_eval = false, optimizer = { name = "adam", lr = 0.02 } }
"""
COUNTS = """
tokenizer.name = "char"
corpus.path = "text.txt"
counts = { order = 3 }
"""


def project(name: str, recipe: str = TINY, seed: int = 0) -> Path:
    """A folder with text.txt and a recipe."""
    folder = Path(name)
    folder.mkdir(parents=True)
    (folder / "text.txt").write_bytes(make_text(300, seed))
    (folder / "tiny.toml").write_text(recipe)
    return folder.resolve()


@pytest.fixture
def figure(unrolled: Command) -> Callable[..., float]:
    """The nats of an evaluation."""

    def of(*arguments: object) -> float:
        code, out, err = unrolled("eval", *arguments, "--json")
        assert code == 0, err
        return json.loads(out)["nats"]

    return of


@pytest.fixture
def made(unrolled: Command, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with the run ``r``, made from within it by relative paths."""
    home = project("project", COUNTS)
    monkeypatch.chdir(home)
    assert unrolled("train", "tiny.toml", "--out", "r", "--sample", 0).code == 0
    return home


def test_the_same_figure_from_any_folder(
    made: Path, figure: Callable[..., float], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = figure("r")
    other = project("../other", seed=7)
    monkeypatch.chdir(other)
    assert figure(made / "r") == here
    monkeypatch.chdir("/")
    assert figure(made / "r") == here
    assert figure(made / "r", "--split", "whole") == pytest.approx(
        figure(made / "r", "--split", "whole", "--corpus", made / "text.txt")
    )


def test_a_moved_project(
    made: Path, figure: Callable[..., float], refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    here = figure("r")
    moved = made.rename(made.parent / "moved")
    monkeypatch.chdir(moved)
    assert figure("r") == here
    monkeypatch.chdir("/")
    assert "text.txt does not exist" in refused("eval", moved / "r")
    assert "text.txt does not exist" in refused("eval", moved / "r", "--split", "whole")


def test_another_text_in_its_place(made: Path, refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    """The project is gone, and where the run is asked from lies another text of that name."""
    moved = made.rename(made.parent / "moved")
    shutil.move(moved / "r", moved.parent / "r")
    monkeypatch.chdir(project("../other", seed=7))
    for split in ("test", "valid", "train", "whole"):
        said = refused("eval", moved.parent / "r", "--split", split)
        assert "text of corpus text.txt (text.txt) is not the one that" in said
        assert said.endswith("bring that text back, or name this one with --corpus.")
    for verb in ("gates", "units", "recovery", "errors", "memory"):
        assert refused("inspect", verb, moved.parent / "r", code=2)


@pytest.mark.parametrize("change", ["grown", "shorter", "one letter", "line ends"])
def test_a_text_that_changed(
    change: str, made: Path, figure: Callable[..., float], refused: Callable[..., str], unrolled: Command
) -> None:
    here, path = figure("r"), made / "text.txt"
    data = path.read_bytes()
    other = b"a" if data[-3:-2] != b"a" else b"e"
    path.write_bytes({
        "grown": data + make_text(50, 3), "shorter": data[:-200], "one letter": data[:-3] + other + data[-2:],
        "line ends": data.replace(b"\n", b"\r\n"),
    }[change])  # fmt: skip
    if change == "line ends":  # the same text, cut elsewhere by bytes or not at all
        code, out, err = unrolled("eval", "r", "--json")
        assert code == 2 or json.loads(out)["nats"] == here, err
        return
    assert "is not the one that r was trained with" in refused("eval", "r")
    assert "is not the one that r was trained with" in refused("eval", "r", "--split", "whole")
    code, _, err = unrolled("eval", "r", "--corpus", "text.txt")
    assert code == 0
    assert "note: text.txt is not as it was when r was trained on it" in err
    path.write_bytes(data)
    assert figure("r") == here
    assert "note" not in unrolled("eval", "r", "--corpus", "text.txt").err


def test_other_shares_of_the_same_text(made: Path, figure: Callable[..., float], unrolled: Command) -> None:
    """A recipe's own cut is not the usual one."""
    Path("own.toml").write_text(COUNTS + "corpus.fractions = [0.5, 0.25, 0.25]\n")
    assert unrolled("train", "own.toml", "--out", "halves", "--sample", 0).code == 0
    code, _, err = unrolled("eval", "halves", "--corpus", "text.txt")
    assert code == 0
    assert "its parts may hold text that the model has seen" in err


def test_part_of_another_text_is_told(made: Path, unrolled: Command) -> None:
    Path("other.txt").write_bytes(make_text(200, 5))
    code, _, err = unrolled("eval", "r", "--corpus", "other.txt")
    assert code == 0
    assert "note: other.txt is cut into train, valid and test, and one of these is measured; --split whole" in err
    assert "note" not in unrolled("eval", "r", "--corpus", "other.txt", "--split", "whole").err


def test_scores_sum_to_the_evaluation(made: Path, figure: Callable[..., float], unrolled: Command) -> None:
    code, out, _ = unrolled("score", "r", "text.txt", "--json")
    assert code == 0
    import math

    bits = sum(json.loads(line)["surprisal_bits"] for line in out.splitlines())
    assert bits * math.log(2) == pytest.approx(figure("r", "--split", "whole"), rel=1e-9)


def test_resume_from_elsewhere(unrolled: Command, begun: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    assert unrolled("train", "--resume", begun, "--sample", 0).code == 0


@pytest.mark.parametrize("recipe", [TINY.replace('"char"', '"word"'), COUNTS.replace('"char"', '"word"')])
def test_another_corpus_keeps_the_tokenizer(recipe: str, unrolled: Command, figure: Callable[..., float]) -> None:
    home = project("project", recipe)
    (home / "own.txt").write_bytes(make_text(300, 4))
    os.chdir(home)
    assert unrolled("train", "tiny.toml", "--corpus", "own.txt", "--out", "r", "--sample", 0).code == 0
    tokenizer = json.loads(Path("r/tokenizer.json").read_text())
    assert tokenizer["config"]["name"] == "word"
    assert len(tokenizer["state"]["words"]) < 30
    record = json.loads(Path("r/record.json").read_text())
    assert record["vocabulary"] < 30


def test_shipped_recipes_keep_their_tokenizers(unrolled: Command) -> None:
    home = project("project")
    code, out, _ = unrolled("train", "awd-lstm-ptb", "--corpus", home / "text.txt", "--dry-run", "--json")
    assert (code, json.loads(out)["vocabulary"]) == (0, 17)
    code, out, _ = unrolled("train", "ptb-char-cpu", "--corpus", home / "text.txt", "--dry-run", "--json")
    assert (code, json.loads(out)["vocabulary"] < 30) == (0, True)
    code, out, _ = unrolled("train", "--corpus", home / "text.txt", "--dry-run", "--json")
    assert (code, json.loads(out)["vocabulary"]) == (0, 256)


def test_weights_of_another_vocabulary(unrolled: Command, refused: Callable[..., str]) -> None:
    """As many characters, in other places of the table."""
    os.chdir(project("project"))
    assert unrolled("train", "tiny.toml", "--out", "a", "--sample", 0).code == 0
    text = Path("text.txt").read_text()
    letters = sorted(set(text) - set(" \n"))
    Path("b.txt").write_text(text.translate(str.maketrans({letters[0]: "!", letters[-1]: "#"})))
    Path("c.txt").write_text("".join(reversed(text.splitlines(keepends=True))))
    start = ["train", "tiny.toml", "--set", "weights.file=a/model.safetensors", "--set", "train.steps=1"]
    said = refused(*start, "--set", "corpus.path=b.txt", "--out", "b", "--sample", 0)
    assert "are for another vocabulary" in said
    assert said.endswith("read the text by their tokenizer with --set weights.tokenizer=true.")
    assert not Path("b").exists()
    same = [*start, "--set", "train.optimizer.lr=1e-9", "--set", "corpus.path=c.txt", "--sample", 0]
    done = unrolled(*same, "--out", "c")
    assert done.code == 0
    assert "begun from a/model.safetensors; " in done.err
    memory = ["--set", "model.memory={name='summary',segment=4}", "--out", "m", "--sample", 0]
    done = unrolled(*start, "--set", "corpus.path=c.txt", *memory)
    assert done.code == 0
    assert "begun from a/model.safetensors, which has no memory: that begins as a new one;" in done.err
    Path("few.txt").write_text(text.replace(letters[0], letters[1]))
    few = [*start, "--set", "train.optimizer.lr=1e-9", "--set", "corpus.path=few.txt", "--sample", 0]
    assert "are for another vocabulary" in refused(*few, "--out", "d")
    assert unrolled(*few, "--set", "weights.tokenizer=true", "--out", "d").code == 0
    whole = ["--corpus", "text.txt", "--split", "whole", "--json"]
    nats = [json.loads(unrolled("eval", run, *whole).out)["nats"] for run in ("a", "c", "d")]
    assert nats == pytest.approx([nats[0]] * 3, rel=1e-3)
    Path("lonely").mkdir()
    shutil.copy("a/model.safetensors", "lonely/model.safetensors")
    lonely = [*few, "--set", "weights.tokenizer=true", "--set", "weights.file=lonely/model.safetensors"]
    assert "there is no tokenizer.json beside lonely/model.safetensors" in refused(*lonely, "--out", "e")


def test_a_run_of_an_older_reading(made: Path, figure: Callable[..., float]) -> None:
    """Text that was read to the byte then is read so now."""
    config = json.loads(Path("r/config.json").read_text())
    assert config["version"] == 3
    Path("r/config.json").write_text(json.dumps({**config, "version": 1}))
    here = figure("r")
    Path("r/config.json").write_text(json.dumps(config))
    assert figure("r") == here


def test_options_that_nothing_would_read(made: Path, trained: Path, refused: Callable[..., str]) -> None:
    """A figure does not rest on another precision, or on other weights, than were asked for."""
    for option in (["--precision", "bf16"], ["--weights", "raw"], ["--backend", "torch"]):
        assert "is a count model; leave out" in refused("eval", "r", *option)
    said = refused("eval", trained, "--dtype", "float64", "--precision", "bf16")
    assert said == "float64 arithmetic has no bf16 products; give --precision float32 too."
    assert "--search-tokens is for a search" in refused("eval", trained, "--search-tokens", 9)
