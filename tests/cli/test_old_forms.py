"""Settings, records, per-token files and compressed files as the release before adapters wrote them (fixtures/old)."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

import unrolled as ur
from cli.conftest import Command
from unrolled.compress import file_header
from unrolled.evaluate import EvalResult, open_predictor, read_per_token
from unrolled.predict import PredictorConfig
from unrolled.runs import Run

KRAUSE = ["--dynamic", "krause", "--set", "dynamic.columns=4", "--set", "dynamic.lr=1e-3"]
FLAGS = {
    "static": [],
    "cache": ["--temperature", 1.1, "--cache", 30, "--set", "cache.theta=0.4"],
    "dynamic": [*KRAUSE, "--cache", 20, "--temperature", 0.9],
    "dropout": ["--samples", 3, "--set", "dropout.rates=0.5"],
    "search": ["--dynamic", "sgd", "--search", "dynamic", "--search", "temperature", "--search-tokens", 60],
}
NEW: dict[str, list[object]] = {
    "cache": ["--predict", "temperature=1.1", "--predict", "cache=30", "--set", "predict.cache.theta=0.4"],
    "dynamic": [
        "--predict", "cache=20", "--set", "predict.dynamic.preset=krause", "--set", "predict.dynamic.columns=4",
        "--set", "predict.dynamic.lr=1e-3", "--predict", "temperature=0.9",
    ],
    "dropout": ["--predict", "dropout", "--set", "dropout.samples=3", "--set", "dropout.rates=0.5"],
}  # fmt: skip
PYTHON: dict[str, dict[str, Any]] = {
    "static": {},
    "cache": {"temperature": 1.1, "cache": {"length": 30, "theta": 0.4}},
    "dynamic": {
        "dynamic": {"preset": "krause", "columns": 4, "lr": 1e-3},
        "cache": {"length": 20},
        "temperature": 0.9,
    },
    "dropout": {"dropout": {"samples": 3, "rates": 0.5}, "quantize": None},
}


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return Path(shutil.copytree(Path(__file__).parents[1] / "fixtures" / "old", tmp_path / "old"))


def same(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    """All that is recorded is as it was; the figure up to what another processor rounds otherwise."""
    assert json.dumps(found["protocol"]) == json.dumps(wanted["protocol"])
    assert found["nats"] == pytest.approx(wanted["nats"], rel=1e-5)
    assert found["provenance"]["text_sha256"] == wanted["provenance"]["text_sha256"]
    searched = wanted["provenance"].get("search", {})
    assert list(found["provenance"].get("search", {})) == list(searched)
    for part, one in searched.items():
        now = found["provenance"]["search"][part]
        assert now["valid_tokens"] == one["valid_tokens"]
        assert [{**row, "nats_per_token": 0} for row in now["tried"]] == [
            {**row, "nats_per_token": 0} for row in one["tried"]
        ]


@pytest.mark.parametrize(
    ("name", "flags"),
    [*FLAGS.items(), *((name, flags) for name, flags in NEW.items())],
    ids=[*FLAGS, *map("new ".__add__, NEW)],
)
def test_flags_and_records(unrolled: Command, old: Path, name: str, flags: list[object]) -> None:
    where = ["--corpus", old / "text.txt", "--backend", "generic", "--json"]
    code, out, err = unrolled("eval", old / "run", *where, *flags)
    assert code == 0, err
    same(json.loads(out), json.loads((old / f"{name}.json").read_text()))
    assert EvalResult.load(old / f"{name}.json").protocol == EvalResult.from_json(json.loads(out)).protocol


@pytest.mark.parametrize("name", PYTHON)
def test_keywords(old: Path, name: str) -> None:
    wanted = json.loads((old / f"{name}.json").read_text())
    run, corpus = Run(old / "run", "cpu", backend="generic"), str(old / "text.txt")
    same(ur.evaluate(run, corpus, **PYTHON[name]).to_json(), wanted)
    same(ur.evaluate(run, corpus, predict=PYTHON[name]).to_json(), wanted)
    listed = [{"name": part, **value} for part, value in PYTHON[name].items() if isinstance(value, dict)]
    listed += [{"name": "temperature", "value": PYTHON[name]["temperature"]}] if "temperature" in PYTHON[name] else []
    same(ur.evaluate(run, corpus, predict={"adapters": listed[::-1]}).to_json(), wanted)


def test_per_token_files(unrolled: Command, old: Path) -> None:
    where = ["--corpus", old / "text.txt", "--backend", "generic", "--per-token", old / "new.tsv"]
    assert unrolled("eval", old / "run", *where, *FLAGS["cache"]).code == 0
    before, now = read_per_token(old / "cache.tsv"), read_per_token(old / "new.tsv")
    assert now.header.protocol == before.header.protocol
    assert now.log_prob == pytest.approx(before.log_prob, rel=1e-4)
    code, out, _ = unrolled("difference", old / "cache.tsv", old / "new.tsv", "--json")
    assert code == 0
    assert abs(json.loads(out)["nats_per_token"]) < 1e-5


@pytest.mark.parametrize("name", ["note", "sgd"])
def test_compressed_files(unrolled: Command, old: Path, name: str) -> None:
    """The settings in the file are read as they were written; the text comes back where the processor is the same."""
    header = file_header(old / f"{name}.unr")
    config = PredictorConfig.parse(header.options)
    with open_predictor(Run(old / "run", "cpu"), config) as predictor:
        assert (predictor.kind, json.dumps(predictor.options)) == (header.kind, json.dumps(header.options))
    code, _, err = unrolled(
        "decompress", old / "run", old / f"{name}.unr", "--out", old / "back.txt", "--device", "cpu"
    )
    if "this machine computes other probabilities" in err:
        pytest.skip("written by a processor that rounds otherwise")
    assert code == 0, err
    assert (old / "back.txt").read_bytes() == (old / "note.txt").read_bytes()
