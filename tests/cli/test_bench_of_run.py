"""``unrolled bench --run``: a run's own model decodes and writes."""

import json
from collections.abc import Callable
from pathlib import Path

from cli.conftest import Command
from train.runs import experiment
from unrolled.train import train

FAST = ("--pass", "decode", "--window", 4, "--repeats", 1, "--no-peers", "--set", "read_bytes=400", "--set",
        "least_seconds=1e-6", "--json")  # fmt: skip
WAYS = (
    "cache=5", "neighbours,neighbours.k=3,neighbours.limit=50", "search=2", "guidance=0.5", "dynamic=sgd",
        "dynamic=krause,dynamic.columns=2,dynamic.batches=3")  # fmt: skip


def test_ways_of_a_run(unrolled: Command, trained: Path) -> None:
    ways = (*WAYS, f"draft={trained}", f"contrast={trained}", "recycle=alternate")
    asked = [part for way in ways for part in ("--way", way)]
    outcome = unrolled("bench", "--run", trained, "--batch", 1, "--batch", 3, *FAST, *asked)
    assert outcome.code == 0, outcome.err
    record = json.loads(outcome.out)
    told = json.loads((trained / "config.json").read_text())["model"]
    for row in record["rows"]:
        assert (row["run"], row["subject"], row["width"]) == (str(trained), trained.name, told["width"])
        if row["way"] == "recycle=alternate":
            assert "no recycler" in row["reason"]
        else:
            assert row["status"] == "measured", (row["way"], row["reason"])
            assert row["seconds"]["median"] > 0
    assert {row["way"] for row in record["rows"]} == {"", "draw", *ways}
    assert {row["batch"] for row in record["rows"]} == {1, 3}


def test_refused(refused: Callable[..., str], trained: Path) -> None:
    assert "leave out cells" in refused("bench", "lstm", "--run", trained, "--pass", "decode")
    assert "leave out widths" in refused("bench", "--run", trained, "--pass", "decode", "--width", 64)
    assert "give --pass decode" in refused("bench", "--run", trained)
    assert "leave out text" in refused("bench", "--run", trained, "--pass", "decode", "--set", "text=50")
    assert "is not a run" in refused("bench", "--run", "nowhere", "--pass", "decode")
    assert "did you mean 'top_p'" in refused("bench", "--run", trained, "--pass", "decode", "--way", "topp=0.3")


def test_recycled_steps_of_a_run_that_was_trained_with_them(unrolled: Command, text: Path, tmp_path: Path) -> None:
    config = experiment(text, train={"steps": 2, "extra": [{"name": "recycle", "hidden": 4}]})
    run = train(config, tmp_path / "run", "cpu")
    outcome = unrolled("bench", "--run", run, "--batch", 2, *FAST, "--way", "recycle", "--way", "recycle=always")
    assert outcome.code == 0, outcome.err
    rows = json.loads(outcome.out)["rows"]
    assert [(row["way"], row["status"]) for row in rows[1:]] == [
        (way, "measured") for way in ("draw", "recycle", "recycle=always")
    ]
