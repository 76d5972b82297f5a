"""Recoding: the carried state moved by gradients of what was read, while the parameters stay."""

import contextlib
import math
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unrolled.cells import StepCell
from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.kernels.dispatch import Compute
from unrolled.model import LanguageModel, ModelState
from unrolled.predict.adapter import READING, Adapter, AdapterConfig, Search, Source
from unrolled.predict.base import Prediction, Predictor
from unrolled.predict.of_model import ModelPredictor

__all__ = ["Recode", "RecodeConfig", "RecodePredictor", "RecodeState"]


class RecodeConfig(AdapterConfig):
    """Options of recoding."""

    short: ClassVar[str | None] = "signal"

    name: Literal["recode"] = "recode"
    signal: Literal["surprisal", "entropy", "recent"] = Field(
        default="surprisal",
        description="what the state is moved to lower: the nats of the token that came; the entropy of the mean "
        "prediction of thinned outputs; or the nats of the last `memory` tokens, read again",
    )
    step: float = Field(default=0.01, ge=0, le=1e6, description="of the gradient descent (eta); 0: the model as it is")
    steps: int = Field(default=1, ge=1, description="of gradient descent for each token; above 1 for `recent` alone")
    memory: int = Field(default=4, ge=1, description="recent: tokens that are read again")
    samples: int = Field(default=8, ge=1, description="entropy: thinned outputs")
    rate: float = Field(default=0.2, ge=0, lt=1, description="entropy: dropout of the outputs")
    seed: int = Field(default=1, ge=0, description="entropy: of the dropout masks, the same ones at every token")


class RecodeState(NamedTuple):
    """here: the model's state before the next input. last: (batch, 1) the next input. For ``recent``: start, the state
    before the first of the inputs; inputs: (batch, memory), the last of them the next input; fill: (batch, 1) how many
    of them there are, at the right."""

    here: ModelState
    last: Tensor
    start: ModelState | None = None
    inputs: Tensor | None = None
    fill: Tensor | None = None


