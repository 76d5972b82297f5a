"""The task of a synthetic problem: what is counted, records, refusals, training."""

import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.tasks.build import experiment_of, steps_task
from made.test_points import a_model, problem_of
from train.conftest import _private, text
from train.runs import record
from unrolled.core.errors import StoppedError, UnrolledError, UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.made import MADE
from unrolled.evaluate.points import measure_points
from unrolled.runs import Run
from unrolled.task import Seen
from unrolled.tasks.made import Made, MadeConfig
from unrolled.train import ExperimentConfig, Reporter, resume, train

__all__ = ["_private", "text"]


def test_only_what_is_asked_counts_in_the_loss(text: Path) -> None:
    config = MadeConfig.parse({"problem": {"name": "kv_position", "vocab": 8, "pairs": 3}, "rows": 5})
    task, model, batch = steps_task(config, text)
    found: list[Seen] = []

    def mean(seen: Seen) -> Tensor:
        found.append(seen)
        return seen.total / seen.counted()[1]

    loss = task.loss(model, batch, None, None, mean)
    assert loss.count == 5
    assert loss.state is None
    log_prob = model(batch.inputs).raw
    nats = -model.head.log_prob(log_prob)[0][:, -1].gather(1, batch.targets[:, -1:]).sum()
    torch.testing.assert_close(loss.nats, nats.detach())
    other = batch._replace(targets=torch.where(batch.weight > 0, batch.targets, 1))
    torch.testing.assert_close(task.loss(model, other, None, None, mean).value, loss.value)


def test_the_trained_objective_is_the_mean_over_what_is_asked(text: Path, tmp_path: Path) -> None:
    config = MadeConfig.parse({"problem": {"name": "mqar", "vocab": 8, "length": 16, "pairs": 2}, "rows": 4})
    run = train(experiment_of(config, text, steps=3, validations=1), tmp_path / "run", "cpu")
    assert record(run)["tokens"] == 3 * 4 * 2
    assert record(run)["valid"]["figures"].keys() == {"accuracy", "exact", "nats"}
    assert record(run)["problem"]["vocab"] == 8


def test_a_run_with_exact_distributions(text: Path, tmp_path: Path) -> None:
    config = MadeConfig.parse({"problem": {"name": "dyck", "length": 12}, "rows": 4, "valid_rows": 30})
    run = train(experiment_of(config, text, steps=3, validations=1, final_eval=True), tmp_path / "run", "cpu")
    figures = record(run)["valid_exact"]["figures"]
    assert figures.keys() == {"accuracy", "nats", "excess", "excess_error", "legal"}
    opened = Run(run, "cpu")
    assert opened.tokenizer.encode("(0 )0 .") == [2, 4, 1]
    with pytest.raises(UsageError, match="learned from no text"):
        opened.splits()


class Stopper(Reporter):
    """Asks for a stop after the third step."""

    def step(self, progress: Any, nats: float, lr: float) -> None:
        if progress.step == 3:
            signal.raise_signal(signal.SIGTERM)


def test_a_run_is_not_continued_on_other_rows(text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = MadeConfig.parse({"problem": {"name": "copy", "vocab": 3, "length": 4}, "rows": 4, "valid_rows": 6})
    with pytest.raises(StoppedError):
        train(experiment_of(config, text, steps=9, validations=3), tmp_path / "run", "cpu", Stopper())
    draw = MADE["copy"].draw
    monkeypatch.setattr(MADE["copy"], "draw", lambda self, g, rows: draw(self, g, rows + 1).rows(range(1, rows + 1)))
    with pytest.raises(UnrolledError, match=r"the train rows of copy are not those that .* was begun with"):
        resume(tmp_path / "run", "cpu")
    monkeypatch.undo()
    resume(tmp_path / "run", "cpu")


def test_rows_that_ask_for_nothing_are_refused(text: Path) -> None:
    value = {"name": "recall", "vocab": 4096, "length": 4}
    task = Made(experiment_of(MadeConfig.parse({"problem": value, "rows": 2}), text), RandomStreams(1))
    with pytest.raises(UsageError, match="recall ask for nothing"):
        task.source()
    with pytest.raises(UsageError, match="ask for nothing"):
        measure_points(a_model(problem_of(value)), problem_of(value), rows=5)


def test_a_batch_too_large_for_memory_is_refused(text: Path) -> None:
    config = MadeConfig.parse({"problem": {"name": "dyck", "length": 1 << 20}, "rows": 1000})
    with pytest.raises(UsageError, match=r"too many for a batch; lower task\.rows"):
        Made(experiment_of(config, text), RandomStreams(1)).build()


def test_options_change_the_rows(text: Path) -> None:
    base: dict[str, Any] = {"problem": {"name": "copy", "vocab": 3, "length": 4}, "rows": 4, "valid_rows": 6}
    task = Made(experiment_of(MadeConfig.parse(base), text), RandomStreams(1))
    assert [len(batch.inputs) for batch in task.splits["valid"].batches(6)] == [4, 2]
    assert task.source().full_batch == 16
    apart = Made(experiment_of(MadeConfig.parse({**base, "apart": True}), text), RandomStreams(1))
    assert task.splits["train"].checksum != apart.splits["train"].checksum
    sets = [{row.tobytes() for row in apart.splits[name].batch(0).inputs} for name in ("train", "valid", "test")]
    assert not sets[0] & sets[1]
    assert not sets[0] & sets[2]
    model = task.build()
    assert task.record(model)["shared"] > 0.5
    assert apart.record(model)["shared"] == 0


@pytest.mark.slow  # eight CPU seconds of training
def test_an_lstm_learns_parity_at_every_length(tmp_path: Path) -> None:
    config = ExperimentConfig.parse({
        "task": {"name": "made", "problem": {"name": "group", "kind": "Z2", "length": [1, 32]}},
        "model": {"width": 32, "cell": {"name": "lstm"}},
        "train": {
            "steps": 1500, "validations": 4, "optimizer": {"name": "adamw", "lr": 0.01},
            "schedule": {"name": "cosine"}, "final_eval": False,
        },
    })  # fmt: skip
    run = Run(train(config, tmp_path / "run", "cpu"), "cpu")
    task = run.task
    assert isinstance(task, Made)
    near, far = measure_points(run.model, task.problem, [{"length": 32}, {"length": 320}], 200)
    assert near.figures.accuracy.value > 0.999
    assert far.figures.accuracy.value > 0.99


@pytest.mark.slow  # a minute of training
def test_an_lstm_comes_close_to_the_exact_predictor(tmp_path: Path) -> None:
    config = ExperimentConfig.parse({
        "task": {"name": "made", "problem": {"name": "sources", "length": 128}},
        "model": {"width": 64, "embedding": {"size": 16}, "cell": {"name": "lstm"}},
        "train": {
            "steps": 1283, "validations": 4, "optimizer": {"name": "adam", "lr": 0.005},
            "schedule": {"name": "cosine"}, "final_eval": False,
        },
    })  # fmt: skip
    run = Run(train(config, tmp_path / "run", "cpu"), "cpu")
    task = run.task
    assert isinstance(task, Made)
    near, far = measure_points(run.model, task.problem, [{}, {"length": 512}], 1024)
    for found in (near.figures, far.figures):
        assert found.excess is not None
        assert found.error is not None
        assert found.excess > -3 * found.error
    assert near.figures.excess is not None
    assert near.figures.excess <= 0.01 * (near.figures.nats - near.figures.excess)
