"""A task in one file and one line is trained, resumed and measured by the command."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import unrolled as ur
from cli.conftest import Command
from conformance.tasks.parity import Parity
from unrolled.core.errors import UsageError
from unrolled.task import TASKS

SETTINGS = [
    "task.width=5", "stream={columns=4, window=12}", "train.steps=12", "train.validations=3",
    "train.optimizer={name='adam', lr=0.05}", "train.threads=1", "train.save_minutes=0", "train.log_every=1",
]  # fmt: skip


@pytest.fixture(autouse=True)
def _registered() -> Iterator[None]:
    known = "parity" in TASKS
    if not known:
        TASKS.add("parity", Parity)
    yield
    if not known:
        TASKS.remove("parity")


def _set(*settings: str) -> list[str]:
    return [part for setting in settings for part in ("--set", setting)]


def test_train_and_eval(unrolled: Command, refused: Callable[..., str], text: Path) -> None:
    arguments = ["train", "--corpus", text, *_set("task.name=parity", *SETTINGS)]
    code, out, err = unrolled(*arguments, "--out", "run")
    assert code == 0
    assert "parity takes the place of lm, whose model" in err
    assert "validation accuracy" in out
    record = json.loads(Path("run/record.json").read_text())
    assert (record["task"], record["status"], record["steps"]) == ("parity", "finished", 12)
    lines = [json.loads(line) for line in Path("run/metrics.jsonl").read_text().splitlines()]
    valid = [line["accuracy"] for line in lines if line["type"] == "valid"]
    assert len(valid) == 3
    assert record["best_step"] == 4 * (1 + valid.index(max(valid))), "more is better"
    assert all(0 <= line["parts"]["right"] <= 1 for line in lines if line["type"] == "train")
    found = json.loads(unrolled("eval", "run", "--split", "valid", "--json", "--out", "e.json").out)
    assert found == json.loads(Path("e.json").read_text())
    assert found["figures"]["accuracy"] == record["valid_exact"]["figures"]["accuracy"] == max(valid)
    assert found["provenance"]["run"] == "run"
    again: Any = ur.evaluate("run", split="valid", device="cpu")
    assert again.figures == found["figures"]
    with pytest.raises(UsageError, match="measured by its own figures: no temperature"):
        ur.evaluate("run", temperature=0.9)
    assert "accuracy" in unrolled("eval", "run", "--corpus", text / "test.txt", "--split", "whole").out
    assert "measured by its own figures; leave out --temperature" in refused("eval", "run", "--temperature", "0.9")


def test_another_recipe_file_and_the_dry_run(unrolled: Command, text: Path) -> None:
    Path("parity.toml").write_text(
        "title = 'odd or even'\ntask.name = 'parity'\ntask.width = 5\ntokenizer.name = 'char'\n"
        "stream = {columns = 4, window = 12}\ntrain.steps = 7\n"
    )
    size = json.loads(unrolled("train", "parity.toml", "--corpus", text, "--dry-run", "--json").out)
    assert (size["steps"], size["tokens"]) == (7, 7 * 48)
    assert size["parameters"] > 0
    assert unrolled("train", "parity.toml", "--corpus", text, "--profile", "2", "--json").code == 0
    timed = json.loads(unrolled("train", "parity.toml", "--corpus", text, "--dry-run", "--time", "--json").out)
    assert timed["parameters"] == size["parameters"]


def test_verbs_that_need_a_language_model(unrolled: Command, refused: Callable[..., str], text: Path) -> None:
    arguments = ["train", "--corpus", text, *_set("task.name=parity", *SETTINGS), "--out", "run"]
    assert unrolled(*arguments).code == 0
    is_one = "run is a labelling of odd and even"
    assert refused("score", "run", text / "test.txt") == f"{is_one}; use a run of a language model."
    assert refused("generate", "run") == f"{is_one}; use a run of a language model."
    assert refused("compress", "run", text / "test.txt").startswith(is_one)
    assert refused("inspect", "gates", "run").startswith(f"{is_one}; use a run of a neural language model")
    assert refused("export", "run", "x.arpa").startswith(f"{is_one}, and only count models can be exported as ARPA")
    assert refused("eval", "run", "--precision", "bf16").startswith(f"{is_one}; leave out --precision")


def test_unknown_tasks_and_mixed_settings(refused: Callable[..., str], text: Path) -> None:
    train = ["train", "--corpus", text, "--out", "run"]
    assert "unknown task 'partiy'; did you mean 'parity'?" in refused(*train, *_set("task.name=partiy"))
    said = refused(*train, *_set("task.name=parity", "model.width=3"))
    assert said == "a labelling of odd and even has no settings model.*; set task.* alone."
    said = refused("train", "kn5-ptb", "--out", "run", *_set("task.name=parity", "counts.order=3"))
    assert said.startswith("counts.* are the settings of the task counts")
