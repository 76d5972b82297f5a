"""Comparisons of models of frames: what a plan resolves to, what is refused, and a whole one."""

import json
import math
from pathlib import Path

import pytest
import torch

from unrolled.cli.compare.reading import status
from unrolled.compare import Board, Comparison, open_lock, read_plan, register, work
from unrolled.compare.execute import run_folder
from unrolled.compare.resolve import resolve
from unrolled.compare.test_split import score_all
from unrolled.core.errors import UsageError
from unrolled.runs import Run
from unrolled.tasks.measure import evaluate_task
from unrolled.train.setup import set_up

RECIPE = """
title = "tiny"
stream = { columns = 4, window = 10 }

[task]
name = "frames"
frames = { name = "chorales", pieces = 12, held = 3 }

[model]
width = 8
cell = { name = "lstm" }
compute = { backend = "generic" }

[train]
steps = 30
validations = 2
optimizer = { name = "adam", lr = 0.01 }
"""

PLAN = """
kind = "unrolled plan"
title = "Is the GRU better?"
recipe = "{recipe}"
seeds = [1, 2]

[match]
parameters = 3000
tolerance = 0.2
budget = {{ steps = 6 }}

[search]
setting = "train.optimizer.lr"
values = [0.005, 0.01]
budget = {{ steps = 2 }}
seeds = [901]
edge = "report"

[[system]]
name = "LSTM"
set = ["model.cell.name=lstm"]

[[system]]
name = "GRU"
set = ["model.cell.name=gru"]

[[contrast]]
name = "gates"
better = "GRU"
than = "LSTM"
smallest = 0.01
"""


def write_plan(folder: Path, text: str = PLAN, recipe: str = RECIPE) -> Path:
    (folder / "tiny.toml").write_text(recipe)
    path = folder / "plan.toml"
    path.write_text(text.format(recipe=folder / "tiny.toml"))
    return path


def test_widths_are_fitted_to_the_models_that_are_trained(tmp_path: Path) -> None:
    lstm, gru = resolve(read_plan(write_plan(tmp_path)))
    assert gru.width > lstm.width
    for one in (lstm, gru):
        model = set_up(one.config.model_copy(update={"train": one.config.train.model_copy(update={"steps": 1})})).model
        assert model.num_params() == one.parameters <= 3000  # type: ignore[operator]
        assert one.parameters > 2400
        assert (one.corpus, one.text.name, one.text.unit, one.text.vocabulary) == ("chorales", "chorales", "frame", 88)
        assert one.tokens == 6 * one.tokens_per_step
        assert one.config.task.shift is None, "a run finds what its frames are"  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["state = 32", "parameters = 3000"])
def test_states_and_other_settings_are_fitted_too(tmp_path: Path, kind: str) -> None:
    text = PLAN.replace("parameters = 3000", kind).replace("tolerance = 0.2", "tolerance = 0.5")
    if kind.startswith("state"):
        found = resolve(read_plan(write_plan(tmp_path, text)))
        assert [one.state for one in found] == [32, 32]
    else:
        text = text.replace('=gru"]', '=mlstm", "model.width=8"]\nfit = "model.cell.factor"')
        found = resolve(read_plan(write_plan(tmp_path, text)))
        assert found[1].width == 8
        assert 1500 < found[1].parameters <= 3000


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("seeds = [1, 2]", 'seeds = [1, 2]\ncorpora = ["pydoc"]', "a plan of frames has no corpora"),
        ("seeds = [1, 2]", "seeds = [1, 2]\nper_token = true", "a plan of frames has no corpora"),
        ("[match]", '[[measure]]\nname = "recovery"\n[match]', "no [[measure]] and no per_token"),
        ("=gru", '=gru", "task.given=3', "system 'GRU' sets task.given, which is held equal"),
        ("smallest = 0.01", 'smallest = 0.01\nfigure = "mse_future"', "the figure mse_future needs frames, and task.g"),
        ("parameters = 3000", "parameters = 10", "no width fits 10 parameters"),
    ],
)  # fmt: skip
def test_refused(tmp_path: Path, old: str, new: str, said: str) -> None:
    assert old in PLAN
    with pytest.raises(UsageError) as refused:
        resolve(read_plan(write_plan(tmp_path, PLAN.replace(old, new, 1))))
    assert said in str(refused.value)


def test_frames_without_a_validation_split(tmp_path: Path) -> None:
    (tmp_path / "songs.json").write_text(json.dumps({"train": [[[60], [62]] * 30] * 4}))
    own = RECIPE.replace('"chorales", pieces = 12, held = 3', f'"piano", path = "{tmp_path}/songs.json"')
    plan = read_plan(write_plan(tmp_path, recipe=own))
    with pytest.raises(UsageError, match="have no validation split, which a comparison measures on"):
        resolve(plan)


def test_other_tasks_are_refused(tmp_path: Path) -> None:
    path = write_plan(tmp_path, PLAN.replace('recipe = "{recipe}"', 'recipe = "sst2-bilstm"'))
    with pytest.raises(UsageError, match="a comparison is of models of texts or frames; take a recipe whose task is"):
        resolve(read_plan(path))


def test_a_figure_of_frames_is_none_of_texts(tmp_path: Path) -> None:
    text = PLAN.replace("smallest = 0.01", 'smallest = 0.01\nfigure = "mse"')
    recipe = RECIPE[: RECIPE.index("[task]")] + RECIPE[RECIPE.index("[model]") :]
    with pytest.raises(UsageError, match="contrast 'gates': the figure mse needs frames; leave figure out, or ask of"):
        resolve(read_plan(write_plan(tmp_path, text, recipe)))


@pytest.mark.slow
def test_a_whole_comparison(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    torch.set_num_threads(1)
    text = PLAN + '[[contrast]]\nname = "ahead"\nfirst = "GRU"\nthan = "LSTM"\nfigure = "mse_future"\n'
    path = write_plan(tmp_path, text, RECIPE.replace("held = 3 }", "held = 3 }\ngiven = 4"))
    register(path, tmp_path / "out")
    work(tmp_path / "out", device="cpu")
    board = Board(open_lock(tmp_path / "out"))
    assert not board.todo()
    jobs = [job for job in board.known() if job.kind == "run"]
    assert len(jobs) == 4
    for job in jobs:
        result, run = board.result(job), Run(run_folder(board, job), "cpu")
        assert result is not None
        figures = evaluate_task(run, split="valid").figures
        assert result["nats_per_token"] == pytest.approx(figures["nats"], rel=1e-6)
        assert result["figures"]["mse_future"] == pytest.approx(figures["mse_future"], rel=1e-6)
        assert result["tokens"] > 0
        assert len(result["curve"]) == 2
    status(tmp_path / "out", watch=False)
    shown = capsys.readouterr().out
    assert "nats per frame" in shown
    assert "per token" not in shown
    comparison = Comparison(tmp_path / "out")
    report = comparison.report().read_text()
    assert "mean, bits per frame" in report
    assert "per token" not in report.replace("FLOPs per token", "").replace("nats per token", "")
    mean = sum(board.result(job)["nats_per_token"] for job in jobs if job.system == "GRU") / 2 / math.log(2)  # type: ignore[index]
    assert f"{mean:.4f}" in report
    scored = score_all(board, None, device="cpu")["scores"]
    own = evaluate_task(Run(run_folder(board, jobs[0]), "cpu"), split="test").figures
    assert scored[0]["nats_per_token"] == pytest.approx(own["nats"], rel=1e-6)
    assert scored[0]["figures"]["mse"] == pytest.approx(own["mse"], rel=1e-6)
