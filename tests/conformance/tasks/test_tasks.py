"""Every check on every task's EXAMPLES."""

import json
import signal
from pathlib import Path
from typing import Any

import pytest

from conformance.tasks.broken import BROKEN
from conformance.tasks.build import CLOSED, STEPS, closed_task, experiment_of, steps_task
from conformance.tasks.checks import alone_as_in_a_batch, drawn_from_streams, finite_gradients
from conformance.tasks.parity import Parity
from train import killing
from train.runs import events, record
from unrolled.core.errors import StoppedError, UnrolledError, UsageError
from unrolled.runs import Run
from unrolled.task import TASKS, Evaluation, TaskConfig, TaskResult
from unrolled.train import ExperimentConfig, Reporter, resume, train

TASKS.add("parity", Parity)
STEPS = [*STEPS, *Parity.EXAMPLES]
CHECKS = (finite_gradients, alone_as_in_a_batch, drawn_from_streams)


def name_of(config: Any) -> str:
    return getattr(config, "__name__", None) or f"{config.name}-{TASKS[config.name].EXAMPLES.index(config)}"


@pytest.mark.parametrize("check", CHECKS, ids=name_of)
@pytest.mark.parametrize("config", STEPS, ids=name_of)
def test_checks(config: TaskConfig, check: Any, text: Path) -> None:
    check(*steps_task(config, text))


@pytest.mark.parametrize(("broken", "check"), BROKEN, ids=name_of)
def test_a_broken_task_is_noticed(broken: Any, check: Any, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(TASKS._rows, "parity", broken)
    parts = steps_task(Parity.EXAMPLES[0], text)
    with pytest.raises(AssertionError):
        check(*parts)
    for other in CHECKS:
        if other is not check and check is not drawn_from_streams:
            other(*parts)


@pytest.mark.parametrize("config", [*STEPS, *CLOSED], ids=name_of)
def test_config_round_trip(config: TaskConfig, text: Path, tmp_path: Path) -> None:
    whole = experiment_of(config, text)
    assert whole.task == config
    whole.save(tmp_path / "config.json")
    assert ExperimentConfig.load(tmp_path / "config.json") == whole
    assert json.loads((tmp_path / "config.json").read_text())["task"] == config.model_dump(mode="json")
    values = whole.model_dump(mode="json")
    with pytest.raises(UsageError, match=r"unknown config key 'task\.wdith'"):
        ExperimentConfig.parse({**values, "task": {**values["task"], "wdith": 3}})


@pytest.mark.parametrize("config", [*STEPS, *CLOSED], ids=name_of)
def test_parts_that_nothing_reads_are_refused(config: TaskConfig, text: Path) -> None:
    values = experiment_of(config, text).model_dump(mode="json")
    other = {"model": {"width": 3}, "stream": {"window": 3}, "train": {"steps": 1}, "tokenizer": {"name": "byte"}}
    for part, changes in other.items():
        if part not in TASKS[config.name].reads:
            with pytest.raises(UsageError, match=f"has no settings {part}"):
                ExperimentConfig.parse({**values, part: changes})
    if not TASKS[config.name].reads_text:
        with pytest.raises(UsageError, match="has no settings corpus"):
            ExperimentConfig.parse({**values, "corpus": {"path": str(text)}})


class Stopper(Reporter):
    """Asks for a stop after a step."""

    def __init__(self, at: int):
        self.at = at

    def step(self, progress: Any, nats: float, lr: float) -> None:
        if progress.step == self.at:
            signal.raise_signal(signal.SIGTERM)


@pytest.mark.parametrize("config", STEPS, ids=name_of)
def test_a_stopped_run_resumes_to_the_byte(config: TaskConfig, text: Path, tmp_path: Path) -> None:
    whole = experiment_of(config, text, steps=14, validations=4, final_eval=True)
    run = tmp_path / "run"
    train(whole, tmp_path / "whole", "cpu")
    with pytest.raises(StoppedError):
        train(whole, run, "cpu", Stopper(3))
    with pytest.raises(StoppedError):
        resume(run, "cpu", Stopper(8))
    resume(run, "cpu")
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert events(run) == events(tmp_path / "whole")
    for key in ("task", "steps", "tokens", "best_step", "valid"):
        assert record(run)[key] == record(tmp_path / "whole")[key]


MOMENTS = (
    ("unrolled.train.loop:plan_steps", 1, True),
    ("unrolled.train.checkpoint:save", 4, True),
    ("unrolled.train.validation:Validator.quick", 2, False),
    ("unrolled.core.tree:save_tensors", 1, True),
)


@pytest.mark.parametrize("config", STEPS, ids=name_of)
def test_a_killed_run_resumes_to_the_byte(config: TaskConfig, text: Path, tmp_path: Path) -> None:
    whole, run = experiment_of(config, text, steps=8, validations=4), tmp_path / "run"
    added = {"parity": "conformance.tasks.parity:Parity"}
    # in a process of its own, too: this one may have the native library, which those that are killed have not
    assert killing.run(whole, tmp_path / "whole", tasks=added) == 0
    for moment in MOMENTS:
        assert killing.run(whole, run, die=moment, tasks=added) in (0, -signal.SIGKILL)
    if record(run)["status"] != "finished":
        assert killing.run(whole, run, tasks=added) == 0
    assert (run / "model.safetensors").read_bytes() == (tmp_path / "whole" / "model.safetensors").read_bytes()
    assert events(run) == events(tmp_path / "whole")


@pytest.mark.parametrize("config", STEPS, ids=name_of)
def test_a_run_is_measured_as_its_record_says(config: TaskConfig, text: Path, tmp_path: Path) -> None:
    done = train(experiment_of(config, text, steps=6, validations=2, final_eval=True), tmp_path / "run", "cpu")
    run = Run(done, "cpu")
    result = run.task.evaluate(run.trained, run.task.splits["valid"], Evaluation("valid"))
    kept = run.task_class.result(record(done)["valid_exact"])
    assert run.task.figure(result) == run.task.figure(kept)  # type: ignore[attr-defined]
    assert run.task_class.told(kept)


def test_a_figure_that_is_no_number_is_a_sentence() -> None:
    with pytest.raises(
        UnrolledError, match=r"mse is not a finite number; the model's weights are damaged or diverged\."
    ):
        TaskResult(task="frames", figures={"nats": 1.0, "mse": float("nan")})


@pytest.mark.parametrize("config", CLOSED, ids=name_of)
def test_a_closed_task(config: TaskConfig, text: Path, tmp_path: Path) -> None:
    task = closed_task(config, text)
    model = task.solve(lambda _: None)
    task.keep(model, tmp_path)
    assert {path.name for path in tmp_path.iterdir()} >= set(task.files)
    again = task.kept(tmp_path)
    assert task.identity(again)
    first, second = (task.evaluate(one, task.splits["valid"], Evaluation("valid")) for one in (model, again))
    assert first.nats == second.nats
    assert task.record(again) == task.record(model)
