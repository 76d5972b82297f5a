"""Distillation: what it must equal, whose states the teachers read with, and which teachers are refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.objectives.teachers import make_teachers
from train.runs import events, experiment, make_text
from unrolled.core.errors import UsageError
from unrolled.data import Window
from unrolled.model import LanguageModel, ModelConfig
from unrolled.runs import Run
from unrolled.train import ExperimentConfig, train
from unrolled.train.objectives import OBJECTIVES, ExtraConfig, ObjectiveConfig
from unrolled.train.objectives.combined import Objectives
from unrolled.train.objectives.distill import Distill
from unrolled.train.setup import Parts, set_up

HEADS = (
    {"name": "softmax"},
    {"name": "softmax", "project": 4, "block": 100},  # blocks of one time step
    {"name": "mos", "components": 2},
    {"name": "adaptive", "cutoffs": [4]},
    {"name": "split", "cuts": [4]},
)


def distill(*teachers: str, weight: float = 0.5, temperature: float = 2.0) -> ExtraConfig:
    values = {"name": "distill", "teachers": list(teachers), "weight": weight, "temperature": temperature}
    return OBJECTIVES.parse(values)


def student(parts: Parts, head: Any = "softmax", **values: Any) -> LanguageModel:
    """A double model of the task's vocabulary, larger than it begins."""
    torch.manual_seed(3)
    tokenizer = parts.task.tokenizer
    assert tokenizer is not None
    lm = LanguageModel(ModelConfig.parse({"width": 8, "head": head, **values}), tokenizer.vocab_size).double()
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return lm


def of(config: ExtraConfig, parts: Parts, lm: Any) -> Objectives:
    return Objectives(ObjectiveConfig(), (config,), parts.task, lm)


def value_at(position: int, parts: Parts, lm: Any, objectives: Objectives, state: Any = None) -> tuple[Tensor, Any]:
    batch = objectives.prepare(parts.source.at(position), position)
    loss = parts.task.loss(lm, batch, state, parts.task.draw(lm, batch, position), objectives)
    return loss.value, loss.state


def read(lm: Any, parts: Parts, position: int) -> tuple[Tensor, Window]:
    """The log-probabilities of a window by a model that has read its epoch from the beginning, token by token."""
    at: Any = parts.source.at
    begun = position - (at(position).index if at(position).carried else 0)
    state, found, batch = lm.initial_state(4), [], at(begun)
    for p in range(begun, position + 1):
        batch, found = at(p), []
        for t in range(batch.inputs.shape[1]):
            fresh = lm.initial_state(4)
            parts_of = zip(state.cells, fresh.cells, strict=True)
            restart = torch.zeros(4, dtype=torch.bool) if batch.restart is None or t else batch.restart
            if batch.reset is not None:
                restart = restart | batch.reset[:, t]
            keep = ~restart.unsqueeze(1)
            cells = tuple(type(a)(*(torch.where(keep, x, y) for x, y in zip(a, b, strict=True))) for a, b in parts_of)
            out = lm(batch.inputs[:, t : t + 1], state._replace(cells=cells))
            state = out.state
            found.append(lm.head.log_prob(out.raw)[0])
    return torch.cat(found, 1), batch


def dense(lm: Any, teachers: list[Any], parts: Parts, position: int, a: float, tau: float) -> Tensor:
    """The formula on whole distributions, each side read token by token from the beginning of the epoch."""
    own, batch = read(lm, parts, position)
    wanted = torch.stack([read(teacher, parts, position)[0].exp() for teacher in teachers]).mean(0).log()
    cross = -own.gather(2, batch.targets.unsqueeze(2)).mean()
    wanted, flat = torch.log_softmax(wanted / tau, -1), torch.log_softmax(own / tau, -1)
    return (1 - a) * cross + a * tau**2 * (wanted.exp() * (wanted - flat)).sum(-1).mean()


def loaded(*names: str) -> list[Any]:
    return [Run(name, "cpu").model.double() for name in names]


@pytest.mark.parametrize("head", HEADS, ids=lambda head: f"{head['name']}-{len(head)}")
def test_it_is_the_formula_for_every_head(head: dict[str, Any], text: Path) -> None:
    dropped = {"output": 0.5, "state": 0.3, "zoneout": {"h": 0.2}}  # teachers are read in evaluation mode
    make_teachers(text, "teacher", "other", model={"head": {"name": "mos", "components": 2}, "dropout": dropped})
    parts = set_up(experiment(text), "cpu")
    lm = student(parts, head)
    value, _ = value_at(0, parts, lm, of(distill("teacher", "other", weight=0.3), parts, lm))
    found = torch.autograd.grad(value, list(lm.parameters()))
    wanted = dense(lm, loaded("teacher", "other"), parts, 0, 0.3, 2.0)
    torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-12)
    for one, other in zip(found, torch.autograd.grad(wanted, list(lm.parameters())), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-8, atol=1e-10)


