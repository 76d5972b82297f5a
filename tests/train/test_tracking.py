"""Copies of the log for other programs: one strictly increasing series, whatever happened to the run."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from train.runs import events, experiment, write_text
from unrolled.core.errors import StoppedError, UnrolledError, UsageError
from unrolled.train import loop, resume, train
from unrolled.train.metrics import MetricsLog
from unrolled.train.tracking import TENSORBOARD, TRACKERS, make_trackers


@pytest.fixture
def text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    return write_text(tmp_path / "text")


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    original, steps = loop.train_step, [0]

    def stopped(*arguments: Any, **options: Any) -> Any:
        steps[0] += 1
        if steps[0] == step:
            signal.raise_signal(signal.SIGINT)
        return original(*arguments, **options)

    monkeypatch.setattr(loop, "train_step", stopped)


def series(run: Path) -> dict[str, list[tuple[int, float]]]:
    accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="tensorboard is not installed (the extra track)",
    ).EventAccumulator(str(run / TENSORBOARD))
    accumulator.Reload()
    return {
        tag: [(point.step, point.value) for point in accumulator.Scalars(tag)]
        for tag in accumulator.Tags()["scalars"]
    }  # fmt: skip


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_tensorboard_after_a_stop(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is not installed (the extra track)")
    config = experiment(text)
    with monkeypatch.context() as patch:
        stop_at(patch, 33)
        with pytest.raises(StoppedError):
            train(config, tmp_path / "run", track=["tensorboard"])
    # lines after the state that is gone on from do not count, and are not there twice
    resume(tmp_path / "run", track=["tensorboard"])
    found, lines = series(tmp_path / "run"), events(tmp_path / "run")
    for kind in ("train", "valid"):
        steps = [step for step, _ in found[f"{kind}/nats"]]
        assert steps == sorted(set(steps))
        expected = [(line["step"], line["nats"]) for line in lines if line["type"] == kind]
        assert found[f"{kind}/nats"] == [(step, pytest.approx(nats, rel=1e-6)) for step, nats in expected]
    assert {"train/lr", "train/grad_norm", "progress/tokens_at_valid"} <= set(found)


def test_lines_on_standard_output(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with monkeypatch.context() as patch:
        stop_at(patch, 33)
        with pytest.raises(StoppedError):
            train(experiment(text), tmp_path / "run")
    capsys.readouterr()
    resume(tmp_path / "run", track=["stdout-json"])
    told = capsys.readouterr().out.splitlines()
    assert told == [
        json.dumps(json.loads(line)) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]


def test_a_line_is_written_whole_or_fails(tmp_path: Path) -> None:
    """A file takes a part of a line where the disk is full after it."""
    log = MetricsLog(tmp_path)
    original, taken = log._file, []

    class Short:
        def write(self, data: bytes) -> int:
            taken.append(data[:3])
            return len(data[:3])

        def close(self) -> None:
            original.close()

    log._file = Short()  # type: ignore[assignment]
    log.append(type="train", step=1)
    assert json.loads(b"".join(taken)) == {"type": "train", "step": 1}
    log.close()


def test_a_damaged_log_cannot_be_tracked(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").write_text("{\n")
    log = MetricsLog(tmp_path, make_trackers(["stdout-json"], tmp_path))
    with pytest.raises(UnrolledError, match="is damaged, and cannot be copied; resume without --track"):
        log.begin(2)
    log.close()


def test_what_cannot_be_tracked(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="unknown tracker 'tensorbord'; did you mean 'tensorboard'"):
        train(experiment(text), tmp_path / "run", track=["tensorbord"])
    assert not (tmp_path / "run").exists()
    monkeypatch.setitem(__import__("sys").modules, "torch.utils.tensorboard", None)
    with pytest.raises(UnrolledError, match=r"needs tensorboard; pip install 'unrolled\[track\]'"):
        make_trackers(["tensorboard"], tmp_path)
    assert set(TRACKERS) == {"tensorboard", "stdout-json"}


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_run_that_was_killed_is_one_series_in_each_tracker(
    text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Lines after the state that was saved last are there when a run is killed, and are written anew by the resumed
    one."""

    class Killed(BaseException):
        pass

    original, steps = loop.train_step, [0]

    def killed(*arguments: Any, **options: Any) -> Any:
        steps[0] += 1
        if steps[0] == 33:
            raise Killed
        return original(*arguments, **options)

    run, trackers = tmp_path / "run", [name for name in TRACKERS if name != "tensorboard" or _has_tensorboard()]
    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", killed)
        with pytest.raises(Killed):
            train(experiment(text, train={"log_every": 1}), run, track=trackers)
    before = [line["step"] for line in events(run) if line["type"] == "train"]
    capsys.readouterr()
    resume(run, track=trackers)
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    told = [line["step"] for line in lines if line["type"] == "train"]
    assert told == list(range(1, len(told) + 1))
    assert len(told) > len(before) == 32
    if _has_tensorboard():
        assert [step for step, _ in series(run)["train/nats"]] == told


def _has_tensorboard() -> bool:
    from importlib.util import find_spec

    return find_spec("tensorboard") is not None
