"""Budgets, schedules, phases and early stops."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from train.runs import events, experiment, make_text, record
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.tree import load_tensors
from unrolled.optim import learning_rate_factor
from unrolled.runs import Run
from unrolled.train import Clock, Reporter, budget, loop, pace, resume, train
from unrolled.train.config import PhaseConfig, TrainConfig
from unrolled.train.loop import Trainer
from unrolled.train.progress import Progress
from unrolled.train.validation import Validator


def run(text: Path, out: Path, **parts: Any) -> Path:
    return train(experiment(text, **parts), out, "cpu")


def test_default_budget_is_saved() -> None:
    config = TrainConfig()
    assert config.budget() == ("cpu_minutes", 2.0)
    assert TrainConfig.parse(config.model_dump()) == config
    assert TrainConfig.parse({"steps": 3}).budget() == ("steps", 3)


@pytest.mark.parametrize(("budget", "low"), [({"tokens": 3000}, 3000), ({"epochs": 0.5}, None)])
def test_tokens_and_epochs(budget: dict[str, Any], low: int | None, text: Path, tmp_path: Path) -> None:
    done = record(run(text, tmp_path / "run", train=budget))
    wanted = low or done["tokens"] / done["epochs"] * 0.5
    assert wanted <= done["tokens"] < wanted + 2 * 48


def test_accumulation_reads_more_for_a_step(text: Path, tmp_path: Path) -> None:
    done = record(run(text, tmp_path / "run", train={"steps": 5, "accumulate": 3}))
    assert done["tokens"] == 5 * 3 * 4 * 12


def test_a_resumed_run_keeps_the_plan(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in its second phase; time spent before the call does not count."""
    monkeypatch.setattr(pace, "REVISIONS", ())

    class Killer(Reporter):
        def step(self, progress: Progress, nats: float, lr: float) -> None:
            if progress.phase == 1 and progress.phase_step == 2:
                raise KeyboardInterrupt

    config = experiment(
        text,
        train={"cpu_minutes": 0.006, "validations": 1, "valid_tokens": 50, "then": [{"cpu_minutes": 0.006}]},
    )
    with pytest.raises(KeyboardInterrupt):
        train(config, tmp_path / "run", "cpu", Killer())
    steps = record(tmp_path / "run")["phase_steps"]
    first = record(tmp_path / "run")["steps"]
    assert steps > 3
    assert first > 3
    resume(tmp_path / "run", "cpu")
    done = record(tmp_path / "run")
    assert (done["phase"], done["phase_step"], done["phase_steps"]) == (2, steps, steps)


