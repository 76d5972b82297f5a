"""Weights and training states with anything odd inside are refused when they are read, in one sentence."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from train.runs import experiment, write_text
from unrolled.core.errors import UnrolledError
from unrolled.core.tree import load_tensors, save_tensors
from unrolled.runs import Run, WeightsConfig
from unrolled.train import resume, train

Tensors = dict[str, Tensor]


@pytest.fixture(scope="module")
def _begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("begun")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(home / "cache"))
        changes = {"steps": 6, "validations": 3, "averaging": {"name": "two_tailed"}}
        run = train(experiment(write_text(home / "text"), train=changes), home / "run", "cpu")
    (run / "record.json").unlink()
    return run


@pytest.fixture
def begun(_begun: Path, tmp_path: Path) -> Path:
    """A run that can be resumed, of its own for each test."""
    return Path(shutil.copytree(_begun, tmp_path / "run"))


def change(path: Path, how: Callable[[Tensors], object]) -> None:
    tensors = load_tensors(path)
    how(tensors)
    save_tensors(path, tensors)


def spoil(name: str, value: float) -> Callable[[Tensors], object]:
    def how(tensors: Tensors) -> None:
        tensors[name] = tensors[name].clone()
        tensors[name].view(-1)[0] = value

    return how


def cast(name: str, dtype: torch.dtype) -> Callable[[Tensors], object]:
    return lambda tensors: tensors.update({name: tensors[name].to(dtype)})


WEIGHTS: list[tuple[Callable[[Tensors], object], str]] = [
    (spoil("embedding.weight", float("nan")), "not a finite number in 'embedding.weight'"),
    (spoil("head.bias", float("inf")), "not a finite number in 'head.bias'"),
    (spoil("head.bias", -float("inf")), "not a finite number in 'head.bias'"),
    (lambda t: t.update({"head.bias": torch.full_like(t["head.bias"], 1e300, dtype=torch.float64)}), "not a finite"),
    (cast("head.bias", torch.int32), "as int32, not as real numbers"),
    (cast("head.bias", torch.bool), "as bool, not as real numbers"),
    (cast("head.bias", torch.complex64), "as complex64, not as real numbers"),
    (lambda t: t.update({"head.bias": t["head.bias"][None]}), "does not fit the run's config"),
]


@pytest.mark.parametrize(("how", "sentence"), WEIGHTS)
def test_weights(how: Callable[[Tensors], object], sentence: str, begun: Path) -> None:
    change(begun / "model.safetensors", how)
    with pytest.raises(UnrolledError, match=sentence) as caught:
        Run(begun).model  # noqa: B018
    assert caught.value.exit_code == 1
    whole = Run(_whole(begun))
    with pytest.raises(UnrolledError, match=sentence):
        WeightsConfig(file=str(begun / "model.safetensors")).load(whole.model, whole.tokenizer)


def _whole(begun: Path) -> Path:
    """The run with the weights of its training state in place of the damaged ones."""
    other = Path(shutil.copytree(begun, begun.parent / "whole"))
    state = load_tensors(next((begun / "train_state").iterdir()) / "tensors.safetensors")
    saved = {name.removeprefix("model."): value for name, value in state.items() if name.startswith("model.")}
    save_tensors(other / "model.safetensors", saved)
    return other


def test_weights_in_other_precisions_are_read(begun: Path) -> None:
    before = Run(begun).model.state_dict()["head.bias"]
    for dtype in (torch.float64, torch.bfloat16, torch.float16):
        change(begun / "model.safetensors", cast("head.bias", dtype))
        assert torch.allclose(Run(begun).model.state_dict()["head.bias"], before, atol=0.01)


STATE: dict[str, Callable[[Tensors], object]] = {
    "NaN in a weight": spoil("model.head.bias", float("nan")),
    "infinity in a moment": spoil("optimizer.0.exp_avg", float("inf")),
    "NaN in an average": spoil("average.long.0", float("nan")),
    "a weight of integers": cast("model.head.bias", torch.int32),
    "a weight in float64": cast("model.head.bias", torch.float64),
    "a moment in float64": cast("optimizer.0.exp_avg", torch.float64),
    "a scalar moment": lambda t: t.update({"optimizer.0.exp_avg": torch.zeros(())}),
    "a moment is missing": lambda t: t.pop("optimizer.0.exp_avg"),
    "another moment": lambda t: t.update({"optimizer.0.velocity": t["optimizer.0.exp_avg"]}),
    "an average is missing": lambda t: t.pop("average.long.0"),
    "one of two averages": lambda t: [t.pop(name) for name in list(t) if name.startswith("average.long")],
    "no average": lambda t: [t.pop(name) for name in list(t) if name.startswith("average.")],
    "another average": lambda t: t.update({n.replace("long", "x"): v for n, v in t.items() if "average.long" in n}),
    "an average in float64": cast("average.long.0", torch.float64),
    "a carried state is missing": lambda t: t.pop(next(n for n in t if n.startswith("carried."))),
    "a carried state of integers": lambda t: cast(next(n for n in t if n.startswith("carried.")), torch.int64)(t),
    "float8": cast("model.head.bias", torch.float8_e5m2),
}


@pytest.mark.parametrize("name", STATE)
def test_training_states(name: str, begun: Path) -> None:
    change(next((begun / "train_state").iterdir()) / "tensors.safetensors", STATE[name])
    with pytest.raises(UnrolledError, match=r"train_state.*; train anew with another --out"):
        resume(begun, "cpu")


PROGRESS: list[dict[str, Any]] = [
    {"phase": 1},
    {"phase": -1},
    {"phase": 2**70},
    {"phase_step": 10**6},
    {"step": -1},
    {"position": 0},
    {"tokens": None},
    {"best": [1]},
    {"best_step": 99},
    {"recent": [None]},
    {"averaging": {"long": 1}},
    {"averaging": {"long": -1, "short": 0}},
    {"averaging": {"long": 1, "short": 0, "other": 0}},
    {"metrics_bytes": -1},
    {"wall_seconds": -5},
    {"checksums": {"train": 3}},
    {"more": 1},
]


@pytest.mark.parametrize("changes", PROGRESS, ids=str)
def test_progress(changes: dict[str, Any], begun: Path) -> None:
    path = next((begun / "train_state").iterdir()) / "progress.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(UnrolledError, match=r"train_state.* damaged.*; train anew with another --out") as caught:
        resume(begun, "cpu")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "normed_rmsprop"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_whole_states_are_taken(optimizer: str, momentum: float, tmp_path: Path) -> None:
    own = {"momentum": momentum} if optimizer == "sgd" else {}
    changes = {"steps": 4, "optimizer": {"name": optimizer, "lr": 0.01, **own}, "averaging": "ema"}
    run = train(experiment(write_text(tmp_path / "text"), train=changes), tmp_path / "run", "cpu")
    (run / "record.json").unlink()
    resume(run, "cpu")


@pytest.mark.parametrize(
    "record", [{"best_step": [1]}, {"best_step": 2**70}, {"checksums": []}, {"checksums": {"a": 1}}]
)
def test_records(record: dict[str, Any], begun: Path) -> None:
    (begun / "record.json").write_text(json.dumps(record))
    with pytest.raises(UnrolledError, match=r"record\.json is no run record: it is damaged"):
        Run(begun).provenance()


def test_damage_is_told_before_a_split_that_is_not_there(begun: Path) -> None:
    with pytest.raises(UnrolledError, match="has no split 'other'"):
        Run(begun).to_measure("other")
    (begun / "tokenizer.json").write_text("[" * 10**5)
    with pytest.raises(UnrolledError, match=r"tokenizer\.json is not valid JSON"):
        Run(begun).to_measure("other")