class RecodePredictor(ModelPredictor):
    r"""A language model whose state is moved against a gradient after each token.

    Surprisal and entropy (recoding: Ulmer, arXiv 1912.02260): with d the signal after a step, every field s of every
    layer's state becomes

    .. math:: s \leftarrow s - \eta \, \frac{\partial d}{\partial s}

    where the gradient takes the paths within that step. The surprisal is -log p of the token that came (their code:
    p^-p - 1); the entropy is that of the mean of ``samples`` predictions with dropout on the output that the head
    reads. What was scored does not change: the state that is moved is the one that goes on.

    Recent (hidden-state optimisation): the state before the last ``memory`` tokens is moved ``steps`` times to lower
    their nats, and they are read again from there; until so many have been read since the beginning, nothing is moved.

    Computed by the plain loop (the backend ``reference``), token by token.

    Args:
        model: put in evaluation mode. start_id: the tokenizer's. temperature: see :meth:`Head.tempered`.
    Raises:
        UsageError: surprisal or entropy with a cell that has no step, whose output does not follow from its state.
    """

    kind = "recoded"

    def __init__(self, model: LanguageModel, start_id: int, config: RecodeConfig, temperature: float = 1.0):
        self.model = model.eval()
        self.vocab_size, self.start_id, self.config = model.vocab_size, start_id, config
        self._temperature, self._head = temperature, model.head.tempered(temperature)
        if config.steps > 1 and config.signal != "recent":
            raise UsageError(f"recode.steps is for the signal recent; with {config.signal} leave it out.")
        odd = [cell.name for cell in model.stack.cells() if not isinstance(cell, StepCell)]
        if odd and config.signal != "recent":
            raise UsageError(
                f"the {odd[0]} has no step whose state could be moved; set recode.signal=recent, or leave out recode."
            )
        self._compute = Compute.parse({**model.config.compute.model_dump(), "backend": "reference"})
        self._masks = _masks(config, model.head.in_width)
        self._ahead: tuple[RecodeState, Tensor, ModelState] | None = None

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        used = {"signal": self.config.signal, "step": self.config.step}
        names = {"recent": ("steps", "memory"), "entropy": ("samples", "rate", "seed"), "surprisal": ()}
        used |= {name: getattr(self.config, name) for name in names[self.config.signal]}
        return {"recode": used, **({} if self._temperature == 1.0 else {"temperature": self._temperature})}

    def begin(self, batch: int, first: Tensor | None = None) -> RecodeState:
        """See :meth:`Predictor.begin`."""
        if first is None:
            first = torch.full((batch,), self.start_id, device=self.device)
        start, last = self.model.initial_state(batch), first.unsqueeze(1)
        if self.config.signal != "recent":
            return RecodeState(start, last)
        inputs = torch.zeros(batch, self.config.memory, dtype=torch.int64, device=self.device)
        inputs[:, -1:] = last
        return RecodeState(start, last, start, inputs, torch.ones_like(last))

    @torch.no_grad()
    def predict(self, state: RecodeState) -> Prediction:
        """See :meth:`Predictor.predict`."""
        hidden, _ = self._stepped(state)
        return Prediction(self._head.log_prob(hidden, state.here.head)[0], hidden)

    def observe(self, state: RecodeState, ids: Tensor) -> RecodeState:
        """See :meth:`Predictor.observe`."""
        if self.config.signal == "recent":
            return self._observe_recent(state, ids)
        if not self.config.step:
            with torch.no_grad():
                hidden, after = self._stepped(state)
                return RecodeState(
                    after._replace(head=self._head.learn(hidden, ids, state.here.head)), ids.unsqueeze(1)
                )
        self._ahead = None
        with torch.enable_grad(), self._reference():
            out = self.model(state.last, state.here)
            signal = self._signal(out.raw[:, -1], ids, state.here.head)
            moved = self._moved(signal, out.state.cells)
            head = self._head.learn(out.raw[:, -1].detach(), ids, state.here.head)
        return RecodeState(ModelState(moved, tree.detach(head)), ids.unsqueeze(1))

    @contextlib.contextmanager
    def _reference(self) -> Iterator[None]:
        """The plain loop alone leaves the graph from states to outputs whole."""
        cells = self.model.stack.cells()
        before = [cell.compute for cell in cells]
        for cell in cells:
            cell.compute = self._compute
        try:
            yield
        finally:
            for cell, compute in zip(cells, before, strict=True):
                cell.compute = compute

    def _stepped(self, state: RecodeState) -> tuple[Tensor, ModelState]:
        """The output (batch, width) after the last token, and the state, not moved."""
        known = self._ahead
        if known is None or known[0] is not state:
            with self._reference():
                out = self.model(state.last, state.here)
            known = self._ahead = state, out.raw[:, -1], out.state
        return known[1], known[2]

    def _signal(self, hidden: Tensor, ids: Tensor, head: Any) -> Tensor:
        """The signal summed over rows. hidden: (batch, width), with its graph."""
        if self.config.signal == "surprisal":
            return self._head.loss(hidden.unsqueeze(1), ids.unsqueeze(1), None, head)[0]
        thinned = hidden.unsqueeze(1) * self._masks.to(hidden)
        states = tree.repeat_rows(head, self.config.samples)
        log_prob = self._head.log_prob(thinned.flatten(0, 1), states)[0].unflatten(0, (len(hidden), -1))
        mean = torch.logsumexp(log_prob, 1) - math.log(self.config.samples)
        return -(mean.exp() * mean).sum()

    def _moved(self, signal: Tensor, cells: Any) -> Any:
        """Every field of the layers' states after one step against its gradient."""
        fields = [one for one in tree.leaves(cells) if one.requires_grad]
        found = iter(torch.autograd.grad(signal, fields, allow_unused=True))

        def move(field: Tensor) -> Tensor:
            gradient = next(found) if field.requires_grad else None
            return field.detach() if gradient is None else field.detach() - self.config.step * gradient

        return tree.map_tree(move, cells)

    def _observe_recent(self, state: RecodeState, ids: Tensor) -> RecodeState:
        assert state.inputs is not None
        assert state.fill is not None
        full = state.fill[:, 0] >= self.config.memory
        with torch.no_grad():
            hidden, after = self._stepped(state)
            here = after._replace(head=self._head.learn(hidden, ids, state.here.head))
        start = state.start
        if bool(full.any()):
            start, moved = self._reread(state, ids)
            start = tree.reset_rows(state.start, start, full)
            here = tree.reset_rows(here, moved, full) if self.config.step else here
        inputs = torch.cat([state.inputs[:, 1:], ids.unsqueeze(1)], 1)
        return RecodeState(here, ids.unsqueeze(1), start, inputs, (state.fill + 1).clamp_max(self.config.memory))

    def _reread(self, state: RecodeState, ids: Tensor) -> tuple[ModelState, ModelState]:
        """The states after the first of the inputs and after the last, from a start that was moved."""
        self._ahead = None
        inputs, start = state.inputs, state.start
        assert inputs is not None
        assert start is not None
        targets, cells = torch.cat([inputs[:, 1:], ids.unsqueeze(1)], 1), start.cells
        with torch.enable_grad(), self._reference():
            for _ in range(self.config.steps if self.config.step else 0):
                cells = tree.map_tree(lambda field: field.detach().requires_grad_(field.is_floating_point()), cells)
                out = self.model(inputs, ModelState(cells))
                cells = self._moved(self._head.loss(out.raw, targets, None, start.head)[0], cells)
        with torch.no_grad(), self._reference():
            states, head = [], start.head
            for part, wanted in ((inputs[:, :1], targets[:, :1]), (inputs[:, 1:], targets[:, 1:])):
                if part.shape[1]:
                    out = self.model(part, ModelState(cells))
                    cells, head = out.state.cells, self._head.loss(out.raw, wanted, None, head)[2]
                states.append(ModelState(cells, head))
        return states[0], states[1]


def _masks(config: RecodeConfig, width: int) -> Tensor:
    """Dropout masks (samples, width) of the output, the same ones at every token, so that no row depends on others."""
    kept = torch.rand(config.samples, width, generator=torch.Generator().manual_seed(config.seed)) >= config.rate
    return kept / (1 - config.rate)


def _grid(config: RecodeConfig) -> Iterator[tuple[dict[str, float], AdapterConfig]]:
    for step in (0.0, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1):
        yield {"recode.step": step}, config.model_copy(update={"step": step})


class Recode(Adapter):
    """Moves the carried state after each token, by the gradient of a signal."""

    Config = RecodeConfig
    EXAMPLES = (
        RecodeConfig(step=0.3),
        RecodeConfig(signal="entropy", step=0.5, samples=3, rate=0.3),
        RecodeConfig(signal="recent", step=0.4, memory=3, steps=2),
    )
    title = "recoding"
    place = READING
    reads_model = True
    search = Search(_grid, tokens=5_000)

    @classmethod
    def apply(cls, inner: Predictor, config: Any, source: Source | None) -> Predictor:
        """See :meth:`Adapter.apply`."""
        model = cls.plain(inner)
        return RecodePredictor(model.model, model.start_id, config, model.temperature)
