"""Training until a loss is reached, on few tokens, and which weights are kept."""

import signal
from pathlib import Path
from typing import Any

import pytest

from train.runs import events, experiment, record
from unrolled.core.errors import StoppedError, UsageError
from unrolled.core.tree import load_tensors
from unrolled.data import CorpusConfig, open_corpus
from unrolled.runs import Run, saved_states
from unrolled.tokenizer.encode import encode_corpus
from unrolled.train import Reporter, resume, train

FEW = {"columns": 2, "window": 20}  # so that 200 tokens are five windows


def settings(text: Path, limit: int | None = 200, **values: Any) -> Any:
    steps: dict[str, Any] = {"steps": 400, "validations": 2, "log_every": 1, "optimizer": {"name": "adam", "lr": 0.05}}
    steps["schedule"] = {"name": "constant", "warmup": 0.0}
    corpus = {"path": str(text), "limit_tokens": limit}
    return experiment(text, corpus=corpus, stream=FEW, train={**steps, **values})


def epochs(run: Path, steps: int) -> list[float]:
    """Mean nats of each whole epoch of so many steps of equal size."""
    nats = [line["nats"] for line in events(run) if line["type"] == "train"]
    return [sum(nats[i : i + steps]) / steps for i in range(0, len(nats) - steps + 1, steps)]


def test_it_ends_with_the_epoch_that_reaches_it(text: Path, tmp_path: Path) -> None:
    done = train(settings(text, until_loss=1.5), tmp_path / "run", "cpu")
    found = epochs(done, 5)
    assert found[-1] <= 1.5 < min(found[:-1])
    assert len([line for line in events(done) if line["type"] == "train"]) == 5 * len(found) < 400
    assert events(done)[-1]["type"] == "valid", "the end of a phase is validated"
    whole = train(settings(text, steps=5 * len(found)), tmp_path / "whole", "cpu")
    assert epochs(whole, 5) == found


class Stopper(Reporter):
    def step(self, progress: Any, nats: float, lr: float) -> None:
        if progress.step in (3, 8) and not getattr(self, f"at_{progress.step}", False):
            setattr(self, f"at_{progress.step}", True)
            signal.raise_signal(signal.SIGTERM)


def test_a_stopped_run_ends_where_the_whole_one_does(text: Path, tmp_path: Path) -> None:
    config = settings(text, until_loss=2.2, keep="last", then=[{"steps": 40, "until_loss": 1.5, "optimizer": "adam"}])
    whole, stopper = train(config, tmp_path / "whole", "cpu"), Stopper()
    with pytest.raises(StoppedError):
        train(config, tmp_path / "stopped", "cpu", stopper)
    with pytest.raises(StoppedError):
        resume(tmp_path / "stopped", "cpu", stopper)
    resume(tmp_path / "stopped", "cpu", stopper)
    assert events(tmp_path / "stopped") == events(whole)
    assert (tmp_path / "stopped" / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()


@pytest.mark.parametrize("keep", ["best", "last"])
def test_which_weights_are_kept(text: Path, tmp_path: Path, keep: str) -> None:
    """On few tokens the validation gets worse while training goes on."""
    done = train(settings(text, limit=60, keep=keep, steps=100, validations=5), tmp_path / "run", "cpu")
    nats = [line["nats"] for line in events(done) if line["type"] == "valid"]
    assert min(nats) < nats[-1]
    saved, state = (
        load_tensors(done / "model.safetensors"),
        load_tensors(saved_states(done)[-1] / "tensors.safetensors"),
    )
    same = all(bool((value == state[f"model.{name}"]).all()) for name, value in saved.items())
    assert same == (keep == "last")
    assert record(done)["best_step"] == (100 if keep == "last" else 20 * (1 + nats.index(min(nats))))


@pytest.mark.parametrize("reset", ["none", "line"])
def test_the_first_tokens_of_the_training_text(text: Path, tmp_path: Path, reset: str) -> None:
    done = train(settings(text, steps=1), tmp_path / "run", "cpu")
    run = Run(done, "cpu")
    whole, few = (
        encode_corpus(open_corpus(CorpusConfig(path=str(text), limit_tokens=n, reset=reset)), run.tokenizer)  # type: ignore[arg-type]
        for n in (None, 200)
    )
    assert len(few["train"]) == 200
    assert few["train"].ids(0, 10**9).tolist() == whole["train"].ids(0, 200).tolist()
    assert len(few["train"].ids(150, 250)) == 50
    assert few["train"].units() == whole["train"].units(0, 200)
    assert len(few["valid"]) == len(whole["valid"])
    if whole["train"].starts is not None:
        assert few["train"].starts is not None
        assert few["train"].starts.tolist() == [start for start in whole["train"].starts if start < 200]
    assert len(run.splits()[1]["train"]) == 200, "a saved run knows it"
    more = encode_corpus(open_corpus(CorpusConfig(path=str(text), limit_tokens=10**9)), run.tokenizer)
    assert len(more["train"]) == len(whole["train"])


def test_refusals(text: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"train\.keep=last keeps none; drop one"):
        settings(text, keep="last", patience=3)
    with pytest.raises(UsageError, match="use fewer columns, a shorter window or more text"):
        train(settings(text, limit=30), tmp_path / "run", "cpu")
