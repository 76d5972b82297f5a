"""Several predictors of one vocabulary as one: the mean of their distributions."""

import hashlib
import json
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.predict.base import Prediction, Predictor, Scores

__all__ = ["Mixture", "MixtureState"]


class MixtureState(NamedTuple):
    """parts: the state of each predictor."""

    parts: tuple[Any, ...]


class Mixture(Predictor):
    r"""An ensemble that predicts with :math:`p = \sum_i w_i p_i`; ``unrolled ensemble`` fits such weights.

    Args:
        parts: the predictors, of one vocabulary and start symbol.
        weights: positive, one for each; they are divided by their sum.
    Raises:
        UsageError: no predictors, other vocabularies, weights that are none.
    """

    kind = "mixture"
    gives_hidden = False

    def __init__(self, parts: Sequence[Predictor], weights: Sequence[float] | None = None):
        weights = [1.0] * len(parts) if weights is None else list(weights)
        if not parts or len(weights) != len(parts) or not all(0 < one < math.inf for one in weights):
            raise UsageError("a mixture needs at least one model, and a positive weight for each.")
        first = parts[0]
        if any((one.vocab_size, one.start_id) != (first.vocab_size, first.start_id) for one in parts):
            raise UsageError("the models of a mixture need one vocabulary.")
        self.parts = tuple(parts)
        self.weights = [one / sum(weights) for one in weights]
        self.vocab_size, self.start_id, self.device = first.vocab_size, first.start_id, first.device
        self.lockstep = any(one.lockstep for one in parts)
        self.independent = all(one.independent for one in parts)
        self.holds = frozenset().union(*(one.holds for one in parts))
        kinds = sorted({one.precision for one in parts})
        self.precision = kinds[0] if len(kinds) == 1 else "mixed"

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        return {"mixture": {"weights": self.weights, "parts": [one.options for one in self.parts]}}

    def identity(self, name: str, models: Sequence[str]) -> str:
        """An id made from those of the models, in the order of the parts, and the weights."""
        told = json.dumps([[one.rpartition("@")[2] for one in models], self.weights])
        return f"{name}@{hashlib.sha256(told.encode()).hexdigest()[:12]}"

    def begin(self, batch: int, first: Tensor | None = None) -> MixtureState:
        """See :meth:`Predictor.begin`."""
        return MixtureState(tuple(one.begin(batch, first) for one in self.parts))

    def predict(self, state: MixtureState) -> Prediction:
        """See :meth:`Predictor.predict`."""
        found = [one.predict(part).log_prob for one, part in zip(self.parts, state.parts, strict=True)]
        return Prediction(self._mixed(found), None)

    def observe(self, state: MixtureState, ids: Tensor) -> MixtureState:
        """See :meth:`Predictor.observe`."""
        return MixtureState(tuple(one.observe(part, ids) for one, part in zip(self.parts, state.parts, strict=True)))

    def window(self, state: MixtureState, ids: Tensor, reset: Tensor | None = None) -> Scores:
        """See :meth:`Predictor.window`."""
        found = [one.window(part, ids, reset) for one, part in zip(self.parts, state.parts, strict=True)]
        return Scores(-self._mixed([-one.nll for one in found]), None, MixtureState(tuple(one.state for one in found)))

    def distributions(
        self, state: MixtureState, ids: Tensor, reset: Tensor | None = None
    ) -> tuple[Tensor, MixtureState]:
        """See :meth:`Predictor.distributions`."""
        found = [one.distributions(part, ids, reset) for one, part in zip(self.parts, state.parts, strict=True)]
        return self._mixed([one for one, _ in found]), MixtureState(tuple(after for _, after in found))

    def restarted(self, state: MixtureState, rows: Tensor) -> MixtureState:
        """See :meth:`Predictor.restarted`."""
        return MixtureState(tuple(one.restarted(part, rows) for one, part in zip(self.parts, state.parts, strict=True)))

    def consume(self, state: MixtureState, ids: Tensor) -> MixtureState:
        """See :meth:`Predictor.consume`."""
        return MixtureState(tuple(one.consume(part, ids) for one, part in zip(self.parts, state.parts, strict=True)))

    def shared_form(self, state: MixtureState) -> MixtureState:
        """See :meth:`Predictor.shared_form`."""
        return MixtureState(tuple(one.shared_form(part) for one, part in zip(self.parts, state.parts, strict=True)))

    def own_form(self, shared: MixtureState) -> MixtureState:
        """See :meth:`Predictor.own_form`."""
        return MixtureState(tuple(one.own_form(part) for one, part in zip(self.parts, shared.parts, strict=True)))

    def twin(self) -> Predictor | None:
        """See :meth:`Predictor.twin`."""
        twins = [one.twin() for one in self.parts]
        found = [one for one in twins if one is not None]
        return Mixture(found, self.weights) if len(found) == len(twins) else None

    def restore(self) -> None:
        """See :meth:`Predictor.restore`."""
        for one in self.parts:
            one.restore()

    def _mixed(self, log_probs: Sequence[Tensor]) -> Tensor:
        """Of the most precise of the types."""
        dtype = log_probs[0].dtype
        for one in log_probs[1:]:
            dtype = torch.promote_types(dtype, one.dtype)
        weighted = [one.to(dtype) + math.log(w) for one, w in zip(log_probs, self.weights, strict=True)]
        return torch.logsumexp(torch.stack(weighted), 0)
