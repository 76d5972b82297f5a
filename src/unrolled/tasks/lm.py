"""The task of a language model: the next token of a text, in parallel columns with the state carried on."""

import math
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import torch

from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data import MissingCorpusError, Stream, TokenSplit, Window
from unrolled.evaluate import EvalConfig, EvalResult, evaluate_predictor
from unrolled.model import LanguageModel, ModelOutput, ModelState
from unrolled.model.dropout import Masks
from unrolled.predict import NeuralPredictor
from unrolled.runs import RunConfig
from unrolled.task import Evaluation, Goal, Loss, Objective, Seen, Size, StepsTask, TaskConfig, Watch, unwatched
from unrolled.task.values import Advance
from unrolled.tasks.lm_size import KnownText, lm_size, published_text
from unrolled.tasks.symbols import symbol_graph
from unrolled.tasks.text import LanguageTask

__all__ = ["LM", "LMConfig", "window_loss"]

_BLOCK = 1 << 20
# Of validations in training. A column shorter than this is mostly warm-up.
_SHORTEST_COLUMN, _WINDOW = 100, 100


class LMConfig(TaskConfig):
    """No settings: ``model`` and ``stream`` at the top of a recipe are this task's own."""

    name: Literal["lm"] = "lm"


class LM(LanguageTask, StepsTask):
    """Minimises the nats of the next token. Validations in training read parallel columns, the final one reads one."""

    Config = LMConfig
    EXAMPLES = (LMConfig(),)
    noun = "a language model"
    reads = ("model", "stream", "tokenizer", "train", "weights")
    goal = Goal("nats_per_token")
    objectives = None
    rows_setting = "stream.columns"
    _begun = ""
    """What the weights began from, for :meth:`describe`."""

    def build(self) -> LanguageModel:
        """See :meth:`StepsTask.build`; what head and cells need to know of the text is told and kept."""
        self._tell()
        model = LanguageModel(self.config.model, self.tokenizer.vocab_size)
        model.embedding.use_pieces(self.tokenizer.pieces)
        return model

    def _tell(self) -> None:
        """Head and cells learn the end symbol, the number of slices in time and the graph, where they need them."""
        own = self.config.model
        head = own.head.with_end(self.tokenizer.end_id).with_periods(lambda: self._periods(self.splits["train"]))
        own = own.with_graph(lambda: symbol_graph(self.splits["train"], self.tokenizer.vocab_size))
        self.config = self.config.model_copy(update={"model": own.model_copy(update={"head": head})})

    def _periods(self, split: TokenSplit) -> int:
        """Slices in time of the training text; 1 without dates. Raises UsageError where dates cannot be told apart."""
        if split.periods is None:
            if self.config.corpus.time is not None and self.config.model.head.name == "temporal":
                raise UsageError("the head temporal must know the date of each text; set corpus.reset=document.")
            return 1
        return int(split.periods.max()) + 1

    def start(self, model: LanguageModel, fresh: bool) -> None:
        """Give a head that asks for them the counts of the training tokens; load the weights to begin with."""
        if model.head.needs_counts or model.head.needs_periods:
            split, size = self.splits["train"], self.tokenizer.vocab_size
            counts = torch.zeros(self._periods(split), size, dtype=torch.int64)
            for start in range(0, len(split), _BLOCK):
                ids = split.ids(start, start + _BLOCK)
                if split.periods is not None and split.starts is not None:
                    places = np.searchsorted(split.starts, np.arange(start, start + len(ids)), side="right") - 1
                    ids = ids + split.periods[places] * size
                counts += torch.bincount(torch.from_numpy(ids), minlength=counts.numel()).view_as(counts)
            if model.head.needs_counts:
                model.head.use_counts(counts.sum(0))
            if model.head.needs_periods:
                model.head.use_periods(counts)
        if fresh and self.config.weights is not None:
            self._begun = f"; {self.config.weights.load(model, self.tokenizer)}"

    def source(self) -> Stream:
        """See :meth:`StepsTask.source`."""
        own = self.streams.part(self.config.stream.columns)
        return Stream(self.splits["train"], self.config.stream, self.streams, self.tokenizer.start_id, own)

    def rows(self) -> int:
        """See :meth:`StepsTask.rows`."""
        return self.config.stream.columns

    def initial_state(self, model: LanguageModel) -> ModelState:
        """See :meth:`StepsTask.initial_state`."""
        return model.initial_state(len(self.streams.part(self.config.stream.columns)))

    def draw(self, model: LanguageModel, batch: Window, position: int) -> Masks | None:
        """Dropout masks, and what the head draws."""
        columns, time = batch.inputs.shape
        return model.draw_masks(columns, time, self.streams, position, period=batch.period)

    def loss(
        self,
        model: LanguageModel,
        batch: Window,
        state: ModelState | None,
        drawn: Masks | None,
        objective: Objective,
        watch: Watch = unwatched,
    ) -> Loss:
        """See :meth:`StepsTask.loss`."""
        return window_loss(model, batch, state, drawn, objective, watch)

    def evaluate(
        self, model: LanguageModel, examples: Any, how: Evaluation, advance: Advance | None = None
    ) -> EvalResult:
        """See :meth:`Task.evaluate`."""
        values: dict[str, Any] = {"split": how.split, "limit": how.limit}
        if how.columns is not None:
            total = min(how.limit or len(examples), len(examples))
            values |= {"columns": min(how.columns, max(1, total // _SHORTEST_COLUMN)), "window": _WINDOW}
        provenance = {**self.origin(how), "parameters": model.num_params(), **how.provenance}
        predictor = NeuralPredictor(model, self.tokenizer.start_id)
        config = EvalConfig.parse(values)
        return evaluate_predictor(predictor, examples, config, advance, provenance, group=how.group)

    def figure(self, result: EvalResult) -> float:
        """See :meth:`StepsTask.figure`."""
        return result.nats_per_token

    def logged(self, result: EvalResult) -> dict[str, Any]:
        """See :meth:`StepsTask.logged`."""
        return {"nats": result.nats_per_token, "protocol": result.protocol.name}

    def chance(self) -> float:
        """Of uniform guessing."""
        return math.log(max(self.tokenizer.vocab_size, 2))

    def record(self, model: LanguageModel) -> dict[str, Any]:
        """See :meth:`Task.record`."""
        return {
            "precision": self.config.model.compute.precision,
            **super().record(model),
            "parameters": model.num_params(),
            "flops_per_token": model.flops_per_token(),
        }

    def describe(self, model: LanguageModel) -> str:
        """See :meth:`StepsTask.describe`."""
        config = model.config
        cells = ", ".join(dict.fromkeys(cell.name for cell in config.layer_cells()))
        return (
            f"{self.corpus.name}: {len(self.splits['train']):,} training tokens, vocabulary "
            f"{self.tokenizer.vocab_size:,}; {config.layers} x {cells} {config.layer_widths()[0]}, "
            f"{model.num_params():,} parameters{self._begun}"
        )

    def operations(self, model: LanguageModel, targets: int) -> dict[str, int]:
        """The head makes its gradients with its loss, the cells theirs in the backward pass. Those of a sampled softmax
        depend on the text and are not counted."""
        cells = model.stack_flops_per_token()
        sampled = getattr(model.head.config, "negatives", None) is not None
        head = 0 if sampled else model.flops_per_token() - cells
        return {"forward": targets * cells, "loss": 3 * targets * head, "backward": 2 * targets * cells}

    @classmethod
    def size(cls, config: RunConfig) -> Size:
        """See :meth:`Task.size`; a corpus of the table whose counts are published need not be there."""
        text, note = published_text(config), None
        try:
            task = cls(config, RandomStreams(config.seed))
            text = KnownText(task.tokenizer.vocab_size, len(task.splits["train"]))
        except MissingCorpusError as error:
            note = f"absent: {error}"
        return lm_size(config, text, note)


def window_loss(
    model: LanguageModel,
    batch: Window,
    state: ModelState | None,
    drawn: Masks | None,
    objective: Objective,
    watch: Watch = unwatched,
    read: Callable[[LanguageModel, Window, ModelState], ModelOutput] | None = None,
) -> Loss:
    """The loss of a window of a language model, as :meth:`StepsTask.loss` gives it. read: runs the model over the
    window in another way than by its call, without masks."""
    device = model.device
    parts = {
        name: None if value is None else value.to(device)
        for name, value in zip(("inputs", "targets", "reset", "weight"), batch[:4], strict=True)
    }
    batch = batch._replace(**parts)
    if state is None or not batch.carried:
        state = model.initial_state(len(batch.inputs))
    elif batch.restart is not None:
        state = tree.reset_rows(state, model.initial_state(len(batch.inputs)), batch.restart.to(device))
    out = model(batch.inputs, state, batch.reset, drawn) if read is None else read(model, batch, state)
    watch("forward")
    total, nll, after = model.score(out, batch.targets, batch.reset, batch.weight, drawn)
    watch("loss")

    def again(weight: torch.Tensor) -> torch.Tensor:
        return model.score(out, batch.targets, batch.reset, weight, drawn)[0]

    seen = Seen(model, batch, state, drawn, total, nll, batch.targets, batch.weight, batch.reset, out, again)
    return Loss(objective(seen), *seen.counted(), after)
