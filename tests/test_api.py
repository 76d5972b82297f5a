"""The Python interface does what the verbs do."""

import json
from pathlib import Path

import pytest

import unrolled as ur
from cli.conftest import Command, _private, _trained, text, trained, unrolled  # noqa: F401  (fixtures)
from train.runs import experiment
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data import CorpusConfig
from unrolled.generate import repeats
from unrolled.runs import Run
from unrolled.tokenizer import TOKENIZERS


def test_names() -> None:
    for name in ur.__all__:
        assert callable(getattr(ur, name)), "a subpackage of the same name does not hide the function"
    from unrolled.train import start

    assert callable(start.train)
    assert callable(ur.train)


def test_experiment(text: Path) -> None:  # noqa: F811
    config = ur.experiment(None, ["model.width=3", "train.steps=2"], str(text))
    assert config.model.width == 3
    assert config.train.budget() == ("steps", 2)
    assert config.corpus.path == str(text)
    assert config.tokenizer == TOKENIZERS.parse("byte"), "that of the recipe's corpus"
    other = ur.experiment("ptb-char-cpu", [], "pydoc")
    assert other.tokenizer is None, "a corpus of the table chooses for itself"
    assert ur.experiment(corpus="stdlib").corpus.name == "stdlib"
    assert ur.experiment(corpus=CorpusConfig(path="x")).corpus.path == "x"
    with pytest.raises(UsageError, match="did you mean 'pydoc'"):
        ur.experiment(corpus="pydocs")


def test_train(text: Path, unrolled: Command) -> None:  # noqa: F811
    """The same weights from a config object, a mapping and the command."""
    config = experiment(text, train={"steps": 3})
    first = ur.train(config)
    assert first == Path("runs/run-1")
    second = ur.train(config.model_dump(mode="json"))
    assert second == Path("runs/run-2")
    settings = [
        "tokenizer.name=char", "stream={columns=4, window=12}", "train.steps=3", "train.valid_columns=4",
        "model={width=8, cell='lstm', compute={backend='generic'}}", "train.validations=6", "train.final_eval=false",
        "train.optimizer={name='adam', lr=0.01}", "train.schedule={}",
    ]  # fmt: skip
    arguments = [part for setting in settings for part in ("--set", setting)]
    assert unrolled("train", "--corpus", text, *arguments, "--out", "third", "--json").code == 0
    weights = [(run / "model.safetensors").read_bytes() for run in (first, second, Path("third"))]
    assert weights[0] == weights[1] == weights[2]


def test_resume(text: Path) -> None:  # noqa: F811
    run = ur.train(experiment(text, train={"steps": 3}), "run")
    with pytest.raises(UsageError, match="is finished"):
        ur.resume(run)
    (run / "record.json").unlink()
    assert ur.resume(run) == run


def test_evaluate(trained: Path, unrolled: Command) -> None:  # noqa: F811
    command = json.loads(unrolled("eval", trained, "--split", "valid", "--window", 50, "--json").out)
    result = ur.evaluate(trained, split="valid", window=50)
    assert result.to_json() == command
    assert ur.evaluate(Run(trained), split="valid", window=50) == result
    double = ur.evaluate(trained, split="valid", dtype="float64")
    assert double.protocol.precision == "float64"
    assert double.nats == pytest.approx(result.nats, rel=1e-5)


def test_evaluate_another_text(trained: Path, text: Path, unrolled: Command) -> None:  # noqa: F811
    path = str(text / "test.txt")
    config = CorpusConfig(train=path, valid=path)
    by_name = ur.evaluate(trained, f"{text}/", split="test")
    assert ur.evaluate(trained, config, split="valid").nats == by_name.nats
    seen: list[int] = []
    ur.evaluate(trained, config, split="valid", progress=lambda done, total, nats: seen.append(done), limit=900)
    assert seen[-1] == 900
    assert json.loads(unrolled("eval", trained, "--corpus", text, "--json").out)["nats"] == by_name.nats


def test_evaluate_refuses(trained: Path, text: Path) -> None:  # noqa: F811
    only = CorpusConfig(train=str(text / "train.txt"))
    with pytest.raises(UsageError, match="has no split 'test'; it has: train"):
        ur.evaluate(trained, only)
    with pytest.raises(UsageError, match="unknown config key 'windw'; did you mean 'window'"):
        ur.evaluate(trained, windw=3)
    with pytest.raises(UsageError, match="did you mean 'float64'"):
        ur.evaluate(trained, dtype="float63")
    with pytest.raises(UsageError, match="is not a run"):
        ur.evaluate("nothing")


def test_generate(trained: Path, unrolled: Command) -> None:  # noqa: F811
    command = json.loads(
        unrolled("generate", trained, "-p", "the ", "-n", 9, "--seed", 4, "--samples", 2, "--json").out
    )
    made = ur.generate(trained, "the ", tokens=9, samples=2, seed=4)
    told = [{**one._asdict(), "repeats": repeats(one.tokens)} for one in made]
    assert [{name: one[name] for name in command[0]} for one in told] == command
    assert all(one.pieces == () for one in made), "no log-probabilities were asked for"
    assert len(ur.generate(trained, ["the", "cat"], tokens=2)) == 2
    with pytest.raises(UsageError, match="unknown config key 'temprature'; did you mean 'temperature'"):
        ur.generate(trained, temprature=1)


def test_load(trained: Path) -> None:  # noqa: F811
    model = ur.load(trained)
    assert not model.training
    assert isinstance(model, ur.LanguageModel)
    (trained / "model.safetensors").unlink()
    with pytest.raises(UnrolledError, match="no checkpoint yet"):
        ur.load(trained)
