"""Count models as runs: trained by the same command, measured, mixed and continued like any other model."""

from pathlib import Path

import pytest

import unrolled as ur
from train.runs import record
from unrolled.core.errors import UsageError
from unrolled.counts import KneserNeyConfig, estimate_kneser_ney, read_arpa, write_arpa
from unrolled.runs import Run
from unrolled.tokenizer.arpa import arpa_words
from unrolled.train import ExperimentConfig, train


def experiment(text: Path, **counts: object) -> ExperimentConfig:
    return ExperimentConfig.parse({"corpus": {"path": str(text)}, "tokenizer": {"name": "word"}, "counts": counts})


@pytest.fixture
def run(text: Path, tmp_path: Path) -> Path:
    return train(experiment(text, order=3), tmp_path / "run")


def test_a_run_of_counts_is_a_run(run: Path, text: Path, tmp_path: Path) -> None:
    opened = Run(run)
    _, splits = opened.splits()
    ids = splits["train"].ids(0, len(splits["train"]))
    wanted = estimate_kneser_ney(ids, opened.tokenizer.vocab_size, opened.tokenizer.start_id, KneserNeyConfig(order=3))
    test = splits["test"].ids(0, len(splits["test"]))
    result = ur.evaluate(run, per_token=tmp_path / "t.tsv")
    assert -result.nats == pytest.approx(float(wanted.score(test)[0].sum()), rel=1e-12)
    assert result.protocol.precision == "float64"
    assert record(run)["status"] == "finished"
    assert record(run)["valid_exact"]["nats"] == pytest.approx(ur.evaluate(run, split="valid").nats)
    assert len(record(run)["ngrams"]) == 3
    made = ur.generate(run, "", tokens=12)[0]
    assert len(made.tokens) == 12


@pytest.mark.parametrize("tokenizer", ["word", "char", "byte"])
def test_arpa_out_and_in(tokenizer: str, text: Path, tmp_path: Path) -> None:
    config = experiment(text, order=3)
    config = ExperimentConfig.parse({**config.model_dump(mode="json"), "tokenizer": {"name": tokenizer}})
    run = train(config, tmp_path / "one")
    opened, file = Run(run), tmp_path / "x.arpa.gz"
    words = arpa_words(opened.tokenizer)
    assert len(set(words)) == len(words)
    write_arpa(opened.ngrams, words, file)
    again = {"weights": {"file": str(file), "layout": "arpa"}}
    other = train(ExperimentConfig.parse({**config.model_dump(mode="json"), **again}), tmp_path / "two")
    assert ur.evaluate(other).nats == pytest.approx(ur.evaluate(run).nats, rel=1e-9)
    assert read_arpa(file, words, opened.tokenizer.start_id).config.order == 3


def test_refusals(run: Path, text: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no neural weights"):
        ur.load(run)
    with pytest.raises(
        UsageError, match="a cache needs hidden states, which this model does not give; leave out cache"
    ):
        ur.evaluate(run, cache={})
    values = experiment(text, order=2).model_dump(mode="json", exclude_none=True)
    with pytest.raises(UsageError, match="has no settings model"):
        ExperimentConfig.parse({**values, "model": {"width": 3}})
    with pytest.raises(UsageError, match="to arpa"):
        train(ExperimentConfig.parse({**values, "weights": {"file": "x"}}), tmp_path / "new")
    assert not (tmp_path / "new").exists()
    with pytest.raises(UsageError, match="already holds a run"):
        train(experiment(text, order=2), run)
    with pytest.raises(UsageError, match="is finished"):
        ur.resume(run)
