"""A small model in float64, windows of it, and a task without text, for tests of single objectives."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import Tensor

from unrolled.core.random import RandomStreams
from unrolled.data import StreamConfig, Window
from unrolled.model import LanguageModel, ModelConfig
from unrolled.task import Saved
from unrolled.tasks.lm import LM
from unrolled.train.objectives import OBJECTIVES, ExtraConfig, ObjectiveConfig
from unrolled.train.objectives.combined import Objectives

V, B, T = 11, 3, 7


def make_task() -> Any:
    """The task of a language model, whose windows begin afresh."""
    task: Any = LM(None, RandomStreams(1), Saved(Path(), {}))  # type: ignore[arg-type]
    task.config = SimpleNamespace(stream=StreamConfig(carry=False))
    task.splits = {}
    return task


def make_model(head: Any = "softmax", **values: Any) -> LanguageModel:
    """Its parameters are larger than it begins with."""
    torch.manual_seed(2)
    lm = LanguageModel(ModelConfig.parse({"width": 6, "head": head, **values}), V).double()
    with torch.no_grad():
        for parameter in lm.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return lm


def make_window(weighted: bool = False, resets: bool = False, rows: int = B, time: int = T) -> Window:
    """Random ids; with ``resets`` sentences that begin at the start symbol 0."""
    ids = torch.randint(1, V, (rows, time + 1), generator=torch.Generator().manual_seed(1))
    weight = None
    if weighted:
        weight = torch.rand(rows, time, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    inputs, reset = ids[:, :-1].clone(), None
    if resets:
        reset = torch.rand(rows, time, generator=torch.Generator().manual_seed(5)) < 0.4
        reset[0, 1:] = False
        inputs[reset] = 0
    return Window(inputs, ids[:, 1:], reset, weight, 0, 0, False)


def objectives_of(lm: LanguageModel, name: str, **values: Any) -> Objectives:
    """One further objective beside the cross-entropy."""
    config: ExtraConfig = OBJECTIVES.parse({"name": name, **values})
    return Objectives(ObjectiveConfig(), (config,), make_task(), lm)


def term_of(lm: LanguageModel, objectives: Objectives, batch: Window, position: int = 4) -> Tensor:
    """The further objective's value of a batch, differentiable, times its weight."""
    batch, task = objectives.prepare(batch, position), make_task()
    drawn = task.draw(lm, batch, position)
    whole = task.loss(lm, batch, None, drawn, objectives).value
    return whole - task.loss(lm, batch, None, drawn, Objectives(ObjectiveConfig(), (), task, lm)).value
