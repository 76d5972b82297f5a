"""Count models as predictors."""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.counts import NgramModel, SkipModel
from unrolled.counts.contexts import Recent, begin, slide
from unrolled.predict.base import Prediction, Predictor, Scores

__all__ = ["CountState", "KneserNeyPredictor"]


class CountState(NamedTuple):
    """ids: (batch, order - 1) int64, the last tokens, the newest last. known: (batch,), how many of them count."""

    ids: Tensor
    known: Tensor


class KneserNeyPredictor(Predictor):
    """An n-gram model, estimated here (skip n-grams too) or read from a file; on the CPU, in float64.

    Args:
        model: the model; its ``start_id`` is the one fed before a text.
    """

    gives_hidden = False

    def __init__(self, model: NgramModel | SkipModel):
        self.model = model
        self.vocab_size = model.vocab_size
        self.start_id = model.config.start_id

    def twin(self) -> Predictor | None:
        """See :meth:`Predictor.twin`."""
        return self

    def begin(self, batch: int, first: Tensor | None = None) -> CountState:
        """See :meth:`Predictor.begin`."""
        read = np.full(batch, self.start_id) if first is None else first.numpy()
        return _state(begin(read, self.model.width))

    def predict(self, state: CountState) -> Prediction:
        """See :meth:`Predictor.predict`."""
        log_prob = self.model.distribution(state.ids.numpy(), state.known.numpy())
        return Prediction(torch.from_numpy(log_prob), None)

    def observe(self, state: CountState, ids: Tensor) -> CountState:
        """See :meth:`Predictor.observe`."""
        return self.consume(state, ids[:, None])

    def window(self, state: CountState, ids: Tensor, reset: Tensor | None = None) -> Scores:
        """See :meth:`Predictor.window`; all tokens at once."""
        flags = None if reset is None else reset.numpy()
        contexts = slide(_recent(state), ids.numpy(), flags, self.start_id)
        flat = contexts.ids.reshape(ids.numel(), self.model.width)
        log_prob = self.model.log_prob(flat, ids.reshape(-1).numpy(), contexts.known.reshape(-1))
        return Scores(-torch.from_numpy(log_prob).view(ids.shape), None, _state(contexts.after))

    def consume(self, state: CountState, ids: Tensor) -> CountState:
        """See :meth:`Predictor.consume`."""
        return _state(slide(_recent(state), ids.numpy(), None, self.start_id).after)


def _recent(state: CountState) -> Recent:
    return Recent(state.ids.numpy(), state.known.numpy())


def _state(recent: Recent) -> CountState:
    return CountState(torch.from_numpy(recent.ids), torch.from_numpy(recent.known))
