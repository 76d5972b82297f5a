"""A task in one file: each token of a text is labelled odd or even, by its id. ``TASKS.add`` is its one line."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from unrolled.cells import CELLS, AnyCellConfig
from unrolled.core import tree
from unrolled.data import Stream, Window
from unrolled.data.walk import Columns, Progress, windows
from unrolled.model.blocks import StackConfig, make_stack
from unrolled.task import Evaluation, Goal, Loss, Objective, Seen, StepsTask, TaskConfig, TaskResult, Watch, unwatched
from unrolled.tasks.text import TextTask

__all__ = ["Labeller", "Parity", "ParityConfig"]


class ParityConfig(TaskConfig):
    """Options of the labelling."""

    name: Literal["parity"] = "parity"
    width: int = Field(default=6, ge=1, description="width of embedding and cell")
    cell: AnyCellConfig = Field(default_factory=lambda: CELLS.parse("gru"), description="the cell")


class Labeller(nn.Module):
    """An embedding, a cell, two logits."""

    def __init__(self, vocab_size: int, config: ParityConfig):
        super().__init__()
        self.embedding = nn.Embedding(vocab_size, config.width)
        self.stack = make_stack(config.width, [config.cell], [config.width], StackConfig())
        self.logits = nn.Linear(self.stack.out_width, 2)

    def initial_state(self, rows: int) -> Any:
        return self.stack.initial_state(rows, self.logits.weight.device, self.logits.weight.dtype)

    def forward(self, ids: Tensor, state: Any, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        h, state = self.stack(self.embedding(ids), state, reset)
        return self.logits(h), state


class Parity(TextTask, StepsTask):
    """Minimises the nats of the labels; validations watch how many are right."""

    Config = ParityConfig
    EXAMPLES = (ParityConfig(), ParityConfig.parse({"width": 3, "cell": "lstm"}))
    noun = "a labelling of odd and even"
    reads = ("stream", "tokenizer", "train")
    goal = Goal("accuracy", "max")
    objectives = ("reweigh",)

    def build(self) -> Labeller:
        assert isinstance(self.config.task, ParityConfig)
        return Labeller(self.tokenizer.vocab_size, self.config.task)

    def source(self) -> Stream:
        return Stream(self.splits["train"], self.config.stream, self.streams, self.tokenizer.start_id)

    def initial_state(self, model: Labeller) -> Any:
        return model.initial_state(self.config.stream.columns)

    def loss(
        self,
        model: Labeller,
        batch: Window,
        state: Any,
        drawn: None,
        objective: Objective,
        watch: Watch = unwatched,
    ) -> Loss:
        ids = batch.targets.to(model.logits.weight.device)
        if state is None or not batch.carried:
            state = model.initial_state(len(ids))
        logits, after = model(ids, state, batch.reset)
        nll = cross_entropy(logits.transpose(1, 2), ids % 2, reduction="none")
        seen = Seen(
            model, batch, state, drawn, nll.sum(), nll.detach(), ids % 2, again=lambda weight: (nll * weight).sum()
        )
        right = (logits.argmax(2) == ids % 2).float().mean()
        return Loss(objective(seen), *seen.counted(), after, {"right": right})

    def chance(self) -> float:
        return 0.6931471805599453

    @torch.no_grad()
    def evaluate(self, model: Labeller, examples: Any, how: Evaluation, advance: Progress | None = None) -> TaskResult:
        columns, state = Columns.cut(examples, 1, how.limit), model.eval().initial_state(1)
        right = nats = 0.0
        for low, ids, reset in windows(examples, columns, 64):
            x, begins = torch.from_numpy(ids), None if reset is None else torch.from_numpy(reset)
            logits, state = model(x, tree.detach(state), begins)
            right += float((logits.argmax(2) == x % 2).sum())
            nats += float(cross_entropy(logits.transpose(1, 2), x % 2, reduction="sum"))
            if advance is not None:
                advance(low + x.shape[1], columns.length, nats / (low + x.shape[1]))
        figures = {"accuracy": right / columns.length, "nats": nats / columns.length}
        provenance = {**self.origin(how), **how.provenance}
        return TaskResult(task="parity", figures=figures, counts={"tokens": columns.length}, provenance=provenance)
