"""Every check on every objective's EXAMPLES, and what each of them must equal."""

import shutil
import signal
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.objectives.side import Ones
from conformance.objectives.teachers import eleven, make_teachers, write_candidates
from conformance.tasks.parity import Parity
from families import first_of_each
from train.runs import events, experiment
from unrolled.core.errors import StoppedError, UsageError
from unrolled.core.random import RandomStreams
from unrolled.core.tree import load_tensors
from unrolled.data import StreamConfig, Window
from unrolled.model import LanguageModel, ModelConfig
from unrolled.runs import saved_states
from unrolled.task import TASKS, Saved
from unrolled.tasks.lm import LM
from unrolled.train import ExperimentConfig, Reporter, resume, train
from unrolled.train.objectives import OBJECTIVES, ExtraConfig, ObjectiveConfig
from unrolled.train.objectives.combined import Objectives

V, B, T = 11, 3, 5
TASK: Any = LM(None, RandomStreams(1), Saved(Path(), {}))  # type: ignore[arg-type]
TASK.config = SimpleNamespace(stream=StreamConfig(carry=False))
TASK.splits = {}
EXAMPLES = [example for name in OBJECTIVES for example in OBJECTIVES[name].EXAMPLES] + list(Ones.EXAMPLES)


@pytest.fixture(autouse=True)
def _registered(request: pytest.FixtureRequest, _private: None) -> Iterator[None]:
    OBJECTIVES.add("ones", Ones)
    config = request.node.callspec.params.get("config") if hasattr(request.node, "callspec") else None
    if getattr(config, "candidates", None):
        write_candidates(Path("candidates.jsonl"))
    if teachers := getattr(config, "teachers", ()) or (["teacher"] if getattr(config, "candidates", None) else ()):
        own = "text" in request.fixturenames  # else the vocabulary is TASK's
        make_teachers(request.getfixturevalue("text") if own else eleven(Path("letters")), *teachers)
        shutil.copy(Path(teachers[0]) / "tokenizer.json", "tokenizer.json")
    yield
    OBJECTIVES.remove("ones")


def name_of(config: ExtraConfig) -> str:
    return f"{config.name}-{config.weight:g}"


def suits(config: ExtraConfig) -> dict[str, Any]:
    """Parts of a recipe that it serves, models by backends that any cell has."""
    own = dict(OBJECTIVES[config.name].suits)
    return {**own, "model": {**own["model"], "compute": {"backend": "auto"}}} if "model" in own else own


def suited(config: ExtraConfig, **values: Any) -> LanguageModel:
    """A model that it serves."""
    return model(**values, **suits(config).get("model", {}))


every = pytest.mark.parametrize("config", first_of_each(EXAMPLES, attrgetter("name")), ids=name_of)


def model(head: Any = "softmax", **values: Any) -> LanguageModel:
    torch.manual_seed(2)
    lm = LanguageModel(ModelConfig.parse({"width": 6, "head": head, **values}), V).double()
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return lm


def window(weighted: bool = False) -> Window:
    ids = torch.randint(V, (B, T + 1), generator=torch.Generator().manual_seed(1))
    weight = torch.rand(B, T, generator=torch.Generator().manual_seed(3), dtype=torch.float64) if weighted else None
    return Window(ids[:, :-1], ids[:, 1:], None, weight, 0, 0, False)


def value_of(lm: LanguageModel, objectives: Objectives, batch: Window) -> Tensor:
    batch = objectives.prepare(batch, 4)
    return TASK.loss(lm, batch, None, TASK.draw(lm, batch, 4), objectives).value


def of(config: ExtraConfig, lm: LanguageModel, reduction: Any = "mean") -> Objectives:
    return Objectives(ObjectiveConfig(reduction=reduction), (config,), TASK, lm)


def difference(numbers: Tensor, at: int, objectives: Objectives, lm: LanguageModel, batch: Window) -> float:
    eps, found = 1e-6, []
    for change in (eps, -2 * eps, eps):
        with torch.no_grad():
            numbers[at] += change
        found.append(float(value_of(lm, objectives, batch).detach()))
    return (found[0] - found[1]) / (2 * eps)


