"""What is read of a run's log, whatever happened to it."""

import json
from pathlib import Path

import pytest

from train.runs import experiment, write_text
from unrolled.analyse import RecoveryConfig, recovery_of_run
from unrolled.compare.execute import measured
from unrolled.compare.plan import MeasureConfig
from unrolled.compare.running import train_nats, validations
from unrolled.compare.timing import time_systems
from unrolled.core.errors import UnrolledError
from unrolled.runs import Run
from unrolled.train import train


def line(kind: str, step: int, nats: float) -> str:
    return json.dumps({"type": kind, "step": step, "tokens": 10 * step, "cpu": 0.1 * step, "nats": nats}) + "\n"


def test_steps_that_were_written_twice_count_once(tmp_path: Path) -> None:
    """By a worker that slept while its job was taken over."""
    text = line("train", 90, 2.0) + line("train", 100, 1.0) + line("valid", 100, 1.5)
    (tmp_path / "metrics.jsonl").write_text(text + line("train", 100, 1.0) + line("valid", 100, 1.5) + text)
    assert train_nats(tmp_path) == 1.0
    assert [point["tokens"] for point in validations(tmp_path)] == [1000]
    (tmp_path / "metrics.jsonl").write_text(line("train", 100, 1.0) + line("train", 95, 3.0) + line("train", 95, 3.0))
    assert train_nats(tmp_path) == 2.0


def test_a_last_line_that_is_being_written_is_left_out(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text(line("valid", 10, 1.5) + line("valid", 20, 1.4)[:-9])
    assert [point["tokens"] for point in validations(tmp_path)] == [100]


@pytest.mark.parametrize("text", ["{\n", "[]\n", "{}\n", '{"type": "valid"}\n', "3\n", "\0\n"])
def test_a_damaged_line_is_told(tmp_path: Path, text: str) -> None:
    (tmp_path / "metrics.jsonl").write_text(line("valid", 10, 1.5) + text)
    with pytest.raises(UnrolledError, match="is damaged; delete"):
        list(validations(tmp_path))


def test_further_figures_are_those_of_the_recovery_probe(tmp_path: Path) -> None:
    """All lags and the first one, of places of the validation split."""
    run = Run(train(experiment(write_text(tmp_path / "text"), train={"steps": 5}), tmp_path / "run"), "cpu")
    found = measured(run, MeasureConfig(name="recovery", places=12, lags=4, columns=2))
    config = RecoveryConfig.parse({"split": "valid", "places": 12, "lags": 4, "columns": 2})
    excess = recovery_of_run(run, config=config).excess
    assert excess.shape == (12, 5)
    assert found["recovery_bits"] == pytest.approx(excess.sum(1).mean())
    assert found["recovery_first_bits"] == pytest.approx(excess[:, 0].mean())


def test_timing_tells_the_larger_system(tmp_path: Path) -> None:
    """Side by side, with nothing written."""
    text = write_text(tmp_path / "text")
    systems = {str(width): experiment(text, model={"width": width}) for width in (4, 300)}
    told: list[str] = []
    found = time_systems(systems, 1, told.append)
    assert 0 < 2 * found["seconds_per_token"]["4"] < found["seconds_per_token"]["300"]
    assert set(found["spread"]) == {"4", "300"}
    assert told[:2] == ["timing 4", "timing 300"]
    assert "timing, round 12 of 12" in told
    assert {path.name for path in tmp_path.iterdir()} <= {"text", "cache"}
