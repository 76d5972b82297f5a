"""Runs of releases past: they open, give the figures of their time, and go on to the weights of their time."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import unrolled as ur
from train.runs import record
from unrolled.core.record import environment
from unrolled.core.tree import load_tensors
from unrolled.runs import Run
from unrolled.train import resume

PAST = Path(__file__).parents[1] / "fixtures" / "old"
FIGURES = json.loads((PAST / "figures.json").read_text())


@pytest.fixture
def past(tmp_path: Path) -> Path:
    """A copy of the folder, whose runs find their text in it."""
    home = Path(shutil.copytree(PAST, tmp_path / "past"))
    for path in home.glob("*/config.json"):
        value = json.loads(path.read_text())
        value["corpus"]["base"] = str(home)
        path.write_text(json.dumps(value))
    return home


def figures(run: Path) -> dict[str, dict[str, Any]]:
    results = {split: ur.evaluate(run, split=split, device="cpu") for split in ("valid", "test")}
    return {split: {"nats": result.nats, "tokens": result.tokens} for split, result in results.items()}


def same(found: dict[str, dict[str, Any]], wanted: dict[str, dict[str, Any]]) -> None:
    for split, values in wanted.items():
        assert found[split]["tokens"] == values["tokens"]
        assert found[split]["nats"] == pytest.approx(values["nats"], rel=0 if _same_machine() else 1e-6)


def _same_machine() -> bool:
    """Where the processor's arithmetic is that of the figures; elsewhere sums round otherwise."""
    here = environment()
    return all(here[key] == value for key, value in FIGURES["machine"].items())


def test_a_run_of_format_2(past: Path) -> None:
    run = past / "run_v2"
    opened = Run(run, "cpu")
    assert opened.config.task.name == "lm"
    assert opened.config.title == "a run of format 2"
    same(figures(run), FIGURES["stopped"])
    raw = Run(run, "cpu", weights="raw").model
    assert any(not torch.equal(p, q) for p, q in zip(raw.parameters(), opened.model.parameters(), strict=True))


def test_it_resumes_to_the_weights_of_its_time(past: Path) -> None:
    run, wanted = past / "run_v2", past / "run_v2_finished.safetensors"
    resume(run, "cpu")
    if _same_machine():
        assert (run / "model.safetensors").read_bytes() == wanted.read_bytes()
    found = load_tensors(run / "model.safetensors")
    for name, value in load_tensors(wanted).items():
        torch.testing.assert_close(found[name], value, rtol=1e-4, atol=1e-5)
    assert record(run)["tokens"] == FIGURES["tokens"]
    assert record(run)["task"] == "lm"
    same(figures(run), FIGURES["finished"])
    assert json.loads((run / "config.json").read_text())["version"] == 2, "a run keeps the config that it has"


def test_counts_of_format_2(past: Path) -> None:
    run = past / "counts_v2"
    task = Run(run).config.task
    assert (task.name, task.order, task.prune, task.dropped) == ("counts", 3, (1, 1, 2), "backoff")  # type: ignore
    same(figures(run), FIGURES["counts"])
    assert Run(run).ngrams.config.order == 3
