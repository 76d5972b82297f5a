"""Nearest neighbours: what followed similar hidden states in the training text is likely to follow again."""

import itertools
import math
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unrolled.data import TokenSplit
from unrolled.predict import (
    Adapter,
    AdapterConfig,
    NeuralPredictor,
    Prediction,
    Predictor,
    Scores,
    Search,
    Source,
    WrappedPredictor,
)
from unrolled.predict.adapter import MEMORY


class NearbyConfig(AdapterConfig):
    """Options of the nearest neighbours."""

    short: ClassVar[str | None] = "count"

    name: Literal["nearby"] = "nearby"
    count: int = Field(default=16, ge=1, description="neighbours that are looked at (k)")
    weight: float = Field(default=0.25, gt=0, lt=1, description="share of the neighbours in the mixture (lambda)")
    temperature: float = Field(default=1.0, gt=0, description="divides squared distances")
    limit: int | None = Field(default=None, ge=1, description="only the first so many tokens of the training text")


class NearbyPredictor(WrappedPredictor):
    r"""A model mixed with its nearest neighbours in a datastore
    (Khandelwal, Levy, Jurafsky, Zettlemoyer and Lewis 2020, arXiv 1911.00172).

    .. math::
        p_{\text{kNN}}(w) &\propto \sum_{i \in N} 1[v_i = w] \exp(-\lVert h_t - k_i \rVert^2 / T) \\
        p &= (1 - \lambda) \, p_{\text{model}} + \lambda \, p_{\text{kNN}}

    The search is exact. Here k_i is the raw last output, where the paper takes an inner layer of a Transformer.

    Args:
        inner: gives the hidden states. keys: (n, width). values: (n,) the ids that followed them.
    """

    adds = "nearby"

    def __init__(self, inner: Predictor, config: NearbyConfig, keys: Tensor, values: Tensor):
        super().__init__(inner)
        self.config, self._keys, self._values = config, keys, values

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        return {**self.inner.options, "nearby": self.config.model_dump(mode="json", exclude={"name"})}

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
        share, ids = self._near(hidden)
        found = torch.zeros_like(log_prob).scatter_add_(1, ids, share).log()
        return Prediction(self._mixed(log_prob, found), hidden)

    def observe(self, state: Any, ids: Tensor) -> Any:
        """See :meth:`Predictor.observe`."""
        return self.inner.observe(state, ids)

    def consume(self, state: Any, ids: Tensor) -> Any:
        """See :meth:`Predictor.consume`."""
        return self.inner.consume(state, ids)

    @torch.no_grad()
    def window(self, state: Any, ids: Tensor, reset: Tensor | None = None) -> Scores:
        """See :meth:`Predictor.window`."""
        nll, hidden, state = self.inner.window(state, ids, reset)
        assert hidden is not None
        share, near = self._near(hidden.flatten(0, 1))
        found = (share * (near == ids.reshape(-1, 1))).sum(1).log().view_as(nll)
        return Scores(-self._mixed(-nll, found), hidden, state)

    def _near(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Shares and ids (rows, count) of the neighbours of hidden states (rows, width)."""
        # each distance by itself, so that a row's do not depend on how many rows there are
        distances = torch.stack([(self._keys - one).square().sum(1) for one in hidden])
        near = distances.topk(min(self.config.count, len(self._keys)), 1, largest=False)
        return torch.softmax(-near.values / self.config.temperature, 1), self._values[near.indices]

    def _mixed(self, log_prob: Tensor, found: Tensor) -> Tensor:
        weight = self.config.weight
        return torch.logaddexp(log_prob + math.log1p(-weight), found + math.log(weight))


def datastore(model: NeuralPredictor, split: TokenSplit, limit: int | None) -> dict[str, Tensor]:
    """Hidden states of a text, and the tokens that they predicted."""
    text = torch.from_numpy(split.ids(0, min(len(split), limit or len(split)))).to(model.device).unsqueeze(0)
    state, keys = model.begin(1), []
    for part in text.split(512, 1):
        scores = model.window(state, part)
        state = scores.state
        assert scores.hidden is not None
        keys.append(scores.hidden[0])
    return {"keys": torch.cat(keys), "values": text[0].long()}


def _grid(config: NearbyConfig) -> Iterator[tuple[dict[str, float], AdapterConfig]]:
    for weight, temperature in itertools.product((0.1, 0.25), (0.3, 1.0)):
        values = {"weight": weight, "temperature": temperature}
        yield {f"nearby.{name}": value for name, value in values.items()}, config.model_copy(update=values)


class Nearby(Adapter):
    """Nearest neighbours around whatever gives hidden states."""

    Config = NearbyConfig
    EXAMPLES = (NearbyConfig(count=3), NearbyConfig(count=5, weight=0.5, limit=40))
    title = "a search of what is nearby"
    place = MEMORY
    needs_hidden = True
    search = Search(_grid, tokens=20_000)

    @classmethod
    def apply(cls, inner: Predictor, config: Any, source: Source | None) -> Predictor:
        """See :meth:`Adapter.apply`; the datastore is made of the training text by the model as it was trained."""
        assert source is not None
        trained = NeuralPredictor(inner.model, inner.start_id)

        def fits(found: Mapping[str, Tensor]) -> bool:
            return set(found) == {"keys", "values"} and len(found["keys"]) == len(found["values"])

        made = source.stored(
            "nearby", {"limit": config.limit}, lambda split: datastore(trained, split, config.limit), fits
        )
        return NearbyPredictor(inner, config, made["keys"], made["values"])
