"""Models of frames on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from cli.conftest import Command
from unrolled.train import ExperimentConfig, train

SIZES = {
    "model": {"width": 8},
    "stream": {"columns": 4, "window": 10},
    "train": {"steps": 4, "validations": 1, "threads": 1},
}


@pytest.fixture
def chorales(tmp_path: Path) -> Path:
    task = {"name": "frames", "frames": {"name": "chorales", "pieces": 8, "held": 2}}
    return train(ExperimentConfig.parse({**SIZES, "task": task}), tmp_path / "chorales", "cpu")


@pytest.fixture
def pen(tmp_path: Path) -> Path:
    task = {"name": "frames", "frames": {"name": "strokes", "lines": 8, "held": 2}, "head": "mixture"}
    return train(ExperimentConfig.parse({**SIZES, "task": task}), tmp_path / "pen", "cpu")


def test_train_eval_generate(unrolled: Command, tmp_path: Path) -> None:
    small = ["--set", "model.width=8", "--set", "train.steps=3", "--set", "stream.columns=4"]
    code, out, err = unrolled("train", "pen-tiny", *small, "--out", "run")
    assert code == 0, err
    assert "nats per frame" in out
    code, out, err = unrolled("eval", "run", "--split", "test", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert set(found["figures"]) == {"nats", "nats_per_number", "mse", "mse_of_copying"}
    code, out, err = unrolled("generate", "run", "-n", "5", "--bias", "1", "--svg", "out.svg")
    assert code == 0, err
    points = [json.loads(line) for line in out.splitlines()]
    assert [len(point) for point in points] == [3] * 5
    assert Path("out.svg").read_text().startswith("<svg ")
    assert unrolled("generate", "run", "-n", "5", "--bias", "1").out == out


def test_notes_are_written_as_numbers(unrolled: Command, chorales: Path) -> None:
    code, out, err = unrolled("generate", chorales, "-n", "6", "--samples", "2", "--json")
    assert code == 0, err
    found = json.loads(out)
    assert [len(one["frames"]) for one in found] == [6, 6]
    assert all(21 <= note <= 108 for one in found for notes in one["frames"] for note in notes)
    lines = unrolled("generate", chorales, "-n", "6", "--samples", "2").out.splitlines()
    assert [json.loads(line) for line in lines if line] == [*found[0]["frames"], *found[1]["frames"]]


def test_what_is_refused(refused: Callable[..., str], chorales: Path, pen: Path) -> None:
    assert "given no text; leave out --prompt" in refused("generate", chorales, "--prompt", "x")
    Path("x.txt").write_text("a")
    assert "leave out --prompt-file" in refused("generate", chorales, "--prompt-file", "x.txt")
    assert "leave out --top-k" in refused("generate", chorales, "--top-k", "3")
    assert "does not write pen strokes" in refused("generate", chorales, "--svg", "x.svg")
    assert "the head bernoulli has no bias" in refused("generate", chorales, "--bias", "1")
    assert "a number, 0 or above" in refused("generate", pen, "--bias", "the=1")
    assert "a bias is 0 or above" in refused("generate", pen, "--bias=-1")
    assert "there is one --bias" in refused("generate", pen, "--bias", "1", "--bias", "2")
    assert "leave out --samples" in refused("generate", pen, "--svg", "x.svg", "--samples", "2")
    assert not Path("x.svg").exists()
    assert "reads no corpus" in refused("eval", chorales, "--corpus", "pydoc")
    assert "unknown split" in refused("eval", chorales, "--split", "whole")


@pytest.mark.parametrize(
    "verb",
    [
        ["score"], ["compress"], ["serve"], ["export"], ["inspect", "trace"], ["inspect", "memory"],
        ["inspect", "gates"], ["eval", "--points", "length=4"],
    ],
    ids=" ".join,
)  # fmt: skip
def test_verbs_of_tokens_refuse(refused: Callable[..., str], chorales: Path, verb: list[str]) -> None:
    Path("text.txt").write_text("some words\n")
    more = {"score": ["text.txt"], "compress": ["text.txt"], "export": ["x.onnx"], "eval": []}.get(verb[0], [])
    name, *options = verb
    places = [name, chorales, *options] if name == "eval" else [*verb, chorales]
    assert "is a model of frames" in refused(*places, *more)


def test_a_strip_of_pictures(unrolled: Command, refused: Callable[..., str], tmp_path: Path, pen: Path) -> None:
    squares = {"name": "squares", "side": 5, "square": 2, "length": 6, "sequences": 30}
    task = {"name": "frames", "frames": squares, "head": "values", "given": 2}
    run = train(ExperimentConfig.parse({**SIZES, "task": task}), tmp_path / "squares", "cpu")
    code, out, err = unrolled("generate", run, "--png", "strip.png", "--samples", "2", "-n", "3", "--json")
    assert code == 0, err
    assert [(len(one["frames"]), len(one["frames"][0])) for one in json.loads(out)] == [(3, 25)] * 2
    assert Path("strip.png").read_bytes().startswith(b"\x89PNG")
    drawn = unrolled("generate", run, "-n", "3", "--samples", "2", "--json").out
    assert drawn != out, "without a strip they are drawn from nothing"
    assert "lower --samples" in refused("generate", run, "--png", "no.png", "--samples", "4")
    assert "leave out --bias" in refused("generate", run, "--png", "no.png", "--bias", "1")
    assert "are no pictures" in refused("generate", pen, "--png", "no.png")
    plain = train(ExperimentConfig.parse({**SIZES, "task": {**task, "given": 0}}), tmp_path / "plain", "cpu")
    assert "a strip begins with given frames" in refused("generate", plain, "--png", "no.png")
    assert not Path("no.png").exists()


def test_svg_is_for_strokes(refused: Callable[..., str], trained: Path) -> None:
    for option in ("--svg", "--png"):
        assert "does not write pen strokes or pictures" in refused("generate", trained, option, "x.svg")


def test_writing_a_text(unrolled: Command, refused: Callable[..., str]) -> None:
    small = [
        "--set",
        "model.width=8",
        "--set",
        "train.steps=3",
        "--set",
        "task.batch=4",
        "--set",
        "task.frames.lines=8",
    ]
    code, _, err = unrolled("train", "pen-written", *small, "--out", "run")
    assert code == 0, err
    code, out, err = unrolled("generate", "run", "--prompt", "dace", "-n", "9", "--samples", "2", "--json")
    assert code == 0, err
    assert len(json.loads(out)) == 2
    assert "say one with --prompt" in refused("generate", "run")
    assert "letters of abcde and no others" in refused("generate", "run", "--prompt", "xyz")
    assert "longer than the model's 8" in refused("generate", "run", "--prompt", "abcdeabcde")


@pytest.mark.parametrize("made", ["chorales", "pen"])
def test_weights_that_make_no_finite_frames(
    refused: Callable[..., str], request: pytest.FixtureRequest, made: str
) -> None:
    """Damaged, but finite: no check at loading finds them."""
    run = request.getfixturevalue(made)
    weights = load_file(run / "model.safetensors")
    save_file({name: torch.full_like(value, 3e38) for name, value in weights.items()}, run / "model.safetensors")
    said = "is not a finite number; the model's weights are damaged or diverged"
    assert said in refused("eval", run, "--split", "test", "--json", code=1)
    assert "damaged or diverged" in refused("generate", run, "-n", "5", "--json", code=1)
