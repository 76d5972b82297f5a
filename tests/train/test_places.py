"""Cells that use their place in a stack train, go on to the byte after a break, and are decoded or refused in words."""

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from train.places import PLACED
from train.runs import experiment, record
from unrolled.cells import CELLS
from unrolled.core.errors import UsageError
from unrolled.core.parameters import rules_of
from unrolled.model import LanguageModel, ModelConfig
from unrolled.optim import OPTIMIZERS, build_optimizer, set_rate
from unrolled.runs import Run
from unrolled.train import resume, train
from unrolled.train.loop import Trainer


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    for name, cls in PLACED.items():
        CELLS.add(name, cls)
    yield
    for name in PLACED:
        CELLS.remove(name)


def build(name: str, **config: Any) -> LanguageModel:
    torch.manual_seed(0)
    return LanguageModel(ModelConfig.parse({"width": 6, "layers": 3, "cell": name, **config}), 9)


@pytest.mark.parametrize("name", PLACED)
def test_trains_and_goes_on_to_the_byte(name: str, text: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts: dict[str, Any] = {
        "model": {"cell": name, "layers": 3, "compute": {}},
        "train": {"steps": 20, "validations": 2},
    }
    config = experiment(text, **parts)
    train(config, tmp_path / "whole", "cpu")
    step, count = Trainer._step, [0]

    def breaks(self: Trainer) -> None:
        count[0] += 1
        if count[0] == 13:
            raise RuntimeError("power cut")
        step(self)

    with monkeypatch.context() as patch:
        patch.setattr(Trainer, "_step", breaks)
        with pytest.raises(RuntimeError, match="power cut"):
            train(config, tmp_path / "broken", "cpu")
    resume(tmp_path / "broken", "cpu")
    whole, broken = ((tmp_path / run / "model.safetensors").read_bytes() for run in ("whole", "broken"))
    assert whole == broken
    assert record(tmp_path / "whole")["steps"] == 20
    assert Run(tmp_path / "whole", "cpu").model.stack.cells()[2].place.layer == 2


def test_a_shared_table_is_one_parameter_of_the_stack() -> None:
    model = build("sharer")
    assert [name for name in dict(model.named_parameters()) if "table" in name] == ["stack.layers.0.table.rows"]
    assert model.stack.cells()[0].get_parameter("table.rows").shape == (3, 6)
    bounds = [layer.effective_weights()["bound"] for layer in model.stack.cells()]  # type: ignore[attr-defined]
    assert all(bool((low < high).all()) for low, high in itertools.pairwise(bounds))
    mixed = build("sharer", cell=["sharer", "lstm", "sharer"])
    places = [layer.place for layer in mixed.stack.cells()]
    assert [(place.layer, place.layers, place.index, place.count) for place in places] == [
        (0, 3, 0, 2), (1, 3, 0, 1), (2, 3, 1, 2),
    ]  # fmt: skip


def test_a_value_is_handed_upwards_within_a_window_alone() -> None:
    model, tokens = build("hander").double(), torch.arange(8).view(1, 8)
    whole = model(tokens).raw
    layers = model.stack.cells()
    alone = model.embedding(tokens)
    for layer in layers:
        alone, _ = layer(alone)
    assert not torch.allclose(whole, alone), "the layers above use what the first has handed them"
    state, pieces = None, []
    for piece in tokens.split(3, 1):
        out = model(piece, state)
        state = out.state
        pieces.append(out.raw)
    torch.testing.assert_close(torch.cat(pieces, 1), whole)
    (grad,) = torch.autograd.grad(model(tokens).raw[..., :3].sum(), layers[0].get_parameter("weight"))
    assert grad.count_nonzero() > 0


def test_a_cell_with_a_step_cannot_hand_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PLACED["leaky"], "hands", ("first",))
    with pytest.raises(UsageError, match="leaky goes step by step"):
        build("leaky")


def test_rules_reach_the_optimiser() -> None:
    model = build("leaky")
    rates = [layer.get_parameter("rate") for layer in model.stack.cells()]
    assert set(rules_of(model)) == set(rates)
    config = OPTIMIZERS.parse({"name": "adamw", "lr": 0.1, "weight_decay": 0.5})
    optimizer = build_optimizer(config, model.parameters(), rules_of(model))
    set_rate(optimizer, 0.2)
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    for parameter in model.parameters():
        group = groups[id(parameter)]
        own = any(parameter is rate for rate in rates)
        assert (group["lr"], group["weight_decay"]) == ((0.1, 0.0) if own else (0.2, 0.5))


def test_an_initialisation_for_all_matrices_leaves_out_what_is_protected() -> None:
    plain, drawn = build("sharer"), build("sharer", init_std=0.01)
    assert drawn.stack.cells()[0].get_parameter("weight").std() < 0.02
    assert plain.stack.cells()[0].get_parameter("weight").std() > 0.1
    kept = build("leaky", init_std=0.01)
    assert bool((kept.stack.cells()[0].get_parameter("rate") == 1).all())


def test_what_is_not_trainable_stays(text: Path, tmp_path: Path) -> None:
    parts: dict[str, Any] = {"train": {"steps": 12, "validations": 1}}
    frozen = experiment(text, train={**parts["train"], "trainable": ["head.*", "*bias"]})
    train(frozen, tmp_path / "frozen", "cpu")
    train(
        experiment(text, train={**parts["train"], "optimizer": {"name": "sgd", "lr": 1e-9}}), tmp_path / "still", "cpu"
    )
    found, begun = (dict(Run(tmp_path / run, "cpu").model.named_parameters()) for run in ("frozen", "still"))
    trained = {name for name in found if not torch.allclose(found[name], begun[name], atol=1e-5)}
    assert trained == {name for name in found if name.startswith("head.") or name.endswith("bias")}
    said = record(tmp_path / "frozen")
    assert said["trainable_parameters"] == sum(found[name].numel() for name in trained) < said["parameters"]
    with pytest.raises(UsageError, match=r"no parameter matches 'heads\.\*'"):
        train(experiment(text, train={"trainable": ["heads.*"]}), tmp_path / "none", "cpu")
