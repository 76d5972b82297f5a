"""The predictor contract: whatever gives a distribution over the next token, given those before it.

Evaluation, scoring and generation know nothing else, so that a neural model, a count model, a mixture or a
model that adapts while it reads are all measured by the same code.
"""

from abc import ABC, abstractmethod
from typing import Any, NamedTuple, Self

import torch
from torch import Tensor

from unrolled.core.errors import UnrolledError
from unrolled.core.tree import reset_rows
from unrolled.model import LanguageModel, ModelState

__all__ = ["NeuralPredictor", "NeuralState", "Prediction", "Predictor", "Scores"]


class Prediction(NamedTuple):
    """log_prob: (batch, V) nats. hidden: (batch, width), the raw last output, or None where there is none."""

    log_prob: Tensor
    hidden: Tensor | None


class Scores(NamedTuple):
    """What a window gives.

    nll: (batch, time), the nats of each token. hidden: (batch, time, width), the raw output that predicted
    each token, or None. state: after the window's last token.
    """

    nll: Tensor
    hidden: Tensor | None
    state: Any


class Predictor(ABC):
    """Predicts the next token of each of several rows.

    A state is a value: a tree of batch-first tensors (``core.tree``), whose rows may be selected, repeated,
    concatenated and kept. No method changes the state that it is given.

    Attributes:
        vocab_size: number of ids V. start_id: the id fed before the first token of a text.
        device: where states and log-probabilities live.
        kind: what the protocol is called in records ("static", "cache", "dynamic", ...).
        precision: of the arithmetic, for records.
    """

    vocab_size: int
    start_id: int
    device: torch.device = torch.device("cpu")
    kind: str = "static"
    precision: str = "float64"

    @property
    def options(self) -> dict[str, Any]:
        """The settings of the protocol that change the figure, as plain JSON values."""
        return {}

    @abstractmethod
    def begin(self, batch: int, first: Tensor | None = None) -> Any:
        """The state of ``batch`` rows that have read one token each.

        Args:
            first: (batch,) ids to read; default: ``start_id``.
        """

    @abstractmethod
    def predict(self, state: Any) -> Prediction:
        """The distribution over the next token of every row."""

    @abstractmethod
    def observe(self, state: Any, ids: Tensor) -> Any:
        """The state after the next token. ids: (batch,)."""

    def window(self, state: Any, ids: Tensor, reset: Tensor | None = None) -> Scores:
        """Predict and observe several tokens.

        Args:
            ids: (batch, time), time >= 1.
            reset: boolean (batch, time); where true a text begins with this token: the row is put back to
                :meth:`begin` before the token is predicted.
        """
        nll, hiddens = [], []
        for t in range(ids.shape[1]):
            if reset is not None and bool(reset[:, t].any()):
                state = self.restarted(state, reset[:, t])
            log_prob, hidden = self.predict(state)
            nll.append(-log_prob.gather(1, ids[:, t : t + 1]))
            hiddens.append(hidden)
            state = self.observe(state, ids[:, t])
        stacked = None if hiddens[0] is None else torch.stack(hiddens, 1)
        return Scores(torch.cat(nll, 1), stacked, state)

    def distributions(self, state: Any, ids: Tensor, reset: Tensor | None = None) -> tuple[Tensor, Any]:
        """The whole distribution that each of several tokens is predicted from.

        Args:
            ids, reset: as in :meth:`window`.
        Returns:
            (batch, time, V) nats, and the state after the last token. Memory grows with time x V.
        """
        parts = []
        for t in range(ids.shape[1]):
            flags = None if reset is None or not bool(reset[:, t].any()) else reset[:, t : t + 1]
            here = state if flags is None else self.restarted(state, flags[:, 0])
            parts.append(self.predict(here).log_prob)
            state = self.window(state, ids[:, t : t + 1], flags).state
        return torch.stack(parts, 1), state

    def restarted(self, state: Any, rows: Tensor) -> Any:
        """The state with some rows put back to :meth:`begin`. rows: boolean (batch,)."""
        return reset_rows(state, self.begin(len(rows)), rows)

    def consume(self, state: Any, ids: Tensor) -> Any:
        """The state after ``ids`` (batch, time), time >= 0, which are not scored."""
        for t in range(ids.shape[1]):
            state = self.observe(state, ids[:, t])
        return state

    def restore(self) -> None:  # noqa: B027  (most predictors change nothing)
        """Undo what reading has changed in the model; nothing, but for predictors that learn."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()


class NeuralState(NamedTuple):
    """cells: one State a layer. head: the head's, or None. hidden: (batch, width), the last raw output."""

    cells: tuple[Any, ...]
    head: Any
    hidden: Tensor


class NeuralPredictor(Predictor):
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
    def device(self) -> torch.device:  # type: ignore[override]
        """Where the model is now."""
        return self.model.device

    @property
    def precision(self) -> str:  # type: ignore[override]
        """Of the arithmetic."""
        return self.model.precision

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        return {} if self.temperature == 1.0 else {"temperature": self.temperature}

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


def check_vocabulary(predictor: Predictor, size: int) -> None:
    """Raises UnrolledError unless the predictor has ``size`` ids."""
    if predictor.vocab_size != size:
        raise UnrolledError(
            f"the model predicts {predictor.vocab_size} tokens and the text was encoded with {size}; "
            "use the tokenizer that the model was trained with."
        )
