"""Recycled steps: every second token is predicted by a small module, and the cells read two at once."""

from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.model import ModelState
from unrolled.model.recycler import Recycler
from unrolled.predict.adapter import READING, Adapter, AdapterConfig, Source
from unrolled.predict.base import Prediction, Predictor, Scores
from unrolled.predict.static import NeuralPredictor, NeuralState
from unrolled.predict.wrapped import WrappedPredictor

__all__ = ["RecycleAdapterConfig", "RecyclePredictor", "RecycleState", "Recycled"]


class RecycleAdapterConfig(AdapterConfig):
    """Options of recycled steps."""

    short: ClassVar[str | None] = "mode"

    name: Literal["recycle"] = "recycle"
    mode: Literal["alternate", "always"] = Field(
        default="alternate",
        description="alternate: every second step is recycled; always: every step is whole, as without it",
    )


class RecycleState(NamedTuple):
    """base: the model's, before the pending token. pending: (batch, 1) a token that the cells have not read, where
    has_pending: (batch, 1), boolean, is true."""

    base: NeuralState
    pending: Tensor
    has_pending: Tensor


class RecyclePredictor(WrappedPredictor):
    r"""A language model that reads its tokens in pairs (RecycleGPT: Jiang et al. 2023, arXiv 2308.03421).

    After a whole step, the next token is predicted from the model's output h, and kept back; the one after it from
    the recycler's guess r(h, e(x)); then both are read in one window of two. So n tokens take half as many calls of the
    cells, which read every token all the same.

    Args:
        inner: the model as it is. recycler: trained with it by the objective ``recycle``.
    """

    adds = "recycled"

    def __init__(self, inner: NeuralPredictor, config: RecycleAdapterConfig, recycler: Recycler | None):
        super().__init__(inner)
        self.reader, self.config, self.recycler = inner, config, recycler
        self._head = inner.model.head.tempered(inner.temperature)
        self._counted = {"full": [0, 0.0], "recycled": [0, 0.0]}

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        return {**self.inner.options, "recycle": {"mode": self.config.mode}}

    @property
    def told(self) -> dict[str, Any]:
        """See :attr:`Predictor.told`: tokens that were scored, and their nats, after whole and after recycled steps."""
        counted = {name: {"tokens": n, "nats": nats} for name, (n, nats) in self._counted.items()}
        return {**self.inner.told, "recycle": counted}

    def shared_form(self, state: RecycleState) -> RecycleState:
        """See :meth:`Predictor.shared_form`."""
        return state._replace(base=self.inner.shared_form(state.base))

    def own_form(self, shared: RecycleState) -> RecycleState:
        """See :meth:`Predictor.own_form`."""
        return shared._replace(base=self.inner.own_form(shared.base))

    def begin(self, batch: int, first: Tensor | None = None) -> RecycleState:
        """See :meth:`Predictor.begin`."""
        none = torch.zeros(batch, 1, dtype=torch.int64, device=self.device)
        return RecycleState(self.inner.begin(batch, first), none, none.bool())

    def restarted(self, state: RecycleState, rows: Tensor) -> RecycleState:
        """See :meth:`Predictor.restarted`."""
        chosen = rows.unsqueeze(1)
        base = self.inner.restarted(state.base, rows)
        return RecycleState(base, state.pending.masked_fill(chosen, 0), state.has_pending & ~chosen)

    @torch.no_grad()
    def predict(self, state: RecycleState) -> Prediction:
        """See :meth:`Predictor.predict`."""
        if not bool(state.has_pending.any()):
            return self.inner.predict(state.base)
        guess = self._guess(state.base.hidden, state.pending[:, 0])
        hidden = torch.where(state.has_pending, guess, state.base.hidden)
        return Prediction(self._head.log_prob(hidden)[0], hidden)

    @torch.no_grad()
    def observe(self, state: RecycleState, ids: Tensor) -> RecycleState:
        """See :meth:`Predictor.observe`."""
        if self.recycler is None:
            return state._replace(base=self.inner.observe(state.base, ids))
        both, base = state.has_pending[:, 0], state.base
        if bool(both.any()):
            rows = both.nonzero()[:, 0]
            read = torch.cat([state.pending, ids.unsqueeze(1)], 1)
            if len(rows) == len(ids):
                base = self.inner.consume(base, read)
            else:
                after = self.inner.consume(tree.select_rows(base, rows), read[rows])
                base = tree.map_tree(lambda old, new: old.index_copy(0, rows, new.to(old.dtype)), base, after)
        kept = ids.unsqueeze(1).masked_fill(state.has_pending, 0)
        return RecycleState(base, kept, ~state.has_pending)

    @torch.no_grad()
    def window(self, state: RecycleState, ids: Tensor, reset: Tensor | None = None) -> Scores:
        """See :meth:`Predictor.window`; the cells read all of it at once where all rows are at the same step."""
        if self.recycler is None:
            scores = self.inner.window(state.base, ids, reset)
            self._count(scores.nll, torch.zeros_like(ids, dtype=torch.bool))
            return scores._replace(state=state._replace(base=scores.state))
        if (reset is not None and bool(reset.any())) or len(state.has_pending.unique()) > 1:
            return self._stepwise(state, ids, reset)
        waiting = int(state.has_pending[0])
        tokens = torch.cat([state.pending, ids], 1) if waiting else ids
        whole = tokens.shape[1] - tokens.shape[1] % 2
        outputs, base = [state.base.hidden.unsqueeze(1)], state.base
        if whole:
            out = self.reader.model(tokens[:, :whole], ModelState(base.cells))
            base = NeuralState(out.state.cells, None, out.raw[:, -1])
            outputs.append(out.raw[:, 1::2])
        full = torch.cat(outputs, 1)
        pairs = torch.stack([full[:, : (tokens.shape[1] + 1) // 2], self._guess(full, tokens[:, ::2], True)], 2)
        hidden = pairs.flatten(1, 2)[:, waiting : tokens.shape[1]]
        _, nll, _ = self._head.loss(hidden, ids)
        recycled = (torch.arange(waiting, tokens.shape[1], device=ids.device) % 2 == 1).expand_as(ids)
        self._count(nll, recycled)
        odd = tokens.shape[1] > whole
        pending = tokens[:, -1:] if odd else torch.zeros_like(state.pending)
        return Scores(nll, hidden, RecycleState(base, pending, torch.full_like(state.has_pending, odd)))

    def consume(self, state: RecycleState, ids: Tensor) -> RecycleState:
        """See :meth:`Predictor.consume`; tokens that are not scored are read at once."""
        if not ids.shape[1]:
            return state
        if self.recycler is None:
            return state._replace(base=self.inner.consume(state.base, ids))
        if len(state.has_pending.unique()) > 1:
            return super().consume(state, ids)
        tokens = torch.cat([state.pending, ids], 1) if bool(state.has_pending[0]) else ids
        whole = tokens.shape[1] - tokens.shape[1] % 2
        odd = tokens.shape[1] > whole
        pending = tokens[:, -1:] if odd else torch.zeros_like(state.pending)
        base = self.inner.consume(state.base, tokens[:, :whole])
        return RecycleState(base, pending, torch.full_like(state.has_pending, odd))

    def _stepwise(self, state: RecycleState, ids: Tensor, reset: Tensor | None) -> Scores:
        nll, hiddens = [], []
        for t in range(ids.shape[1]):
            if reset is not None and bool(reset[:, t].any()):
                state = self.restarted(state, reset[:, t])
            log_prob, hidden = self.predict(state)
            nll.append(-log_prob.gather(1, ids[:, t : t + 1]))
            hiddens.append(hidden)
            self._count(nll[-1], state.has_pending)
            state = self.observe(state, ids[:, t])
        return Scores(torch.cat(nll, 1), torch.stack(hiddens, 1), state)

    def _guess(self, hidden: Tensor, ids: Tensor, several: bool = False) -> Tensor:
        """The recycler's guess after the token of each place; of several places as many as there are tokens."""
        assert self.recycler is not None
        embedded = self.reader.model.embedding(ids if several else ids.unsqueeze(1))
        return self.recycler(hidden[:, : ids.shape[1]], embedded) if several else self.recycler(hidden, embedded[:, 0])

    def _count(self, nll: Tensor, recycled: Tensor) -> None:
        for name, chosen in (("full", ~recycled), ("recycled", recycled)):
            self._counted[name][0] += int(chosen.sum())
            self._counted[name][1] += float(nll.double()[chosen].sum())


class Recycled(Adapter):
    """Predicts every second token without the cells, which read two tokens at once."""

    Config = RecycleAdapterConfig
    EXAMPLES = (RecycleAdapterConfig(), RecycleAdapterConfig(mode="always"))
    title = "recycled steps"
    place = READING
    reads_model = True

    @classmethod
    def apply(cls, inner: Predictor, config: Any, source: Source | None) -> Predictor:
        """See :meth:`Adapter.apply`."""
        reader = cls.plain(inner)
        if config.mode == "always":
            return RecyclePredictor(reader, config, None)
        found = None if source is None else source.side("recycler")
        if found is None:
            raise UsageError(
                'there is no recycler beside this model; train one with train.extra = [{name = "recycle"}], or leave '
                "out recycle."
            )
        model = reader.model
        recycler = Recycler.of(found, model.stack.out_width, model.embedding.out_width)
        return RecyclePredictor(reader, config, recycler.to(model.device, model.dtype).eval())
