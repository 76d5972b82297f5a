"""Models of frames: what they learn, what they refuse, and what they write."""

import json
import math
import xml.etree.ElementTree as tree
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.frames import FrameSplit
from unrolled.generate.frames import draw_frames, strokes_svg
from unrolled.runs import Run
from unrolled.task import Evaluation
from unrolled.tasks.frames import Frames
from unrolled.train import ExperimentConfig, train
from unrolled.train.recipes import load_experiment
from unrolled.train.setup import set_up

CHORALES = {"name": "frames", "frames": {"name": "chorales", "pieces": 60, "held": 10}}
PEN = {
    "name": "frames",
    "frames": {"name": "strokes", "lines": 60, "held": 10},
    "head": {"name": "mixture", "components": 4},
}


def config_of(task: dict[str, Any], steps: int = 3, lr: float = 0.01, **model: Any) -> ExperimentConfig:
    return ExperimentConfig.parse({
        "task": task,
        "model": {"width": 24, "cell": {"name": "lstm"}, **model},
        "stream": {"columns": 12, "window": 20, "order": "shuffled"},
        "train": {
            "steps": steps, "validations": 1, "optimizer": {"name": "adam", "lr": lr}, "threads": 1,
            "schedule": {"name": "cosine"},
        },
    })  # fmt: skip


def trained(folder: Path, config: ExperimentConfig, name: str = "run") -> tuple[Path, dict[str, Any]]:
    run = train(config, folder / name, "cpu")
    return run, json.loads((run / "record.json").read_text())["valid"]["figures"]


def marginal(train_split: FrameSplit, test: FrameSplit) -> float:
    """Nats per frame of each note by its frequency alone."""
    p = (train_split.ids(0, len(train_split)).sum(0) + 0.5) / (len(train_split) + 1)
    frames = test.ids(0, len(test))
    return float(-(frames * np.log(p) + (1 - frames) * np.log(1 - p)).sum(1).mean())


@pytest.mark.slow
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn"])
def test_cells_beat_the_notes_frequencies(tmp_path: Path, cell: str) -> None:
    _, figures = trained(tmp_path, config_of(CHORALES, 250, cell={"name": cell}, width=64))
    task: Any = Frames(config_of(CHORALES), RandomStreams(1))
    assert figures["nats"] < 0.7 * marginal(task.splits["train"], task.splits["valid"])


def test_an_lstm_learns_at_once(tmp_path: Path) -> None:
    run, figures = trained(tmp_path, config_of(CHORALES, 60, 0.03, width=32))
    task: Any = Frames(config_of(CHORALES), RandomStreams(1))
    assert figures["nats"] < marginal(task.splits["train"], task.splits["valid"])
    assert figures["nats_per_number"] == pytest.approx(figures["nats"] / 88)
    settled = json.loads((run / "config.json").read_text())["task"]
    assert (settled["shift"], settled["scale"], settled["bits"]) == ([], [], 88)


@pytest.mark.slow
def test_a_mixture_beats_a_gaussian_on_strokes(tmp_path: Path) -> None:
    nats = []
    for components in (1, 5):
        task = {**PEN, "head": {"name": "mixture", "components": components}}
        nats.append(trained(tmp_path, config_of(task, 400, width=48), str(components))[1]["nats"])
    assert nats[1] < nats[0] - 0.03
    assert nats[0] < 0


@pytest.mark.parametrize("task", [CHORALES, PEN], ids=["chorales", "strokes"])
def test_measured_as_sequences_alone(task: dict[str, Any]) -> None:
    """Rows side by side, in parts, give the nats of each sequence by itself, and a limit those of the beginning."""
    parts = set_up(config_of({**task, "rows": 4}), "cpu")
    model, opened = parts.model.double(), parts.task
    split: Any = opened.splits["test"]
    nats, head = 0.0, model.head  # type: ignore[union-attr]
    for start, size in zip(split.starts, split.lengths(), strict=True):
        y = torch.from_numpy(split.ids(int(start), int(start + size))).double().unsqueeze(0)
        out = model(torch.cat([torch.zeros_like(y[:, :1]), y[:, :-1]], 1))
        nats += float(head.loss(out.dropped, y)[0].detach())  # type: ignore[operator, union-attr]
    found = opened.evaluate(model, split, Evaluation("test"))
    assert found.figures["nats"] == pytest.approx(nats / len(split), abs=1e-12)
    assert found.counts == {"frames": len(split), "sequences": 10}
    assert opened.evaluate(model, split, Evaluation("test", 7)).counts["frames"] == 7


