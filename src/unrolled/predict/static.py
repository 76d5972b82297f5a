"""A language model as it is: the predictor that the others stand on."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.model import LanguageModel, ModelState
from unrolled.predict.base import Prediction, Predictor, Scores
from unrolled.predict.of_model import ModelPredictor

__all__ = ["NeuralPredictor", "NeuralState"]


class NeuralState(NamedTuple):
    """cells: one State a layer. head: the head's, or None. hidden: (batch, width), the last raw output."""

    cells: tuple[Any, ...]
    head: Any
    hidden: Tensor


class NeuralPredictor(ModelPredictor):
    """A language model as it is, without gradients. Puts the model in evaluation mode.

    The state has already read the last token, so that predicting needs the head alone and rows may be
    reordered between predicting and observing (beam search) at no cost.

    Args:
        model: the model; its parameters are read at each call, never copied.
        start_id: the tokenizer's ``start_id``.
        temperature: divides the logits, see :meth:`Head.tempered`.
    """

    def __init__(self, model: LanguageModel, start_id: int, temperature: float = 1.0):
        self.model = model.eval()
        self.temperature, self._head = temperature, model.head.tempered(temperature)
        self.vocab_size = model.vocab_size
        self.start_id = start_id

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        return {} if self.temperature == 1.0 else {"temperature": self.temperature}

    def twin(self) -> Predictor | None:
        """See :meth:`Predictor.twin`."""
        return self

    @torch.no_grad()
    def begin(self, batch: int, first: Tensor | None = None) -> NeuralState:
        """See :meth:`Predictor.begin`."""
        if first is None:
            first = torch.full((batch,), self.start_id, device=self.device)
        start = self.model.initial_state(batch)
        raw, cells = self._read(first.unsqueeze(1), self._begin_cells(start))
        return NeuralState(cells, start.head, raw[:, -1])

    def _begin_cells(self, start: ModelState) -> tuple[Any, ...]:
        """What a state holds of the cells before the first token."""
        return start.cells

    def _read(self, ids: Tensor, cells: tuple[Any, ...], reset: Tensor | None = None) -> tuple[Tensor, tuple[Any, ...]]:
        """The raw outputs (batch, time, width) after each of ``ids`` (batch, time), and the cells' last states."""
        out = self.model(ids, ModelState(cells), reset)
        return out.raw, out.state.cells

    @torch.no_grad()
    def predict(self, state: NeuralState) -> Prediction:
        """See :meth:`Predictor.predict`."""
        log_prob, _ = self._head.log_prob(state.hidden, state.head)
        return Prediction(log_prob, state.hidden)

    @torch.no_grad()
    def observe(self, state: NeuralState, ids: Tensor) -> NeuralState:
        """See :meth:`Predictor.observe`."""
        return self.consume(state, ids.unsqueeze(1))

    @torch.no_grad()
    def window(self, state: NeuralState, ids: Tensor, reset: Tensor | None = None) -> Scores:
        """See :meth:`Predictor.window`; never holds time x V log-probabilities: the head works in blocks."""
        hidden, head, cells, last = self._hidden(state, ids, reset)
        _, nll, head = self._head.loss(hidden, ids, None, head, reset)
        return Scores(nll, hidden, NeuralState(cells, head, last))

    @torch.no_grad()
    def distributions(self, state: NeuralState, ids: Tensor, reset: Tensor | None = None) -> tuple[Tensor, NeuralState]:
        """See :meth:`Predictor.distributions`; all steps at once, unless the head carries something."""
        if state.head is not None:
            return super().distributions(state, ids, reset)
        hidden, _, cells, last = self._hidden(state, ids, reset)
        log_prob, _ = self._head.log_prob(hidden)
        return log_prob, NeuralState(cells, None, last)

    def _hidden(
        self, state: NeuralState, ids: Tensor, reset: Tensor | None
    ) -> tuple[Tensor, Any, tuple[Any, ...], Tensor]:
        """The outputs (batch, time, width) that predict ``ids``, the head's state before; the cells' states and the
        output (batch, width) after the last of them."""
        inner = None
        if reset is not None:
            if bool(reset[:, 0].any()):
                state = self.restarted(state, reset[:, 0])
            # A token that begins a text is predicted from start_id, which stands in the place of the token
            # before it; that reset belongs to the input one position earlier than to the token.
            inner = torch.zeros_like(reset)
            inner[:, :-1] = reset[:, 1:]
            inner = inner if bool(inner.any()) else None
        inputs = ids if inner is None else ids.masked_fill(inner, self.start_id)
        raw, cells = self._read(inputs, state.cells, inner)
        return torch.cat([state.hidden.unsqueeze(1), raw[:, :-1]], 1), state.head, cells, raw[:, -1]

    @torch.no_grad()
    def consume(self, state: NeuralState, ids: Tensor) -> NeuralState:
        """See :meth:`Predictor.consume`."""
        if not ids.shape[1]:
            return state
        if state.head is not None:  # a head that carries something learns the tokens through its loss
            return self.window(state, ids).state
        raw, cells = self._read(ids, state.cells)
        return NeuralState(cells, None, raw[:, -1])
