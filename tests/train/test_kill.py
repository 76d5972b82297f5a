"""A run that is killed at any moment and resumed ends as the uninterrupted run does, to the byte."""

from pathlib import Path
from typing import Any

import pytest

from train import killing
from train.runs import events, experiment, record

DROPOUT = {"embedding": 0.1, "input": 0.2, "between": 0.2, "state": 0.2, "output": 0.3}
SETUPS: dict[str, dict[str, Any]] = {
    "plain": {},
    "fused": {"model": {"compute": {"backend": "fused"}, "cell": {"name": "mlstm"}}, "train": {"log_every": 1}},
    "accumulate-dropout": {
        "model": {"layers": 2, "dropout": DROPOUT},
        "train": {"steps": 30, "accumulate": 3, "optimizer": {"name": "adamw", "lr": 0.01, "weight_decay": 0.1}},
    },
    "phases": {
        "train": {
            "steps": 25,
            "validations": 5,
            "then": [
                {"steps": 20, "optimizer": {"name": "sgd", "lr": 2.0, "momentum": 0.9}},
                {"tokens": 700, "optimizer": {"name": "adam", "lr": 0.002}},
            ],
        }
    },
    # a rate at which validations get worse, so that phases end early and the best weights are not the last
    "patience": {
        "train": {
            "steps": 40,
            "validations": 20,
            "patience": 2,
            "optimizer": {"name": "adam", "lr": 0.3},
            "then": [{"steps": 40, "optimizer": {"name": "adam", "lr": 0.3}}],
        }
    },
    "shuffled": {
        "corpus": {"reset": "line"},
        "stream": {"order": "shuffled", "variable_windows": True},
        "train": {"epochs": 1.3, "validations": 4},
    },
    "moving": {
        "stream": {"variable_windows": True, "window_cap": 20, "jitter": 5, "random_offset": True},
        "train": {"tokens": 9_000},
    },
    "no-validation": {"corpus": {"train": "TRAIN", "path": None}, "train": {"validations": 5}},
    "averages": {
        "model": {"embedding": {"tied": True}, "dropout": {"weight": 0.2, "zoneout": {"h": 0.1}}},
        "stream": {"variable_windows": True, "state_drop": 0.2},
        "train": {
            "steps": 30,
            "validations": 15,
            "optimizer": {"name": "sgd", "lr": 3.0},
            "lr_by_length": True,
            "averaging": {"name": "nonmonotone", "patience": 1},
            "then": [
                {"steps": 12, "optimizer": {"name": "sgd", "lr": 2.0}, "averaging": {"name": "two_tailed"}},
                {"steps": 12, "averaging": {"name": "tail", "patience": 1, "latest": 3}},
                {"steps": 12, "averaging": {"name": "ema", "decay": 0.8}},
                {"steps": 40, "optimizer": {"name": "sgd", "lr": 9.0}, "averaging": "uniform", "nonmonotone_stop": 1},
            ],
        },
    },
    "rare-saves": {"train": {"save_minutes": 5.0, "validations": 4}},
    "sampled": {
        "model": {"head": {"name": "softmax", "negatives": 4, "frequent": 6}},
        "train": {"optimizer": {"name": "normed_rmsprop", "lr": 0.1, "weight_decay": 0.001}},
    },
}


def setup(name: str, text: Path, scale: int = 1) -> Any:
    """One of the configurations above; ``scale`` lengthens its budgets in steps."""
    parts = {part: dict(changes) for part, changes in SETUPS[name].items()}
    if "train" in parts.get("corpus", {}):
        parts["corpus"]["train"] = str(text / "train.txt")
    if scale > 1:
        train = parts.setdefault("train", {})
        budget = next((b for b in ("epochs", "tokens") if b in train), "steps")
        train[budget] = train.get(budget, 60) * scale
    return experiment(text, **parts)


def same_end(run: Path, other: Path) -> None:
    """Weights, metrics and counts of two runs are equal."""
    assert (run / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()
    assert events(run) == events(other)
    first, second = record(run), record(other)
    assert first["status"] == second["status"] == "finished"
    for key in (
        "steps",
        "tokens",
        "best_step",
        "averaging_began",
        "valid",
        "phase",
        "phase_step",
        "phase_steps",
        "checksums",
    ):
        assert first[key] == second[key], key
    assert not list(run.rglob("*.part"))
    assert len(list((run / "train_state").iterdir())) == 1


@pytest.mark.parametrize(
    "name",
    [
        "phases",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("accumulate-dropout", "shuffled", "averages")),
    ],
)
def test_random_kills(name: str, text: Path, tmp_path: Path) -> None:
    config = setup(name, text, scale=2)
    took = killing.seconds(config, tmp_path / "whole")
    for run in killing.kill_and_resume(config, tmp_path, kills=5, longest=0.4 * took, seed=len(name)):
        same_end(run, tmp_path / "whole")


MOMENTS = [
    ("unrolled.tasks.text:save_tokenizer", 1, True),
    ("unrolled.train.loop:plan_steps", 1, True),
    ("unrolled.train.checkpoint:save", 1, False),
    ("unrolled.train.checkpoint:save", 1, True),
    ("unrolled.train.validation:Validator.quick", 2, False),
    ("unrolled.train.validation:Validator.quick", 2, True),
    ("unrolled.core.tree:save_tensors", 4, True),
    ("unrolled.train.checkpoint:save_file", 3, True),
    ("unrolled.train.loop:write_record", 9, False),
    ("unrolled.train.loop:Trainer._next_phase", 1, False),
    ("unrolled.train.loop:Trainer._next_phase", 1, True),
    ("unrolled.train.loop:plan_steps", 2, True),
    ("unrolled.train.loop:Trainer.run", 1, True),
]


@pytest.mark.parametrize("name", ["patience", "phases"])
def test_kills_at_every_delicate_moment(name: str, text: Path, tmp_path: Path) -> None:
    config = setup(name, text)
    killing.seconds(config, tmp_path / "whole")
    moments = MOMENTS if name == "phases" else MOMENTS[7:]
    for moment in moments:
        code = killing.run(config, tmp_path / "killed", die=moment)
        if moment[0].endswith("save_tokenizer"):
            assert not (tmp_path / "killed" / "config.json").exists()
        assert code in (-9, 0)
        if code == 0:
            break
    if record(tmp_path / "killed")["status"] != "finished":
        assert killing.run(config, tmp_path / "killed") == 0
    same_end(tmp_path / "killed", tmp_path / "whole")


@pytest.mark.parametrize("moment", MOMENTS, ids=lambda moment: f"{moment[0].rpartition(':')[2]}-{moment[1:]}")
def test_one_kill(moment: tuple[str, int, bool], text: Path, tmp_path: Path) -> None:
    """Every moment is reached: the process did die there."""
    config = experiment(text, train={"steps": 8, "validations": 4, "then": [{"steps": 4}]})
    out = tmp_path / "run"
    assert killing.run(config, out, die=moment) == -9
    assert killing.run(config, out) == 0
    killing.seconds(config, tmp_path / "whole")
    same_end(out, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("name", SETUPS)
def test_twenty_random_kills(name: str, text: Path, tmp_path: Path) -> None:
    config = setup(name, text, scale=6)
    took = killing.seconds(config, tmp_path / "whole")
    runs = killing.kill_and_resume(config, tmp_path, kills=20, longest=max(took / 6, 0.25), seed=len(name))
    for run in runs:
        same_end(run, tmp_path / "whole")
