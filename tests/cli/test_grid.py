"""``unrolled grid``: models against slices in time."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import unrolled as ur
from cli.conftest import Command
from unrolled.data import CorpusConfig
from unrolled.evaluate.per_token import read_per_token

Refused = Callable[..., str]
WORDS = 30


def drifting(path: Path, documents: int = 60) -> Path:
    """News of four years, whose words become rarer or more frequent from year to year."""
    draw = np.random.default_rng(0)
    trend = np.linspace(-1.5, 1.5, WORDS)
    with path.open("w") as file:
        for year in range(4):
            share = np.exp(trend * year)
            for i in range(documents):
                words = draw.choice(WORDS, 60, p=share / share.sum())
                text = " ".join([*(f"w{one}" for one in words), f"once{year}x{i}"])
                file.write(json.dumps({"date": f"{2018 + year}-{1 + i % 12:02}", "text": text}) + "\n")
    return path


def trained(path: Path, out: Path, slice_: str, begun: Path | None = None) -> Path:
    config = {
        "corpus": {"path": str(path), "time": "date", "slice": slice_, "fractions": [0.6, 0.2, 0.2]},
        "tokenizer": {"name": "word"},
        "model": {"width": 8, "layers": 1, "cell": "lstm"},
        "stream": {"columns": 4, "window": 20},
        "train": {"steps": 60, "validations": 1, "optimizer": {"name": "adam", "lr": 0.03}},
    }
    if begun is not None:
        config["weights"] = {"file": str(begun / "model.safetensors"), "tokenizer": True}
    return ur.train(ur.ExperimentConfig.parse(config), out, device="cpu")


def test_models_against_periods(unrolled: Command, refused: Refused, tmp_path: Path):
    """What goes on with the next year's text beats what stood still, on the year after, by more than three errors."""
    news = drifting(tmp_path / "news.jsonl")
    frozen = trained(news, tmp_path / "2018", "2018")
    moving = trained(news, tmp_path / "2019", "2019", frozen)
    done = unrolled("grid", frozen, moving, "--json", "--out", tmp_path / "grid.json")
    assert done.code == 0, done.err
    found = json.loads(done.out)
    assert json.loads((tmp_path / "grid.json").read_text()) == found
    assert found["slices"] == ["2018", "2019", "2020", "2021"]
    assert found["same_symbols"]
    rows = {Path(row["run"]).name: row["slices"] for row in found["runs"]}
    for name in found["slices"]:
        own = ur.evaluate(
            moving, corpus=CorpusConfig.parse({"path": str(news), "time": "date", "slice": name,
                                                  "fractions": [0.6, 0.2, 0.2]}), device="cpu",
        )  # fmt: skip
        assert rows["2019"][name]["perplexity_per_token"] == pytest.approx(own.perplexity_per_token, rel=1e-6)
        assert rows["2019"][name]["unknown_share"] == pytest.approx(1 / 62)  # of a document's words and its end
    table = unrolled("grid", frozen, moving).out.splitlines()
    assert table[0].split("\t") == ["perplexity per token", *found["slices"]]
    assert table[-1].startswith("unknown words\t1.61%")

    for run in (frozen, moving):
        tokens = tmp_path / f"{run.name}.tsv"
        assert unrolled("eval", run, "--slice", "2020", "--split", "train", "--per-token", tokens).code == 0
    still, gone_on = (read_per_token(tmp_path / f"{name}.tsv").log_prob for name in ("2018", "2019"))
    gains = (gone_on - still).reshape(-1, 62).mean(1)  # of each document
    assert gains.mean() > 3 * gains.std(ddof=1) / np.sqrt(len(gains))
    both = [json.loads(unrolled("grid", frozen, *more, "--json").out)["runs"] for more in ([], ["--corpus", news])]
    assert both[0] == both[1], "a path is cut as the run's own text"
    assert "is read as plain text" in unrolled("eval", frozen, "--corpus", news, "--split", "whole").err
    following = unrolled("eval", moving, "--slice", "next", "--json")
    assert json.loads(following.out)["provenance"]["corpus"] == "news.jsonl 2020"

    assert "no slice after" in refused("eval", frozen, "--slice", "next", "--corpus", drifting_first(news))
    assert "unknown slice in time '1999'" in refused("eval", frozen, "--slice", "1999")
    assert "name it, or leave them out" in refused("grid", frozen, "--time", "date")
    assert "lies in several slices" in refused("grid", frozen, "--slices", "2018-01-02")


def drifting_first(news: Path) -> Path:
    """The first year alone."""
    made = news.with_name("first.jsonl")
    made.write_text("".join(line + "\n" for line in news.read_text().splitlines() if '"2018' in line))
    return made


def test_a_text_without_dates_is_refused(refused: Refused, text: Path, tmp_path: Path):
    config = {"corpus": {"path": str(text)}, "model": {"width": 8}, "train": {"steps": 2, "validations": 1}}
    run = ur.train(ur.ExperimentConfig.parse(config), tmp_path / "plain", device="cpu")
    assert "say where it is with corpus.time" in refused("grid", run)
    assert "without dates" in refused("eval", run, "--slice", "2019")
