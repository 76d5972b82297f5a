"""Scheduled sampling: when a model reads frames of its own, and that it does."""

from typing import Any

import pytest
import torch

from conformance.tolerance import assert_close
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel
from unrolled.task import Seen
from unrolled.tasks.frames_config import FramesTaskConfig
from unrolled.tasks.scheduled import SamplingConfig
from unrolled.train import ExperimentConfig
from unrolled.train.setup import set_up


def experiment(sampling: dict[str, Any] | None, **task: Any) -> ExperimentConfig:
    return ExperimentConfig.parse({
        "task": {"name": "frames", "head": {"name": "values"}, "given": 2, "sampling": sampling,
                 "frames": {"name": "squares", "side": 5, "square": 2, "length": 6, "sequences": 20}, **task},
        "model": {"width": 7, "layers": 2}, "stream": {"columns": 4, "window": 9}, "train": {"steps": 2, "threads": 1},
    })  # fmt: skip


def opened(sampling: dict[str, Any] | None) -> tuple[Any, LanguageModel, Any]:
    parts = set_up(experiment(sampling), "cpu")
    return parts.task, parts.model.double(), parts.source.at(1)  # type: ignore[return-value]


def total(seen: Seen) -> torch.Tensor:
    return seen.total


def test_the_chances_follow_the_schedules() -> None:
    plain = SamplingConfig(begin=100, end=300)
    assert [plain.chances(k) for k in (0, 100, 200, 300, 999)] == [(1, 1), (1, 1), (1, 0.5), (1, 0), (1, 0)]
    reverse = SamplingConfig(begin=100, end=300, first=0.5, context=0.5, rise=50)
    assert reverse.chances(50) == (0.5, 0.5)
    inside, behind = reverse.chances(200)
    assert (inside, behind) == (pytest.approx(1 - 0.5 * 2.718281828**-2), 0.25)
    assert reverse.chances(300) == (1, 0)
    with pytest.raises(UsageError, match="let it end later"):
        SamplingConfig.parse({"begin": 5, "end": 5})


def test_frames_are_drawn_behind_the_context() -> None:
    """In shares as the chances say; never the zeros that a sequence begins with; each process the same of its rows."""
    reset = torch.zeros(400, 8, dtype=torch.bool)
    reset[:, 2] = True  # of the frames before it nothing is known: they are behind their context
    how = SamplingConfig(begin=0, end=100, context=0.6, rise=1e9)
    own = how.draw(reset, (400, 8), 3, RandomStreams(1), 25).double().mean(0)
    wanted = torch.tensor([0.25, 0.25, 0, 0.4, 0.4, 0.4, 0.25, 0.25]).double()
    assert (own - wanted).abs().max() < 0.08
    assert own[2] == 0
    assert torch.equal(how.draw(None, (4, 8), 3, RandomStreams(1), 200), torch.ones(4, 8, dtype=torch.bool))


def test_own_frames_are_those_of_a_loop() -> None:
    """Loss and gradients, which go through the frames; the state is carried on."""
    task, model, batch = opened({"end": 40})
    drawn = task.draw(model, batch, 30)
    assert 0.2 < float(drawn.own.double().mean()) < 0.9
    state = model.initial_state(4)
    found = task.loss(model, batch._replace(carried=True), state, drawn, total)
    frames, head = batch.inputs.double(), model.head
    nats, x, expected = torch.zeros(()).double(), frames[:, 0], frames[:, 0]
    for t in range(9):
        if t:
            x = torch.where(drawn.own[:, t, None], expected, frames[:, t])
        out = model(x.unsqueeze(1), state, batch.reset[:, t : t + 1])
        state = out.state
        expected = head.scale.own(head.outputs(out.raw[:, 0]))  # type: ignore[operator, union-attr]
        nats = nats + head.loss(out.raw, batch.targets[:, t : t + 1].double())[0]  # type: ignore[operator]
    assert_close(found.value, nats, "loss")
    parameters = list(model.parameters())
    grads = (torch.autograd.grad(one, parameters, retain_graph=True) for one in (found.value, nats))
    for a, b in zip(*grads, strict=True):
        assert_close(a, b, "gradients")
    for a, b in zip(found.state.cells, state.cells, strict=True):
        assert_close(a.h, b.h.detach(), "state")


def test_with_true_frames_alone_nothing_changes() -> None:
    losses = []
    for sampling in (None, {"begin": 50, "end": 60}):
        task, model, batch = opened(sampling)
        losses.append(task.loss(model, batch, None, task.draw(model, batch, 3), total).value)
    assert torch.equal(*losses)
    task, model, batch = opened({"end": 1})
    assert not torch.allclose(task.loss(model, batch, None, task.draw(model, batch, 3), total).value, losses[0])


def test_what_is_refused() -> None:
    values = experiment({"end": 5}).model_dump(mode="json", exclude_none=True)
    values["model"]["dropout"]["output"] = 0.5
    parts = set_up(ExperimentConfig.parse(values), "cpu")
    with pytest.raises(UsageError, match="without dropout"):
        parts.task.draw(parts.model, parts.source.at(0), 0)
    written = ExperimentConfig.parse({
        "task": {"name": "written", "frames": "strokes", "head": "mixture", "sampling": {"end": 5}},
        "model": {"width": 8}, "train": {"steps": 2},
    })  # fmt: skip
    with pytest.raises(UsageError, match="has no scheduled sampling"):
        set_up(written, "cpu")
    assert FramesTaskConfig().sampling is None