def test_the_units_of_frames_do_not_change_what_is_learned(tmp_path: Path) -> None:
    """Ten times larger numbers are log 10 nats more each, and nothing else."""
    frames = np.cumsum(np.random.default_rng(1).normal(size=(400, 1)), 0) % 7
    nats = []
    for scale in (1, 10):
        np.save(tmp_path / f"{scale}.npy", scale * frames)
        source = {"name": "files", "train": str(tmp_path / f"{scale}.npy"), "valid": str(tmp_path / f"{scale}.npy")}
        task = {"name": "frames", "frames": source, "head": {"name": "mixture", "components": 2}}
        run, figures = trained(tmp_path, config_of(task, 20), f"run{scale}")
        nats.append(figures["nats"])
        drawn = draw_frames(Run(run, "cpu").trained, 50, 2)
        assert abs(float(drawn.mean()) / scale - 3.5) < 2
    assert nats[1] - nats[0] == pytest.approx(math.log(10), abs=1e-3)
    plain, _ = trained(tmp_path, config_of({**task, "normalize": False}, 3), "plain")
    assert json.loads((plain / "config.json").read_text())["task"]["scale"] == [1.0]


def test_what_a_model_of_frames_refuses(tmp_path: Path) -> None:
    wrong: tuple[tuple[dict[str, Any], str], ...] = (
        ({"head": {"name": "mos"}}, r"a model of frames has no model\.head"),
        ({"embedding": {"size": 3}}, r"a model of frames has no model\.embedding"),
        ({"dropout": {"embedding": 0.1}}, "frames have no rows to drop"),
    )
    for model, says in wrong:
        with pytest.raises(UsageError, match=says):
            set_up(config_of(CHORALES, **model), "cpu")
    with pytest.raises(UsageError, match="are found from the frames"):
        set_up(config_of({**CHORALES, "bits": 88}), "cpu")
    with pytest.raises(UsageError, match="for one or two real numbers a frame, and these have 0"):
        set_up(config_of({**CHORALES, "head": {"name": "mixture"}}), "cpu")
    values = config_of(CHORALES).model_dump(mode="json")
    values["train"]["extra"] = [{"name": "smooth", "weight": 0.1}]
    with pytest.raises(UsageError, match="does not take the objective smooth"):
        train(ExperimentConfig.parse(values), tmp_path / "extra", "cpu")
    np.save(tmp_path / "flat.npy", np.ones((50, 2)))
    task = {"name": "frames", "frames": {"name": "files", "train": str(tmp_path / "flat.npy")}, "head": "mixture"}
    with pytest.raises(UsageError, match="a channel of the training frames is constant"):
        set_up(config_of(task), "cpu")


def test_frames_are_drawn_one_by_one() -> None:
    """A row is the same in any batch's first place, each frame is the next one's input, and a seed repeats it."""
    model: Any = set_up(config_of(PEN, layers=2, stack={"kind": "skip"}), "cpu").model.eval()
    drawn = draw_frames(model, 12, 3, bias=0.5, seed=4)
    assert drawn.shape == (3, 12, 3)
    assert set(np.unique(drawn[..., 2])) <= {0, 1}
    assert np.array_equal(drawn, draw_frames(model, 12, 3, bias=0.5, seed=4))
    assert not np.array_equal(drawn, draw_frames(model, 12, 3, bias=0.5, seed=5))
    generator = RandomStreams(4).generator("frames")
    given = torch.from_numpy(np.concatenate([np.zeros((3, 1, 3), np.float32), drawn[:, :-1]], 1))
    with torch.no_grad():
        h = model(given).dropped
    again = torch.stack([model.head.sample(h[:, t], generator, 0.5) for t in range(12)], 1)
    torch.testing.assert_close(torch.from_numpy(drawn), again, rtol=1e-4, atol=1e-4)


def test_a_picture_has_a_line_for_each_stretch_of_the_pen() -> None:
    frames = np.array([[0, 0, 0], [1, 2, 1], [1, 0, 0], [0, -1, 1], [5, 5, 0]], np.float32)
    root = tree.fromstring(strokes_svg(frames))
    lines = [one.attrib["points"] for one in root]
    assert lines == ["0.000,-0.000 1.000,-2.000", "2.000,-2.000 2.000,-1.000", "7.000,-6.000"]
    left, top, width, height = map(float, root.attrib["viewBox"].split())
    assert (left, top, left + width, top + height) == (-1, -7, 8, 1)
    frames[3, 0] = np.nan
    assert len(tree.fromstring(strokes_svg(frames))) == 2


@pytest.mark.parametrize("name", ["piano-jsb", "pen-tiny"])
def test_recipes(name: str, tmp_path: Path) -> None:
    changes = ["model.width=8", "train.epochs=1", "stream.columns=4", "stream.window=10", "train.validations=1"]
    changes += ["task.frames.name=chorales", "task.frames.pieces=4"] if name == "piano-jsb" else ["task.frames.lines=4"]
    config = load_experiment(name, [*changes, "task.frames.held=2"])
    assert trained(tmp_path, config)[1]["nats"] < 70
