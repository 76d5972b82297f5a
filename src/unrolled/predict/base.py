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

__all__ = ["Prediction", "Predictor", "Scores", "check_vocabulary"]


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
        model: what it computes with.
        gives_hidden: whether predictions have hidden states.
        lockstep: whether all rows must have read equally many tokens, since something changes with their number.
        independent: whether a row gives in a batch what it gives alone; not where rows share what is drawn or learnt.
        holds: checksums of texts that it looks things up in or has learned from, which it is not measured on.
    """

    vocab_size: int
    start_id: int
    device: torch.device = torch.device("cpu")
    kind: str = "static"
    precision: str = "float64"
    model: Any = None
    gives_hidden: bool = True
    lockstep: bool = False
    independent: bool = True
    holds: frozenset[str] = frozenset()

    @property
    def told(self) -> dict[str, Any]:
        """What was counted while reading, for records, by the name of what counted; plain JSON values."""
        return {}

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

    def shared_form(self, state: Any) -> Any:
        """The state in the form that it has for every predictor of this model and these settings, however their weights
        are kept: what is saved, and what another process goes on from. This one's own by default."""
        return state

    def own_form(self, shared: Any) -> Any:
        """The inverse of :meth:`shared_form`."""
        return shared

    def twin(self) -> "Predictor | None":
        """The same predictor for one of several threads that serve many texts: the weights are shared, the memory that
        it works in is not, and where that can be had a row's numbers do not depend on how its text is cut.

        Returns:
            itself where no call keeps anything; None where it serves one thread at a time only.
        """
        return None

    def restore(self) -> None:  # noqa: B027  (most predictors change nothing)
        """Undo what reading has changed in the model; nothing, but for predictors that learn."""

    def forget(self) -> None:  # noqa: B027  (most predictors remember nothing)
        """Drop what is remembered only so that the same text is read faster a second time, as before a measurement of
        time; distributions stay the same."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.restore()


def check_vocabulary(predictor: Predictor, size: int) -> None:
    """Raises UnrolledError unless the predictor has ``size`` ids."""
    if predictor.vocab_size != size:
        raise UnrolledError(
            f"the model predicts {predictor.vocab_size} tokens and the text was encoded with {size}; "
            "use the tokenizer that the model was trained with."
        )