def test_a_sampled_softmax_is_sampled_in_the_cross_entropy_alone(text: Path) -> None:
    make_teachers(text, "teacher")
    parts = set_up(experiment(text), "cpu")
    lm = student(parts, {"name": "softmax", "negatives": 3, "frequent": 2, "block": 300}).train()
    lm.head.use_counts(torch.arange(lm.vocab_size).flip(0))
    value, _ = value_at(0, parts, lm, of(distill("teacher", weight=1.0), parts, lm))
    wanted = dense(lm, loaded("teacher"), parts, 0, 1.0, 2.0)
    torch.testing.assert_close(value, wanted, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("mask", ["window", "step"])
def test_masks_belong_to_their_time_steps(mask: str, text: Path) -> None:
    """The student's dropout, on its output and on the projected one, is the same in blocks as at once."""
    make_teachers(text, "teacher")
    parts, values = set_up(experiment(text), "cpu"), []
    dropout = {"output": 0.3, "projected": 0.4, "mask": mask}
    for block in (1, 10**6):
        lm = student(parts, {"name": "softmax", "project": 5, "block": block}, dropout=dropout).train()
        values.append(value_at(0, parts, lm, of(distill("teacher"), parts, lm))[0])
    torch.testing.assert_close(*values, rtol=1e-12, atol=0)


@pytest.mark.parametrize("tau", [0.5, 1.0, 3.0])
def test_a_student_that_is_its_teacher_has_nothing_to_learn(tau: float, text: Path) -> None:
    make_teachers(text, "teacher")
    parts, (lm,) = set_up(experiment(text), "cpu"), loaded("teacher")
    lm.train().requires_grad_()
    value, _ = value_at(0, parts, lm, of(distill("teacher", weight=1.0, temperature=tau), parts, lm))
    assert abs(float(value.detach())) < 1e-12
    for grad in torch.autograd.grad(value, list(lm.parameters()), allow_unused=True):
        assert grad is None or float(grad.abs().max()) < 1e-12


@pytest.mark.parametrize("kind", ["plain", "lines", "dropped states", "afresh"])
def test_teachers_read_as_the_student_does(kind: str, tmp_path: Path) -> None:
    """Over windows, resets, dropped states and the border of an epoch; begun at any batch, to the bit."""
    (tmp_path / "short").mkdir()
    for split in ("train", "valid", "test"):
        (tmp_path / "short" / f"{split}.txt").write_bytes(make_text(12))
    corpus = {"corpus": {"path": str(tmp_path / "short"), **({"reset": "line"} if kind == "lines" else {})}}
    make_teachers(tmp_path / "short", "teacher")
    stream = {"columns": 4, "window": 30, "state_drop": 0.4 if kind == "dropped states" else 0.0}
    stream["carry"] = kind != "afresh"
    parts = set_up(experiment(tmp_path / "short", stream=stream, **corpus), "cpu")
    lm, teachers, at = student(parts), loaded("teacher"), parts.source.at
    epoch = parts.source.windows_per_epoch()
    windows: list[Any] = [at(position) for position in range(epoch + 2)]
    assert epoch > 2
    assert (kind == "lines") == any(window.reset is not None and bool(window.reset.any()) for window in windows)
    assert (kind == "dropped states") == any(window.restart is not None for window in windows)
    objectives, states, values = of(distill("teacher"), parts, lm), [None], []
    with torch.no_grad():
        for position in range(epoch + 2):
            value, after = value_at(position, parts, lm, objectives, states[-1])
            states.append(after)
            values.append(float(value))
            torch.testing.assert_close(value, dense(lm, teachers, parts, position, 0.5, 2.0), rtol=1e-9, atol=0)
        again = of(distill("teacher"), parts, lm)
        for position in (2, 1, 1, epoch + 1, 2):
            assert float(value_at(position, parts, lm, again, states[position])[0]) == values[position]


@pytest.mark.parametrize("fault", ["forgets between windows", "forgets where it begins", "another"])
def test_a_wrong_teacher_is_noticed(fault: str, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison with the formula sees a state that is not carried, or not read anew, and another teacher."""
    make_teachers(text, "teacher")
    parts = set_up(experiment(text), "cpu")
    lm, plain = student(parts), Distill._advance
    objectives = of(distill("teacher"), parts, lm)
    state = value_at(0, parts, lm, objectives)[1]
    if fault == "forgets between windows":
        monkeypatch.setattr(Distill, "_advance", lambda self, batch: plain(self, batch._replace(carried=False)))
    if fault == "forgets where it begins":
        objectives = of(distill("teacher"), parts, lm)
        monkeypatch.setattr(Distill, "_read", lambda self, batch, _: plain(self, batch._replace(carried=False)))
    own = loaded("teacher")
    if fault == "another":
        own = [lm]
    value, _ = value_at(1, parts, lm, objectives, state)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(value, dense(lm, own, parts, 1, 0.5, 2.0), rtol=1e-9, atol=0)


def test_a_phase_that_begins_amid_an_epoch(text: Path, tmp_path: Path) -> None:
    """Its teachers have read what the student has: the second of two equal phases goes on as one would."""
    make_teachers(text, "teacher")
    extra = [distill("teacher").model_dump(mode="json")]
    plain = {"name": "sgd", "lr": 0.5}
    steady = {"optimizer": plain, "schedule": {"name": "constant", "warmup": 0.0}, "extra": extra}
    values = {**steady, "validations": 1, "log_every": 1}

    def parts_of(name: str, **more: Any) -> list[Any]:
        done = train(experiment(text, train={**values, **more}), tmp_path / name, "cpu")
        return [(event["parts"], event["nats"]) for event in events(done) if event["type"] == "train"]

    whole = parts_of("whole", steps=9)
    two = parts_of("two", steps=5, then=[{"steps": 4, **steady}])
    assert two == whole


def test_every_option_does_something(text: Path) -> None:
    make_teachers(text, "teacher", "other")
    parts = set_up(experiment(text), "cpu")
    lm, seen = student(parts), set()
    for teachers in (("teacher",), ("other",), ("teacher", "other")):
        for weight in (0.5, 0.25):
            for temperature in (2.0, 1.0):
                config = distill(*teachers, weight=weight, temperature=temperature)
                seen.add(float(value_at(0, parts, lm, of(config, parts, lm))[0].detach()))
    assert len(seen) == 12


def test_weight_zero_loads_no_teacher(text: Path, tmp_path: Path) -> None:
    extra = [{"name": "distill", "teachers": ["nowhere"], "weight": 0}]
    assert events(train(experiment(text, train={"steps": 2, "extra": extra}), tmp_path / "run", "cpu"))


def test_never_all_log_probabilities_at_once(text: Path) -> None:
    make_teachers(text, "teacher")
    parts = set_up(experiment(text, stream={"columns": 4, "window": 40}), "cpu")
    lm, sizes = student(parts, {"name": "softmax", "block": 500}), []
    objectives, plain = of(distill("teacher"), parts, lm), lm.head.log_prob

    def watched(h: Tensor, *rest: Any) -> Any:
        found = plain(h, *rest)
        sizes.append(found[0].numel())
        return found

    lm.head.log_prob = watched  # type: ignore[method-assign]
    value_at(0, parts, lm, objectives)[0].backward()
    assert max(sizes) <= 500
    assert sum(sizes) == 4 * 40 * lm.vocab_size, "and each of them once"


def test_refusals(text: Path, tmp_path: Path) -> None:
    def said(*teachers: str, **parts: Any) -> str:
        extra = {"train": {"steps": 1, "extra": [distill(*teachers).model_dump(mode="json")]}}
        with pytest.raises(UsageError) as caught:
            train(experiment(text, **{**extra, **parts}), tmp_path / "run", "cpu")
        assert not (tmp_path / "run").exists()
        return str(caught.value)

    make_teachers(text, "teacher")
    assert "has no teachers; name folders" in said()
    assert "nowhere is not a run" in said("nowhere")
    make_teachers(text, "pointing", model={"head": {"name": "pointer"}})
    assert "the teacher pointing has the head pointer, which carries a state" in said("pointing")
    assert "this model has the head pointer" in said("teacher", model={"head": {"name": "pointer"}})
    others = shutil.copytree(text, tmp_path / "others")
    for path in others.iterdir():
        path.write_text(path.read_text().replace("z", "a").replace("v", "z"))
    make_teachers(others, "foreign")
    sentence = said("teacher", "foreign")
    assert "the teacher foreign is for another vocabulary: of " in sentence
    assert "name teachers that were trained with this run's tokenizer" in sentence


def test_as_many_ids_of_other_symbols_are_refused(text: Path, tmp_path: Path) -> None:
    """The number of ids is no vocabulary: one letter in the place of another is a teacher of something else."""
    others = shutil.copytree(text, tmp_path / "others")
    for path in others.iterdir():
        path.write_text(path.read_text().replace("g", "z"))
    make_teachers(others, "foreign")
    parts = set_up(experiment(text), "cpu")
    lm = student(parts)
    assert lm.vocab_size == loaded("foreign")[0].vocab_size
    with pytest.raises(UsageError, match=r"of (\d+) ids and \1 here, \d+ mean other symbols"):
        of(distill("foreign"), parts, lm)


def test_a_count_model_is_no_teacher(text: Path) -> None:
    values = experiment(text).model_dump(mode="json")
    del values["model"], values["stream"], values["train"]
    counts = {key: value for key, value in values.items() if value is not None} | {"task": {"name": "counts"}}
    train(ExperimentConfig.parse(counts), "counted", "cpu")
    parts = set_up(experiment(text), "cpu")
    with pytest.raises(UsageError, match="no neural weights"):
        of(distill("counted"), parts, student(parts))
