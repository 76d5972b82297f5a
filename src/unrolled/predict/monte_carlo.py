"""Monte-Carlo dropout: the mean prediction of many randomly thinned models."""

import math
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel, ModelState
from unrolled.model.dropout import Masks, cut_masks
from unrolled.predict.adapter import READING, Adapter, AdapterConfig, Source
from unrolled.predict.base import Prediction, Predictor, Scores
from unrolled.predict.of_model import ModelPredictor

__all__ = ["MonteCarlo", "MonteCarloConfig", "MonteCarloPredictor", "MonteCarloState"]


class MonteCarloConfig(AdapterConfig):
    """Options of Monte-Carlo dropout."""

    short: ClassVar[str | None] = "samples"

    name: Literal["dropout"] = "dropout"
    samples: int = Field(default=20, ge=1, description="thinned models")
    rates: float = Field(default=1.0, gt=0, description="multiplies every dropout rate of training")
    mean: Literal["arithmetic", "geometric", "power"] = Field(
        default="arithmetic", description="of the samples' probabilities; the last two are normalised again"
    )
    power: float = Field(default=0.5, gt=0, description="exponent of the power mean")
    window: int = Field(default=70, ge=1, description="tokens that share masks which training drew once per window")
    seed: int = Field(default=1, ge=0, description="of the masks")


class MonteCarloState(NamedTuple):
    """samples: the model's state, every tensor (batch, samples, ...). mean: the state of the model without dropout, or
    None where the samples carry their own. last: (batch, 1) the next input. position: (batch, 1) tokens fed before it;
    rows advance together."""

    samples: ModelState
    mean: ModelState | None
    last: Tensor
    position: Tensor


