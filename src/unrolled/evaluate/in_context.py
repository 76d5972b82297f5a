"""Counts within a row: the n-gram head of Akyürek et al. 2024, and the predictor that they make."""

from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.predict import Prediction, Predictor

__all__ = ["CountsState", "InContextNgram", "ngram_counts"]


def ngram_counts(ids: Tensor, order: int, vocab_size: int, immediate: bool = True) -> Tensor:
    r"""How often each symbol has followed the last ``order`` symbols, in the row so far (Akyürek et al. 2024,
    arXiv:2401.12973).

    .. math::
        y_t(s) = \#\{ j \le t : x_{j-n..j-1} = x_{t-n+1..t},\ x_j = s \}

    Args:
        ids: (rows, time). order: n, from 0 on.
        immediate: count j = t too, which matters where the last symbol only repeats what was read before it (a a, for
            n = 1). The published code does not.
    Returns:
        (rows, time, vocab_size) counts, none before place n.
    """
    rows, time = ids.shape
    context = torch.arange(time)
    # (rows, t, j): the n symbols up to t are those before j
    alike = torch.ones(rows, time, time, dtype=torch.bool, device=ids.device)
    for back in range(order):
        last, before = ids.roll(back, 1), ids.roll(back + 1, 1)
        alike &= last[:, :, None] == before[:, None, :]
    t, j = context[:, None].to(ids.device), context[None].to(ids.device)
    alike &= (j <= t if immediate else j < t) & (j >= order) & (t >= order - 1)
    return alike.double() @ torch.nn.functional.one_hot(ids, vocab_size).double()


class CountsState(NamedTuple):
    """ids: (rows, read), all that was read, the start symbol first."""

    ids: Tensor


class InContextNgram(Predictor):
    """Predicts by counts within the row alone, with absolute discounting from each order to the one below: a baseline
    for problems whose language is found out in context.

    Args:
        order: the longest context. discount: is taken off each count and given to the order below.
    """

    gives_hidden = False

    def __init__(self, vocab_size: int, start_id: int, order: int = 2, discount: float = 0.5):
        self.vocab_size, self.start_id, self.order, self.discount = vocab_size, start_id, order, discount

    def begin(self, batch: int, first: Tensor | None = None) -> CountsState:
        """See :meth:`Predictor.begin`."""
        return CountsState((torch.full((batch,), self.start_id) if first is None else first).unsqueeze(1))

    def observe(self, state: CountsState, ids: Tensor) -> CountsState:
        """See :meth:`Predictor.observe`."""
        return CountsState(torch.cat([state.ids, ids.unsqueeze(1)], 1))

    def predict(self, state: CountsState) -> Prediction:
        """See :meth:`Predictor.predict`."""
        return Prediction(self._log_prob(state.ids)[:, -1], None)

    def distributions(self, state: CountsState, ids: Tensor, reset: Tensor | None = None) -> tuple[Tensor, CountsState]:
        """See :meth:`Predictor.distributions`; all places at once."""
        if reset is not None:
            return super().distributions(state, ids, reset)
        read = torch.cat([state.ids, ids], 1)
        return self._log_prob(read)[:, state.ids.shape[1] - 1 : -1], CountsState(read)

    def _log_prob(self, ids: Tensor) -> Tensor:
        probs = torch.full((*ids.shape, self.vocab_size), 1 / self.vocab_size, dtype=torch.float64)
        for order in range(self.order + 1):
            counts = ngram_counts(ids, order, self.vocab_size)
            total = counts.sum(2, keepdim=True)
            kept = (counts - self.discount).clamp(min=0)
            rest = (counts > 0).sum(2, keepdim=True) * self.discount
            probs = torch.where(total > 0, (kept + rest * probs) / total.clamp(min=1), probs)
        return probs.log()
