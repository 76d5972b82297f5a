"""Beginning from given weights, and the vocabulary that a recipe pins."""

import json
from pathlib import Path

import pytest
import torch

from train.runs import experiment
from unrolled.core import tree
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.runs import Run
from unrolled.train import ExperimentConfig, resume, train

STILL = {"optimizer": {"name": "sgd", "lr": 1e-30}, "steps": 4, "validations": 1}


def begin(text: Path, out: Path, **weights: str) -> Path:
    config = experiment(text, train=STILL).model_dump(mode="json", exclude_none=True)
    return train(ExperimentConfig.parse({**config, "weights": weights}), out, "cpu")


def test_a_run_begins_from_the_weights_of_another(text: Path, tmp_path: Path) -> None:
    first = train(experiment(text, train={"steps": 6}), tmp_path / "first", "cpu")
    second = begin(text, tmp_path / "second", file=str(first / "model.safetensors"))
    own, random = Run(second, "cpu").model, Run(train(experiment(text, train=STILL), tmp_path / "other", "cpu"), "cpu")
    for name, value in Run(first, "cpu").model.named_parameters():
        assert torch.equal(value, own.get_parameter(name))
    assert not torch.equal(own.embedding.weight, random.model.embedding.weight)


def test_a_resumed_run_does_not_read_the_weights_again(text: Path, tmp_path: Path) -> None:
    first = train(experiment(text, train={"steps": 6}), tmp_path / "first", "cpu")
    second = begin(text, tmp_path / "second", file=str(first / "model.safetensors"))
    whole = (second / "model.safetensors").read_bytes()
    (first / "model.safetensors").unlink()
    (second / "record.json").unlink()
    with pytest.raises(UnrolledError):
        begin(text, tmp_path / "third", file=str(first / "model.safetensors"))
    resume(second, "cpu")
    assert (second / "model.safetensors").read_bytes() == whole


def test_published_layouts_are_read_from_safetensors(text: Path, tmp_path: Path) -> None:
    config = experiment(text, model={"cell": {"name": "lstm", "bias": "two"}}, train=STILL)
    first = Run(train(config, tmp_path / "first", "cpu"), "cpu").model
    names = {"embedding.weight": "encoder.weight", "head.weight": "decoder.weight", "head.bias": "decoder.bias"}
    layer = {f"stack.layers.0.{kind}": f"rnns.0.{kind}_l0" for kind in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")}
    tensors = {(names | layer)[name]: value.detach() + 1 for name, value in first.named_parameters()}
    tree.save_tensors(tmp_path / "given.safetensors", tensors)
    values = config.model_dump(mode="json", exclude_none=True)
    weights = {"file": str(tmp_path / "given.safetensors"), "layout": "awd-lstm"}
    done = train(ExperimentConfig.parse({**values, "weights": weights}), tmp_path / "second", "cpu")
    for name, value in Run(done, "cpu").model.named_parameters():
        assert torch.equal(value, first.get_parameter(name) + 1)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ({"file": "none.safetensors"}, "none.safetensors"),
        ({"file": "none.safetensors", "layout": "mos"}, "no weights at none.safetensors"),
        ({"file": "none.safetensors", "layout": "awd"}, "layout"),
    ],
)
def test_what_cannot_be_read_is_refused(text: Path, tmp_path: Path, weights: dict[str, str], says: str) -> None:
    with pytest.raises(UnrolledError, match=says):
        begin(text, tmp_path / "run", **weights)


def test_another_vocabulary_than_the_stated_one_is_refused(text: Path, tmp_path: Path) -> None:
    values = experiment(text, train=STILL).model_dump(mode="json", exclude_none=True)
    with pytest.raises(UsageError, match="ids where the recipe states 7"):
        train(ExperimentConfig.parse({**values, "vocabulary": 7}), tmp_path / "run", "cpu")
    assert not (tmp_path / "run").exists()


def test_another_tokenizer_in_the_place_of_the_own_is_refused(text: Path, tmp_path: Path) -> None:
    """Its ids mean other symbols, and there are as many of them."""
    done = train(experiment(text, train=STILL), tmp_path / "run", "cpu")
    path = done / "tokenizer.json"
    value = json.loads(path.read_text())
    value["state"]["characters"] = value["state"]["characters"].replace("ac", "ca")
    path.write_text(json.dumps(value))
    with pytest.raises(UnrolledError, match="is not the tokenizer that the run was trained with"):
        _ = Run(done, "cpu").tokenizer
    record = json.loads((done / "record.json").read_text())
    (done / "record.json").write_text(json.dumps({**record, "status": "stopped"}))
    with pytest.raises(UnrolledError, match="is not the tokenizer that the run was trained with"):
        resume(done, "cpu")


def test_weights_for_another_vocabulary_are_refused_unless_its_tokenizer_comes_along(
    text: Path, tmp_path: Path
) -> None:
    first = train(experiment(text, train={"steps": 6}), tmp_path / "first", "cpu")
    other = tmp_path / "other"
    other.mkdir()
    for file in text.iterdir():
        (other / file.name).write_bytes(file.read_bytes().translate(bytes.maketrans(b"ag", b"!#")))
    with pytest.raises(UsageError, match=r"for another vocabulary: of \d+ ids and \d+ here, \d+ mean other symbols"):
        begin(other, tmp_path / "second", file=str(first / "model.safetensors"))
    assert not (tmp_path / "second").exists()
    second = begin(text, tmp_path / "second", file=str(first / "model.safetensors"), tokenizer="true")
    assert (second / "tokenizer.json").read_bytes() == (first / "tokenizer.json").read_bytes()
