"""Runs that were written before texts had a rule of reading keep their numbers."""

import json
from pathlib import Path

from train.runs import experiment, make_text
from unrolled.evaluate.of_run import evaluate_run
from unrolled.runs import Run
from unrolled.train import ExperimentConfig, train


def test_a_run_of_the_first_format_reads_its_text_to_the_byte(tmp_path: Path) -> None:
    text = tmp_path / "t.txt"
    text.write_bytes(make_text(300).replace(b"\n", b"\r\n"))
    config = experiment(text, corpus={"reading": "exact"}, train={"steps": 6})
    done = train(config, tmp_path / "run", "cpu")
    wanted = evaluate_run(Run(done, "cpu"))
    path = done / "config.json"
    value = json.loads(path.read_text())
    assert value["version"] == 3
    value["version"] = 1
    del value["task"]
    for key in ("reading", "base"):  # the first format had neither
        del value["corpus"][key]
    path.write_text(json.dumps(value))
    assert ExperimentConfig.load(path).corpus.reading == "exact"
    found = evaluate_run(Run(done, "cpu"))
    assert (found.nats, found.tokens, found.words) == (wanted.nats, wanted.tokens, wanted.words)
    assert "\r" in Run(done, "cpu").tokenizer.decode(range(5))