def test_time_budgets_are_revised(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A first plan that is wrong by far is put right, and every plan is on record; budgets in steps never change."""
    monkeypatch.setattr(loop, "plan_steps", lambda *_: 10**6)
    done = record(run(text, tmp_path / "run", train={"cpu_minutes": 0.015, "validations": 1, "valid_tokens": 50}))
    plans = done["plans"]
    assert plans[0] == [0, 10**6]
    assert 2 <= len(plans) <= 1 + len(budget.REVISIONS)
    assert plans[-1][1] == done["steps"] < 10**5
    monkeypatch.undo()
    assert record(run(text, tmp_path / "steps", train={"steps": 30}))["plans"] == [[0, 30]]


def test_no_time_left(text: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no time is left to train"):
        train(experiment(text, train={"minutes": 0.001}), tmp_path / "run", "cpu", clock=Clock(from_start=True))


def _child(arguments: list[str], home: Path) -> tuple[float, float]:
    """CPU seconds and peak megabytes of the command, as the system counts them."""
    program = (
        "import resource, subprocess, sys\n"
        "code = subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL).returncode\n"
        "used = resource.getrusage(resource.RUSAGE_CHILDREN)\n"
        "print(code, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024)"
    )
    command = [sys.executable, "-c", program, sys.executable, "-m", "unrolled", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=home)
    code, cpu, peak = done.stdout.split()
    assert code == "0", done.stderr
    return float(cpu), float(peak)


def _settings(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


SMALL = _settings(
    "model.width=16", "stream.columns=8", "stream.window=32", "train.final_eval=false", "train.validations=2"
)


@pytest.mark.slow
def test_cpu_minutes(text: Path, tmp_path: Path) -> None:
    arguments = ["train", "--corpus", str(text), *SMALL, *_settings("train.cpu_minutes=0.2"), "--out", "run"]
    cpu, _ = _child([*arguments, "--sample", "0"], tmp_path)
    done = record(tmp_path / "run")
    print(f"{cpu:.2f} CPU seconds of 12; the record says {done['cpu_seconds']:.2f}")  # noqa: T201
    assert cpu == pytest.approx(12.0, rel=0.25)
    assert done["cpu_seconds"] == pytest.approx(cpu, rel=0.1)
    assert done["phase_step"] == done["phase_steps"]


@pytest.mark.slow
def test_memory_of_a_large_text(tmp_path: Path) -> None:
    """200 MB of text add less than 300 MB to the process that trains on 0.1 MB."""
    block = make_text(3000)
    (tmp_path / "small.txt").write_bytes(block)
    with (tmp_path / "large.txt").open("wb") as file:
        for _ in range(200_000_000 // len(block)):
            file.write(block)
    peaks = []
    for name in ("small", "large"):
        arguments = ["train", "--corpus", f"{name}.txt", *SMALL, *_settings("train.steps=10"), "--out", name]
        _, peak = _child([*arguments, *_settings("train.valid_tokens=20000"), "--sample", "0"], tmp_path)
        peaks.append(peak)
    print(f"peak {peaks[0]:.0f} MB small, {peaks[1]:.0f} MB large")  # noqa: T201
    assert peaks[1] - peaks[0] < 300


def test_valid_tokens_limits_every_validation(text: Path, tmp_path: Path) -> None:
    done = record(run(text, tmp_path / "run", train={"steps": 4, "valid_tokens": 330, "final_eval": True}))
    assert done["valid"]["protocol"]["columns"] == 3
    assert done["valid"]["tokens"] == 330
    assert done["valid_exact"]["tokens"] == 330
    whole = record(run(text, tmp_path / "whole", train={"steps": 4, "final_eval": True}))
    assert whole["valid_exact"]["tokens"] == len((text / "valid.txt").read_bytes())
    assert whole["valid_exact"]["protocol"]["limit"] is None


def test_a_revised_plan_skips_no_validation(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The plan shrinks from 40 to 36 steps just before the validation that was due at step 10."""

    def revise(_: pace.Pace, phase: PhaseConfig, progress: Progress) -> bool:
        if progress.phase_step == 10:
            progress.phase_steps = 36
        return False

    monkeypatch.setattr(pace.Pace, "revise", revise)
    values = {"steps": 40, "validations": 4}
    steps = [e["step"] for e in events(run(text, tmp_path / "run", train=values)) if e["type"] == "valid"]
    assert steps == [10, 18, 27, 36]


def test_schedule(text: Path, tmp_path: Path) -> None:
    config = experiment(text, train={"steps": 20, "log_every": 1, "schedule": {"name": "cosine", "warmup": 0.2}})
    rates = [e["lr"] for e in events(train(config, tmp_path / "run", "cpu")) if e["type"] == "train"]
    wanted = [0.01 * learning_rate_factor(config.train.schedule, step / 20) for step in range(20)]
    assert rates == pytest.approx(wanted)
    assert rates[4] == pytest.approx(0.01)
    assert rates[0] < rates[2] < rates[4] > rates[12] > rates[19]


@pytest.fixture
def planned(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The figures that the next validations will report, in order."""
    figures: list[float] = []
    quick = Validator.quick

    def pretend(self: Validator, step: int) -> Any:
        result = quick(self, step)
        return result.model_copy(update={"nats": figures.pop(0) * result.tokens})

    monkeypatch.setattr(Validator, "quick", pretend)
    return figures


def test_best_weights_are_kept(
    planned: list[float], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[int, dict[str, Any]] = {}
    quick = Validator.quick

    def copied(self: Validator, step: int) -> Any:
        seen[step] = {n: p.detach().clone() for n, p in self._window.model.named_parameters()}
        return quick(self, step)

    monkeypatch.setattr(Validator, "quick", copied)
    planned += [3.0, 2.0, 2.5, 2.0]
    config = experiment(text, train={"steps": 8, "validations": 4})
    done = train(config, tmp_path / "run", "cpu")
    assert record(done)["best_step"] == 4
    saved = load_tensors(done / "model.safetensors")
    assert all(saved[name].equal(seen[4][name]) for name in saved)
    assert not all(saved[name].equal(seen[8][name]) for name in saved)


def test_patience(planned: list[float], text: Path, tmp_path: Path) -> None:
    planned += [3.0, 2.0, 2.1, 2.2, 2.5, 2.4]
    train_values = {"steps": 10, "validations": 5, "patience": 2, "then": [{"steps": 4, "optimizer": "sgd"}]}
    said: list[str] = []

    class Notes(Reporter):
        def note(self, text: str) -> None:
            said.append(text)

    done = train(experiment(text, train=train_values), tmp_path / "run", "cpu", Notes())
    valid = [event["step"] for event in events(done) if event["type"] == "valid"]
    assert valid[:4] == [2, 4, 6, 8]
    assert len(said) == 2
    assert "the phase ends early" in said[0]
    assert record(done)["best_step"] == 4


def test_next_phase_begins_with_the_best_weights(
    planned: list[float], text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[dict[str, Any]] = []
    original = Trainer._run_phase

    def copied(self: Trainer) -> None:
        begun.append({n: p.detach().clone() for n, p in self.model.named_parameters()})
        original(self)

    monkeypatch.setattr(Trainer, "_run_phase", copied)
    planned += [1.0, 2.0, 9.0]
    first = run(text, tmp_path / "short", train={"steps": 4, "validations": 2, "schedule": {"name": "constant"}})
    best = load_tensors(first / "model.safetensors")
    planned.clear()
    planned += [1.0, 2.0, 9.0]
    begun.clear()
    values = {"steps": 4, "validations": 2, "schedule": {"name": "constant"}, "then": [{"steps": 1}]}
    train(experiment(text, train=values), tmp_path / "run", "cpu")
    assert all(best[name].equal(value) for name, value in begun[1].items())


def test_divergence_in_a_validation(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Validator, step: int) -> Any:
        raise UnrolledError("token 3 has a log-probability that is not a finite number; the weights are damaged.")

    monkeypatch.setattr(Validator, "quick", broken)
    with pytest.raises(UnrolledError, match="training diverged after step 10: in the validation, token 3"):
        run(text, tmp_path / "run")
    assert record(tmp_path / "run")["status"] == "diverged"


def test_record(text: Path, tmp_path: Path) -> None:
    done = run(text, tmp_path / "run", train={"steps": 3})
    values = record(done)
    model = Run(done, "cpu").model
    assert values["parameters"] == sum(p.numel() for p in model.parameters())
    assert values["backends"]
    assert values["wall_seconds"] > 0
    assert values["cpu_seconds"] > 0
    config = json.loads((done / "config.json").read_text())
    assert config["version"] == 3
    assert config["tokenizer"]["name"] == "char"


@pytest.mark.parametrize(("left", "count"), [(100.0, 10), (20.0, 5), (4.5, 1), (0.1, 1)])
def test_validations_take_a_quarter_of_a_short_budget(left: float, count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    validator = object.__new__(Validator)
    monkeypatch.setattr(Validator, "seconds", lambda self, clock: 0.5)
    assert validator.plan(10, lambda: 0.0, left, 2) == (1.0, count)


@pytest.mark.slow
def test_a_small_budget_is_spent_on_training(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Validations that would eat it are left out, and that is told."""
    told: list[str] = []

    class Listener(Reporter):
        def note(self, text: str) -> None:
            told.append(text)

    monkeypatch.setattr(Validator, "seconds", lambda self, clock: 0.6)
    config = experiment(text, train={"cpu_minutes": 0.2, "validations": 20})
    done = train(config, tmp_path / "run", "cpu", Listener())
    assert any("of 20 are made" in one for one in told)
    assert 1 <= sum(event["type"] == "valid" for event in events(done)) < 6
    assert record(done)["steps"] > 20
