"""A model's prediction mixed with what came after the nearest of its own states."""

import math
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from unrolled.predict.adapter import AdapterConfig
from unrolled.predict.base import Prediction, Predictor, Scores
from unrolled.predict.datastore import Datastore
from unrolled.predict.wrapped import WrappedPredictor

__all__ = ["NeighboursConfig", "NeighboursPredictor"]


class NeighboursConfig(AdapterConfig):
    """Options of the nearest neighbours."""

    short: ClassVar[str | None] = "store"

    name: Literal["neighbours"] = "neighbours"
    store: str | None = Field(
        default=None,
        description="folder that `unrolled store` made; absent: the run's training text, kept in the run's folder",
    )
    k: int = Field(default=1024, ge=1, description="neighbours that a search finds")
    weight: float = Field(
        default=0.25, ge=0, lt=1, description="share of the neighbours in the mixture (lambda); 0: the model alone"
    )
    tau: float = Field(default=1.0, gt=0, description="divides squared distances (temperature)")
    limit: int | None = Field(
        default=None, ge=1, description="without a store: only the first so many tokens of the training text"
    )
    search: Literal["auto", "exact", "faiss"] = Field(
        default="auto",
        description="exact compares with every entry; faiss looks at some of them (extra knn); auto is exact up to a "
        "million entries",
    )
    probes: int = Field(default=32, ge=1, description="faiss: cells of entries that are looked at")
    pointers: bool = Field(
        default=False,
        description="RetoMaton: what followed the neighbours that were right stands in for a search",
    )
    least: int = Field(default=1, ge=1, description="pointers that make a search needless")
    most: int = Field(default=1024, ge=1, description="pointers that are kept, the nearest first")
    doubles: bool = Field(
        default=True,
        description="a pointer that the search finds too counts twice, in the mass and toward `least` (the published "
        "code); if not, once",
    )
    clusters: bool = Field(
        default=False, description="fill pointers up to `most` with the other members of their clusters"
    )

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if self.least > self.most:
            raise ValueError("neighbours.least is more pointers than neighbours.most keeps; raise most or lower least")
        if self.clusters and not self.pointers:
            raise ValueError("neighbours.clusters fill up pointers; set neighbours.pointers=true too")
        if self.store is not None and self.limit is not None:
            raise ValueError("neighbours.limit is of the training text, and a store is given; leave out one of them")
        return self


class NeighboursPredictor(WrappedPredictor):
    r"""A model mixed with its nearest neighbours in a datastore
    (Khandelwal, Levy, Jurafsky, Zettlemoyer and Lewis 2020, arXiv 1911.00172).

    .. math::
        p_{\text{kNN}}(w) &\propto \sum_{i \in N} 1[v_i = w] \exp(-\lVert h_t - k_i \rVert^2 / \tau) \\
        p &= (1 - \lambda) \, p_{\text{model}} + \lambda \, p_{\text{kNN}}

    Here k_i is the raw last output, where the paper takes an inner layer of a Transformer.

    Args:
        inner: gives the hidden states. store: made by the same model.
    """

    adds = "neighbours"

    def __init__(self, inner: Predictor, config: NeighboursConfig, store: Datastore):
        super().__init__(inner)
        self.config, self.store = config, store

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        return {**self.inner.options, "neighbours": self.config.model_dump(mode="json", exclude={"name"})}

    @property
    def holds(self) -> frozenset[str]:  # type: ignore[override]
        """See :attr:`Predictor.holds`."""
        return self.inner.holds | ({self.store.holds} if self.store.holds else frozenset())

    def twin(self) -> Predictor | None:
        """See :meth:`Predictor.twin`."""
        inner = self.inner.twin()
        return None if inner is None else type(self)(inner, self.config, self.store)

    def forget(self) -> None:
        """See :meth:`Predictor.forget`; searches."""
        self.inner.forget()
        self.store.forget()

    def begin(self, batch: int, first: Tensor | None = None) -> Any:
        """See :meth:`Predictor.begin`."""
        return self.inner.begin(batch, first)

    def restarted(self, state: Any, rows: Tensor) -> Any:
        """See :meth:`Predictor.restarted`."""
        return self.inner.restarted(state, rows)

    @torch.no_grad()
    def predict(self, state: Any) -> Prediction:
        """See :meth:`Predictor.predict`."""
        log_prob, hidden = self.inner.predict(state)
        assert hidden is not None
        return Prediction(self.mixed(log_prob, *self.store.nearest(hidden, self.config.k)), hidden)

    def observe(self, state: Any, ids: Tensor) -> Any:
        """See :meth:`Predictor.observe`."""
        return self.inner.observe(state, ids)

    def consume(self, state: Any, ids: Tensor) -> Any:
        """See :meth:`Predictor.consume`."""
        return self.inner.consume(state, ids)

    @torch.no_grad()
    def window(self, state: Any, ids: Tensor, reset: Tensor | None = None) -> Scores:
        """See :meth:`Predictor.window`; all searches at once."""
        scores = self.inner.window(state, ids, reset)
        assert scores.hidden is not None
        distances, entries = self.store.nearest(scores.hidden.flatten(0, 1), self.config.k)
        nll = self.mixed_nll(scores.nll.reshape(-1), ids.reshape(-1), distances, entries)
        return scores._replace(nll=nll.view_as(scores.nll))

    def share(self, distances: Tensor) -> Tensor:
        """What each neighbour has of the mass (rows, m), from squared distances (rows, m); infinite ones have none."""
        return torch.softmax(-distances / self.config.tau, 1)

    def mixed(self, log_prob: Tensor, distances: Tensor, entries: Tensor) -> Tensor:
        """The mixture's log-probabilities (rows, V), from the model's and the neighbours (rows, m)."""
        weight = self.config.weight
        if not weight:
            return log_prob
        share, ids = self.share(distances).to(log_prob), self.store.ids.to(entries.device)[entries]
        found = torch.zeros_like(log_prob).scatter_add_(1, ids, share).log()
        return torch.logaddexp(log_prob + math.log1p(-weight), found + math.log(weight))

    def mixed_nll(self, nll: Tensor, ids: Tensor, distances: Tensor, entries: Tensor) -> Tensor:
        """The mixture's nats (rows,) of tokens ``ids`` (rows,), from the model's and the neighbours (rows, m)."""
        weight = self.config.weight
        if not weight:
            return nll
        right = self.store.ids.to(entries.device)[entries] == ids.unsqueeze(1)
        found = (self.share(distances) * right).sum(1).to(nll).log()
        return -torch.logaddexp(math.log1p(-weight) - nll, found + math.log(weight))
