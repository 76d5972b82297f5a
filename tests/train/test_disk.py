"""Disks that are full or broken: one sentence, and the checkpoint before survives."""

import errno
import os
import signal
from pathlib import Path

import pytest

from train import killing
from train.runs import experiment, record
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.evaluate import EvalConfig
from unrolled.runs import Run
from unrolled.train import Reporter, resume, train
from unrolled.train.progress import Progress


class Filler(Reporter):
    """Fills the disk at a step."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int, code: int):
        self.patch, self.at, self.code = patch, at, code

    def step(self, progress: Progress, nats: float, lr: float) -> None:
        if progress.step == self.at:

            def full(handle: int) -> None:
                raise OSError(self.code, os.strerror(self.code))

            self.patch.setattr(os, "fsync", full)


@pytest.mark.parametrize("at", [1, 10, 11, 30])
def test_full_disk(at: int, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = experiment(text, train={"steps": 30, "validations": 3, "save_minutes": 0.0})
    with monkeypatch.context() as patch, pytest.raises(UnrolledError, match=r"no space left .* is intact") as caught:
        train(config, tmp_path / "run", "cpu", Filler(patch, at, errno.ENOSPC))
    assert caught.value.exit_code == 1
    assert not list((tmp_path / "run").rglob("*.part"))
    if at > 10:
        assert Run(tmp_path / "run", "cpu").model.num_params()
    resume(tmp_path / "run", "cpu")
    train(config, tmp_path / "whole", "cpu")
    paths = [tmp_path / name / "model.safetensors" for name in ("run", "whole")]
    assert paths[0].read_bytes() == paths[1].read_bytes()


def test_read_only_disk(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="permission denied; choose another folder"):
        train(experiment(text), tmp_path / "run", "cpu", Filler(monkeypatch, 5, errno.EROFS))


def test_largest_file_size(text: Path, tmp_path: Path) -> None:
    """The system's own limit, met inside the writer of the weights."""
    config = experiment(text, model={"width": 64}, train={"steps": 4})
    said = killing.run_limited(config, tmp_path / "run", 40_000)
    assert said.startswith("cannot write")
    assert said.endswith("File too large.")
    resume(tmp_path / "run", "cpu")


def test_one_process_a_run(text: Path, tmp_path: Path) -> None:
    class Second(Reporter):
        """Tries to train in the same folder meanwhile."""

        message = ""

        def step(self, progress: Progress, nats: float, lr: float) -> None:
            if progress.step == 3:
                with pytest.raises(UsageError) as caught:
                    resume(tmp_path / "run", "cpu")
                self.message = str(caught.value)

    report = Second()
    run = train(experiment(text, train={"steps": 6}), tmp_path / "run", "cpu", report)
    assert "another process is training in" in report.message
    assert record(run)["steps"] == 6


def test_signal_handlers_come_back(text: Path, tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    train(experiment(text, train={"steps": 2}), tmp_path / "run", "cpu")
    assert signal.getsignal(signal.SIGTERM) is before


def test_second_signal_ends_at_once(text: Path, tmp_path: Path) -> None:
    class Impatient(Reporter):
        def step(self, progress: Progress, nats: float, lr: float) -> None:
            if progress.step == 3:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        train(experiment(text), tmp_path / "run", "cpu", Impatient())
    assert resume(tmp_path / "run", "cpu")


def test_stop_during_the_final_score(text: Path, tmp_path: Path) -> None:
    class Stopper(Reporter):
        def note(self, said: str) -> None:
            if said.startswith("scoring"):
                signal.raise_signal(signal.SIGTERM)

    config = experiment(text, train={"steps": 5, "final_eval": True})
    with pytest.raises(UnrolledError, match="stopped by SIGTERM at the final score"):
        train(config, tmp_path / "run", "cpu", Stopper())
    assert record(tmp_path / "run")["status"] == "stopped"
    resume(tmp_path / "run", "cpu")
    done = record(tmp_path / "run")
    assert (done["status"], done["steps"]) == ("finished", 5)
    assert done["valid_exact"]["protocol"]["columns"] == EvalConfig().columns