class MonteCarloPredictor(ModelPredictor):
    r"""Averages a model over dropout masks (Gal and Ghahramani 2016; for language models Melis et al. 2018).

    .. math::
        p = \tfrac1K \sum_k p_k \quad \text{(arithmetic)}, \qquad
        p \propto \prod_k p_k^{1/K} \quad \text{(geometric)}, \qquad
        p \propto \Bigl(\tfrac1K \sum_k p_k^a\Bigr)^{1/a} \quad \text{(power)}

    In the arithmetic mean every sample reads the whole text with a state of its own; in the other two every sample
    starts each window of ``config.window`` tokens from the state of the model without dropout, as in the code of
    Melis et al.

    Args:
        model: put in evaluation mode; its dropout rates are used.
        start_id: the tokenizer's ``start_id``.
        temperature: divides the logits, see :meth:`Head.tempered`.
    Raises:
        UsageError: a model without dropout; a rate that would reach 1.
    """

    kind = "Monte-Carlo dropout"
    gives_hidden, lockstep, independent = False, True, False

    def __init__(self, model: LanguageModel, start_id: int, config: MonteCarloConfig, temperature: float = 1.0):
        self.model = model.eval()
        self.vocab_size, self.start_id, self.config = model.vocab_size, start_id, config
        self._temperature, self._head = temperature, model.head.tempered(temperature)
        self._dropout = model.config.dropout.scaled(config.rates)
        if not self._dropout.active:
            raise UsageError("the model was trained without dropout, so there is nothing to average over.")
        # masks of the embedding's rows and of weights are shared by all rows of a batch
        shared = self._dropout.embedding or self._dropout.weight
        self._groups = [(k, 1) for k in range(config.samples)] if shared else [(0, config.samples)]
        self._drawn: dict[int, tuple[tuple[int, int], Masks | None]] = {}

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        used = self.config.model_dump(mode="json", exclude={"name"})
        if self.config.mean != "power":
            del used["power"]
        return {"dropout": used, **({} if self._temperature == 1.0 else {"temperature": self._temperature})}

    def begin(self, batch: int, first: Tensor | None = None) -> MonteCarloState:
        """See :meth:`Predictor.begin`."""
        if first is None:
            first = torch.full((batch,), self.start_id, device=self.device)
        start = self.model.initial_state(batch)
        mean = None if self.config.mean == "arithmetic" else start
        position = torch.zeros(batch, 1, dtype=torch.int64, device=self.device)
        return MonteCarloState(self._spread(start), mean, first.unsqueeze(1), position)

    @torch.no_grad()
    def predict(self, state: MonteCarloState) -> Prediction:
        """See :meth:`Predictor.predict`."""
        low = int(state.position[0]) % self.config.window
        state = self._refreshed(state, low)
        parts = []
        for first, count in self._groups:
            rows = self._rows(state.samples, first, count)
            masks = self._masks(len(state.last) * count, first, state, low, low + 1)
            out = self.model(state.last.repeat_interleave(count, 0), rows, masks=masks)
            drawn = None if masks is None else tree.map_tree(lambda mask: mask[:, 0], masks.head)
            log_prob, _ = self._head.log_prob(out.dropped[:, -1], rows.head, drawn)
            parts.append(log_prob.unflatten(0, (-1, count)))
        return Prediction(self._averaged(torch.cat(parts, 1)), None)

    def observe(self, state: MonteCarloState, ids: Tensor) -> MonteCarloState:
        """See :meth:`Predictor.observe`."""
        return self._read(state, ids.unsqueeze(1), None)[1]

    def restarted(self, state: MonteCarloState, rows: Tensor) -> MonteCarloState:
        """See :meth:`Predictor.restarted`; masks go on as they were."""
        return tree.reset_rows(state, self.begin(len(rows))._replace(position=state.position), rows)

    def consume(self, state: MonteCarloState, ids: Tensor) -> MonteCarloState:
        """See :meth:`Predictor.consume`."""
        return self._pieces(state, ids, None)[1] if ids.shape[1] else state

    def window(self, state: MonteCarloState, ids: Tensor, reset: Tensor | None = None) -> Scores:
        """See :meth:`Predictor.window`; in one pass for the arithmetic mean, which needs the targets alone."""
        if self.config.mean != "arithmetic":
            nll = []
            for t in range(ids.shape[1]):
                if reset is not None and bool(reset[:, t].any()):
                    state = self.restarted(state, reset[:, t])
                nll.append(-self.predict(state).log_prob.gather(1, ids[:, t : t + 1]))
                state = self.observe(state, ids[:, t])
            return Scores(torch.cat(nll, 1), None, state)
        nll, state = self._pieces(state, ids, reset)
        return Scores(math.log(self.config.samples) - torch.logsumexp(-nll, 1), None, state)

    def _pieces(self, state: MonteCarloState, ids: Tensor, reset: Tensor | None) -> tuple[Tensor, MonteCarloState]:
        """Nats (batch, samples, time), piece by piece: masks change in between."""
        parts, low = [], 0
        while low < ids.shape[1]:
            left = self.config.window - int(state.position[0]) % self.config.window
            high = min(low + left, ids.shape[1])
            nll, state = self._read(state, ids[:, low:high], None if reset is None else reset[:, low:high])
            parts.append(nll)
            low = high
        return torch.cat(parts, 2), state

    @torch.no_grad()
    def _read(self, state: MonteCarloState, targets: Tensor, flags: Tensor | None) -> tuple[Tensor, MonteCarloState]:
        """Nats (batch, samples, time) of some tokens within one window of masks, and the state after them."""
        time, low = targets.shape[1], int(state.position[0]) % self.config.window
        state = self._refreshed(state, low)
        inputs = torch.cat([state.last, targets[:, :-1]], 1)
        if flags is not None:
            inputs = inputs.masked_fill(flags, self.start_id)
        parts, moved = [], []
        for first, count in self._groups:
            rows = self._rows(state.samples, first, count)
            masks = self._masks(len(targets) * count, first, state, low, low + time)
            fed, wanted = inputs.repeat_interleave(count, 0), targets.repeat_interleave(count, 0)
            reset = None if flags is None else flags.repeat_interleave(count, 0)
            out = self.model(fed, rows, reset, masks)
            drawn = None if masks is None else masks.head
            _, nll, head = self._head.loss(out.dropped, wanted, None, rows.head, reset, drawn)
            parts.append(nll.unflatten(0, (-1, count)))
            moved.append(tree.map_tree(lambda t, n=count: t.unflatten(0, (-1, n)), ModelState(out.state.cells, head)))
        samples = moved[0] if len(moved) == 1 else tree.map_tree(lambda *each: torch.cat(each, 1), *moved)
        mean = state.mean
        if mean is not None:
            out = self.model(inputs, mean, flags)
            _, _, head = self._head.loss(out.raw, targets, None, mean.head, flags)
            mean = ModelState(out.state.cells, head)
        return torch.cat(parts, 1), MonteCarloState(samples, mean, targets[:, -1:], state.position + time)

    def _refreshed(self, state: MonteCarloState, low: int) -> MonteCarloState:
        """At the start of a window of masks the samples begin anew from the state without dropout, if it is kept."""
        if low or state.mean is None:
            return state
        return state._replace(samples=self._spread(state.mean))

    def _spread(self, state: ModelState) -> ModelState:
        return tree.map_tree(lambda t: t.unsqueeze(1).expand(-1, self.config.samples, *t.shape[1:]), state)

    def _rows(self, samples: ModelState, first: int, count: int) -> ModelState:
        """The samples ``first`` to ``first + count - 1`` as rows of a batch, those of one text side by side."""
        return tree.map_tree(lambda t: t[:, first : first + count].flatten(0, 1), samples)

    def _masks(self, rows: int, group: int, state: MonteCarloState, low: int, high: int) -> Masks | None:
        number = int(state.position[0]) // self.config.window
        if self._drawn.get(group, (None, None))[0] != (rows, number):
            streams = RandomStreams(self.config.seed, shard=group)
            drawn = self.model.draw_masks(rows, self.config.window, streams, number, self._dropout)
            self._drawn[group] = ((rows, number), drawn)
        return cut_masks(self._drawn[group][1], low, high)

    def _averaged(self, log_prob: Tensor) -> Tensor:
        """log p (batch, V) of the samples' (batch, samples, V)."""
        if self.config.mean == "geometric":
            return torch.log_softmax(log_prob.mean(1), 1)
        power = self.config.power if self.config.mean == "power" else 1.0
        mixed = (torch.logsumexp(power * log_prob, 1) - math.log(self.config.samples)) / power
        return mixed if power == 1.0 else torch.log_softmax(mixed, 1)


class MonteCarlo(Adapter):
    """Monte-Carlo dropout in place of the model without dropout."""

    Config = MonteCarloConfig
    EXAMPLES = (
        MonteCarloConfig(samples=3, window=4),
        MonteCarloConfig(samples=2, window=3, mean="geometric", rates=0.5),
        MonteCarloConfig(samples=2, window=5, mean="power"),
    )
    title = "Monte-Carlo dropout"
    place = READING
    reads_model, gives_hidden = True, False

    @classmethod
    def apply(cls, inner: Predictor, config: Any, source: Source | None) -> Predictor:
        """See :meth:`Adapter.apply`."""
        model = cls.plain(inner)
        return MonteCarloPredictor(model.model, model.start_id, config, model.temperature)
