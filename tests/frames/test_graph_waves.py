"""Waves over a graph, and the graph that a model is told by its data."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.frames.graph_waves import GraphWaves, GraphWavesConfig
from unrolled.runs import Run
from unrolled.tasks.frames import Frames
from unrolled.train import ExperimentConfig, train
from unrolled.train.setup import set_up

WAVES = {"name": "graph_waves", "nodes": 8, "neighbours": 2, "length": 6, "sequences": 30}


def config_of(cell: Any, frames: Any = WAVES, steps: int = 2, width: int = 32, **head: Any) -> ExperimentConfig:
    return ExperimentConfig.parse({
        "task": {"name": "frames", "frames": frames, "head": {"name": "values", **head}, "plain": True, "given": 2},
        "model": {"width": width, "cell": cell}, "stream": {"columns": 4, "window": 6},
        "train": {"steps": steps, "validations": 1, "threads": 1, "optimizer": {"name": "adam", "lr": 0.02}},
    })  # fmt: skip


def test_waves_follow_their_equation() -> None:
    """Without noise the next frame is that of the last two and the graph; energy does not grow."""
    source = GraphWaves(GraphWavesConfig.parse({**WAVES, "noise": 0.0, "length": 40}))
    splits = source.splits()
    assert {name: len(split.starts) for name, split in splits.items()} == {"train": 30, "valid": 3, "test": 3}
    assert splits["train"].checksum == GraphWaves(source.config).splits()["train"].checksum != splits["test"].checksum
    weights = source.graph.matrix()
    assert (weights == weights.T).all()
    assert ((weights > 0).sum(0) >= 2).all()
    degree = weights.sum(0)
    plain = np.eye(8) - weights / np.sqrt(degree[:, None] * degree)
    share = plain / np.linalg.eigvalsh(plain).max()
    u = splits["train"].ids(0, len(splits["train"])).reshape(30, 40, 8).astype(np.float64)
    assert np.allclose(u[:, 1], u[:, 0] - 2.56 * u[:, 0] @ share, atol=1e-5)
    assert np.allclose(u[:, 2:], 2 * u[:, 1:-1] - u[:, :-2] - 2.56 * u[:, 1:-1] @ share, atol=1e-5)
    assert np.allclose(u[:, 0].std(1), 1, atol=1e-6)
    assert np.abs(u).max() < 20
    with pytest.raises(UsageError, match="have 7 neighbours at most"):
        GraphWavesConfig.parse({**WAVES, "neighbours": 8})


def test_a_run_keeps_the_graph_of_its_frames(tmp_path: Path) -> None:
    """And can be read where its data would be others."""
    config = config_of({"name": "gcrn", "graph": "data"}, maps=4)
    task: Any = Frames(config, RandomStreams(1))
    run = train(config, tmp_path / "run", "cpu")
    kept = json.loads((run / "config.json").read_text())["model"]["cell"]
    assert kept["nodes"] == 8
    assert [tuple(edge) for edge in kept["edges"]] == list(task.frame_source.graph.edges)
    assert Run(run, "cpu").trained.config.cell.shape() == task.frame_source.graph


def test_a_graph_beside_files(tmp_path: Path) -> None:
    np.save(tmp_path / "x.npy", np.random.default_rng(1).normal(size=(60, 6)))
    np.save(tmp_path / "graph.npy", np.array([[0, 1, 0], [1, 0, 2], [0, 2, 0]]))
    files = {"name": "files", "train": str(tmp_path / "x.npy")}
    model: Any = set_up(config_of({"name": "gcrn", "graph": "data"}, {**files, "graph": str(tmp_path / "graph.npy")},
                                  width=6, maps=2), "cpu").model  # fmt: skip
    assert model.config.cell.edges == ((0, 1, 1.0), (1, 2, 2.0))
    assert model.stack.cells()[0].weight_ih.shape == (8, 2 * 3), "two features of three nodes, three terms"
    with pytest.raises(UsageError, match=r"have no graph here; set model\.cell\.graph=ring"):
        set_up(config_of({"name": "gcrn", "graph": "data"}, files, width=6, maps=2), "cpu")


@pytest.mark.slow
def test_a_model_that_knows_the_graph_goes_on_better(tmp_path: Path) -> None:
    """Beside one whose nodes are alone, and an LSTM that has to learn which nodes are neighbours."""
    frames = {**WAVES, "nodes": 16, "neighbours": 3, "length": 10, "sequences": 300}
    found = {}
    for name, cell, width, head in (
        ("graph", {"name": "gcrn", "graph": "data"}, 16 * 12, {"maps": 12}),
        ("alone", {"name": "gcrn", "graph": "data", "terms": 1}, 16 * 12, {"maps": 12}),
        ("lstm", {"name": "lstm"}, 96, {}),
    ):
        torch.manual_seed(0)
        run = train(config_of(cell, frames, 250, width, **head), tmp_path / name, "cpu")
        found[name] = json.loads((run / "record.json").read_text())["valid"]["figures"]
    future = {name: one["mse_future"] / one["mse_future_of_copying"] for name, one in found.items()}
    assert future["graph"] < 0.1 < 0.25 < future["alone"]
    assert future["graph"] < future["lstm"]