@every
@pytest.mark.parametrize("weighted", [False, True])
def test_the_gradient_is_that_of_the_value(config: ExtraConfig, weighted: bool) -> None:
    lm, batch = suited(config, dropout={"output": 0.3}), window(weighted)
    if not OBJECTIVES[config.name].follows:
        pytest.skip("something is held fixed in its gradient")
    objectives = of(config, lm)
    value_of(lm, objectives, batch).backward()
    detached = getattr(config, "detached", False)
    for name, p in [*lm.named_parameters(), *objectives.sides.named_parameters()]:
        assert p.grad is not None, name
        if detached and not name.startswith("ones"):
            continue  # what the model does not learn from
        flat = p.detach().view(-1)
        for at in (0, len(flat) // 2, len(flat) - 1):
            found = difference(flat, at, objectives, lm, batch)
            assert float(p.grad.view(-1)[at]) == pytest.approx(found, abs=3e-8), name


@every
def test_rows_of_weight_zero_change_nothing(config: ExtraConfig) -> None:
    """Of what the objectives say about targets; one about all outputs is no such thing."""
    if config.name == "ones":
        pytest.skip("about outputs")
    lm, whole = suited(config), window()
    few = Window(whole.inputs[:2], whole.targets[:2], None, None, 0, 0, False)
    padded = whole._replace(weight=torch.tensor([[1.0], [1.0], [0.0]], dtype=torch.float64).expand(B, T))
    first, second = (value_of(lm, of(config, lm), batch) for batch in (few, padded))
    torch.testing.assert_close(first, second, rtol=1e-12, atol=0)


@every
def test_config_round_trip(config: ExtraConfig, text: Path) -> None:
    whole = experiment(text, train={"extra": [config.model_dump()]})
    assert ExperimentConfig.parse(whole.model_dump(mode="json")) == whole
    assert whole.train.extra == (config,)
    with pytest.raises(UsageError, match=r"unknown config key 'train\.extra\.0\.wieght'; did you mean 'weight'"):
        experiment(text, train={"extra": [{"name": config.name, "wieght": 1}]})


class Stopper(Reporter):
    def step(self, progress: Any, nats: float, lr: float) -> None:
        if progress.step in (3, 7) and not getattr(self, f"at_{progress.step}", False):
            setattr(self, f"at_{progress.step}", True)
            signal.raise_signal(signal.SIGTERM)


@every
def test_runs(config: ExtraConfig, text: Path, tmp_path: Path) -> None:
    """Weight 0 is the plain run to the byte, another weight is another run, and a stopped one resumes to the byte."""
    base = {"steps": 10, "validations": 2, "log_every": 1, "clip": 0.5}
    later = {"then": [{"steps": 4, "optimizer": {"name": "sgd", "lr": 0.5, "momentum": 0.5}}]}

    def run(name: str, **extra: Any) -> Path:
        return train(experiment(text, train={**base, **later, **extra}, **suits(config)), tmp_path / name, "cpu")

    values = config.model_dump(mode="json")
    plain, absent = run("plain"), run("absent", extra=[{**values, "weight": 0}])
    assert (plain / "model.safetensors").read_bytes() == (absent / "model.safetensors").read_bytes()
    whole = run("whole", extra=[values])
    same = (plain / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    apart = getattr(config, "detached", False) or getattr(config, "penalty", 1) == 0
    assert same == apart, "a detached side changes nothing, not by clipping either"
    assert config.name in events(whole)[0]["parts"]
    assert set(load_tensors(plain / "model.safetensors")) == set(load_tensors(whole / "model.safetensors"))
    stopper, stopped = Stopper(), tmp_path / "stopped"
    parts = {"train": {**base, **later, "extra": [values]}, **suits(config)}
    with pytest.raises(StoppedError):
        train(experiment(text, **parts), stopped, "cpu", stopper)
    with pytest.raises(StoppedError):
        resume(stopped, "cpu", stopper)
    resume(stopped, "cpu", stopper)
    assert events(stopped) == events(whole)
    assert (stopped / "model.safetensors").read_bytes() == (whole / "model.safetensors").read_bytes()
    ends = [load_tensors(saved_states(one)[-1] / "tensors.safetensors") for one in (stopped, whole)]
    assert set(ends[0]) == set(ends[1])
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_side_parameters_are_kept_in_the_training_state_and_trained(text: Path, tmp_path: Path) -> None:
    values = {"steps": 10, "validations": 0, "extra": [{"name": "ones", "detached": True}]}
    done = train(experiment(text, train=values), tmp_path / "run", "cpu")
    tensors = load_tensors(saved_states(done)[-1] / "tensors.safetensors")
    kept = {name: value for name, value in tensors.items() if name.startswith("side.")}
    assert set(kept) == {"side.ones.weight", "side.ones.bias"}
    few = train(experiment(text, train={**values, "steps": 1}), tmp_path / "few", "cpu")
    early = load_tensors(saved_states(few)[-1] / "tensors.safetensors")
    assert not torch.equal(kept["side.ones.weight"], early["side.ones.weight"])
    numbers = {int(name.split(".")[1]) for name in tensors if name.startswith("optimizer.")}
    assert len(numbers) == sum(name.startswith("model.") for name in tensors) + 2, "the optimiser serves them too"


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("bias", [False, True])
def test_smoothing_is_that_of_the_whole_distribution(tied: bool, bias: bool) -> None:
    share, batch = 0.3, window(weighted=True)
    head = {"name": "softmax", "bias": bias, **({} if tied else {"project": 4})}
    lm = model(head, embedding={"tied": tied, **({"size": 4} if tied else {})})
    value = value_of(lm, of(OBJECTIVES.parse({"name": "smooth", "weight": share}), lm), batch)
    found = torch.autograd.grad(value, list(lm.parameters()))
    log_prob, _ = lm.head.log_prob(lm(batch.inputs).dropped)
    own = log_prob.gather(2, batch.targets.unsqueeze(2)).squeeze(2)
    assert batch.weight is not None
    plain = (batch.weight * -((1 - share) * own + share * log_prob.mean(2))).sum() / batch.weight.sum()
    torch.testing.assert_close(value, plain, rtol=1e-12, atol=1e-12)
    for one, other in zip(found, torch.autograd.grad(plain, list(lm.parameters())), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-12)


def test_auxiliary_losses_are_those_of_the_levels_by_themselves() -> None:
    """A trellis of fewer levels has the same weights, so that its loss is what is added."""
    cell = {"name": "trellis", "levels": 6, "hidden": 2, "aux_frequency": 2}
    lm, batch = model(cell=cell), window(weighted=True)
    plain = value_of(lm, Objectives(ObjectiveConfig(), (), TASK, lm), batch)
    value = value_of(lm, of(OBJECTIVES.parse({"name": "auxiliary", "weight": 0.5}), lm), batch)
    found = []
    for levels in (2, 4, 6):
        fewer = model(cell={**cell, "levels": levels})
        fewer.load_state_dict(lm.state_dict())
        found.append(value_of(fewer, Objectives(ObjectiveConfig(), (), TASK, fewer), batch))
    torch.testing.assert_close(value, plain + 0.5 * torch.stack(found).sum(), rtol=1e-12, atol=1e-12)
    for other in ({}, {"cell": {"name": "trellis"}}, {"cell": cell, "stack": {"kind": "residual"}}):
        with pytest.raises(UsageError, match=r"set trellis\.aux_frequency, or leave it out"):
            of(OBJECTIVES.parse("auxiliary"), model(**other))


def test_the_sum_over_time_is_the_scale_of_all() -> None:
    lm, batch = model(), window()
    config = OBJECTIVES.parse({"name": "smooth", "weight": 0.3})
    mean, total = (value_of(lm, of(config, lm, reduction), batch) for reduction in ("mean", "sum"))
    torch.testing.assert_close(total, mean * T)


def test_refusals(text: Path, tmp_path: Path) -> None:
    def said(train_values: dict[str, Any], **parts: Any) -> str:
        with pytest.raises(UsageError) as caught:
            train(experiment(text, train={"steps": 1, **train_values}, **parts), tmp_path / "run", "cpu")
        assert not (tmp_path / "run").exists()
        return str(caught.value)

    smooth = {"extra": [{"name": "smooth"}]}
    assert "smooth needs the head softmax" in said(smooth, model={"head": {"name": "mos", "components": 2}})
    assert "without negatives" in said(smooth, model={"head": {"name": "softmax", "negatives": 3}})
    assert "without negatives and cap" in said(smooth, model={"head": {"name": "softmax", "cap": 30.0}})
    assert "unknown objective 'smoth'; did you mean 'smooth'?" in said({"extra": ["smoth"]})
    assert "has the objective smooth twice" in said({"extra": ["smooth", {"name": "smooth", "weight": 0.2}]})
    assert "choose another train.optimizer.name" in said({"extra": ["ones"], "optimizer": {"name": "normed_rmsprop"}})


def test_a_task_names_what_it_takes(text: Path, tmp_path: Path) -> None:
    known = "parity" in TASKS
    if not known:
        TASKS.add("parity", Parity)
    values = experiment(text, train={"steps": 2}).model_dump(mode="json")
    del values["model"]
    values["task"] = {"name": "parity"}
    try:
        values["train"]["extra"] = [{"name": "smooth"}]
        with pytest.raises(UsageError, match="a labelling of odd and even does not take the objective smooth"):
            train(ExperimentConfig.parse(values), tmp_path / "run", "cpu")
        values["train"]["extra"] = [{"name": "reweigh"}]
        assert events(train(ExperimentConfig.parse(values), tmp_path / "run", "cpu"))
    finally:
        if not known:
            TASKS.remove("parity")
