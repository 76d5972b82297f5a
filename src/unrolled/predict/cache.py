"""Continuous cache: what followed similar hidden states before is likely to follow again."""

import itertools
import math
from collections.abc import Iterator
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.predict.adapter import MEMORY, Adapter, AdapterConfig, Search, Source
from unrolled.predict.base import Prediction, Predictor, Scores
from unrolled.predict.wrapped import WrappedPredictor

__all__ = ["Cache", "CacheConfig", "CachePredictor", "CacheState"]

# scores held at once: rows x steps x positions looked at
_SCORES = 2**23


class CacheConfig(AdapterConfig):
    """Options of the continuous cache."""

    short: ClassVar[str | None] = "length"

    name: Literal["cache"] = "cache"
    length: int = Field(default=500, ge=1, description="last tokens kept")
    theta: float = Field(default=1.0, ge=0, description="multiplies the inner products (flatness of the cache)")
    weight: float = Field(default=0.1, gt=0, lt=1, description="share of the cache in the mixture (lambda)")
    partial: bool = Field(
        default=True,
        description="use a cache that is not yet full; if not, the model alone predicts the first length + 1 tokens "
        "(AWD-LSTM's code)",
    )


class CacheState(NamedTuple):
    """base: the inner predictor's. keys: (batch, length, width) hidden states, newest last. ids: (batch, length) the
    tokens that followed them. fill: (batch, 1) how many tokens have been
    read since the last reset, length + 1 for more."""

    base: Any
    keys: Tensor
    ids: Tensor
    fill: Tensor


class CachePredictor(WrappedPredictor):
    r"""Any predictor with hidden states, mixed with a cache of the last ``length`` of them
    (Grave, Joulin and Usunier 2017, arXiv 1612.04426, linear interpolation).

    .. math::
        p_{\text{cache}}(w) &\propto \sum_i 1[x_{i+1} = w] \exp(\theta \, h_t \cdot h_i) \\
        p &= (1 - \lambda) \, p_{\text{model}} + \lambda \, p_{\text{cache}}

    A pair (h_i, x_{i+1}) enters the cache when its token has been read. While the cache is partly filled its shares are
    those of what it holds; while it is empty the model alone predicts. A reset empties it.

    Args:
        inner: gives the hidden states: a model, static or dynamic.
    Raises:
        UsageError: at the first token, when ``inner`` has no hidden states.
    """

    adds = "cache"

    def __init__(self, inner: Predictor, config: CacheConfig):
        super().__init__(inner)
        self.config = config

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        return {**self.inner.options, "cache": self.config.model_dump(mode="json", exclude={"name"})}

    def shared_form(self, state: CacheState) -> CacheState:
        """See :meth:`Predictor.shared_form`."""
        return state._replace(base=self.inner.shared_form(state.base))

    def own_form(self, shared: CacheState) -> CacheState:
        """See :meth:`Predictor.own_form`."""
        return shared._replace(base=self.inner.own_form(shared.base))

    def twin(self) -> Predictor | None:
        """See :meth:`Predictor.twin`."""
        inner = self.inner.twin()
        return None if inner is None else CachePredictor(inner, self.config)

    def begin(self, batch: int, first: Tensor | None = None) -> CacheState:
        """See :meth:`Predictor.begin`."""
        base = self.inner.begin(batch, first)
        hidden = self.inner.predict(base).hidden
        if hidden is None:
            raise UsageError(f"a cache needs hidden states, which the predictor {self.inner.kind!r} does not give.")
        length, width = self.config.length, hidden.shape[1]
        return CacheState(
            base,
            hidden.new_zeros(batch, length, width),
            torch.zeros(batch, length, dtype=torch.int64, device=hidden.device),
            torch.zeros(batch, 1, dtype=torch.int64, device=hidden.device),
        )

    @torch.no_grad()
    def predict(self, state: CacheState) -> Prediction:
        """See :meth:`Predictor.predict`."""
        log_prob, hidden = self.inner.predict(state.base)
        assert hidden is not None
        length = self.config.length
        usable = state.fill > (0 if self.config.partial else length)
        valid = torch.arange(length, device=hidden.device) >= length - state.fill
        scores = self.config.theta * (state.keys @ hidden.unsqueeze(2)).squeeze(2)
        share = torch.softmax(scores.masked_fill(~valid, -torch.inf), 1).nan_to_num_(0.0)
        cached = torch.zeros_like(log_prob).scatter_add_(1, state.ids, share.to(log_prob.dtype)).log()
        mixed = torch.logaddexp(log_prob + math.log1p(-self.config.weight), cached + math.log(self.config.weight))
        return Prediction(torch.where(usable, mixed, log_prob), hidden)

    def observe(self, state: CacheState, ids: Tensor) -> CacheState:
        """See :meth:`Predictor.observe`."""
        return self.window(state, ids.unsqueeze(1)).state

    def window(self, state: CacheState, ids: Tensor, reset: Tensor | None = None) -> Scores:
        """See :meth:`Predictor.window`; computes the scores of the window against what lies before each step only."""
        if reset is None:
            return self._window(state, ids)
        borders = [0, *(i for i in range(1, ids.shape[1]) if bool(reset[:, i].any())), ids.shape[1]]
        parts = []
        for low, high in itertools.pairwise(borders):
            here = reset[:, low]
            if bool(here.any()):
                state = self.restarted(state, here)
            parts.append(self._window(state, ids[:, low:high]))
            state = parts[-1].state
        return Scores(torch.cat([p.nll for p in parts], 1), torch.cat([p.hidden for p in parts], 1), state)

    def restarted(self, state: CacheState, rows: Tensor) -> CacheState:
        """See :meth:`Predictor.restarted`; empties the rows' caches."""
        chosen = rows.unsqueeze(1)
        return CacheState(
            self.inner.restarted(state.base, rows),
            state.keys.masked_fill(chosen.unsqueeze(2), 0.0),
            state.ids.masked_fill(chosen, 0),
            state.fill.masked_fill(chosen, 0),
        )

    def consume(self, state: CacheState, ids: Tensor) -> CacheState:
        """See :meth:`Predictor.consume`."""
        return self.window(state, ids).state if ids.shape[1] else state

    def _window(self, state: CacheState, ids: Tensor) -> Scores:
        scores = self.inner.window(state.base, ids)
        nll, hidden = scores.nll, scores.hidden
        assert hidden is not None
        with torch.no_grad():
            keys, seen = torch.cat([state.keys, hidden], 1), torch.cat([state.ids, ids], 1)
            length, (batch, time) = self.config.length, ids.shape
            steps = max(1, min(time, _SCORES // max(1, batch * (length + 1))))
            parts = [
                self._mixed(
                    nll[:, low : low + steps],
                    hidden[:, low : low + steps],
                    ids[:, low : low + steps],
                    keys[:, low : low + steps + length],
                    seen[:, low : low + steps + length],
                    state.fill + low,
                )
                for low in range(0, time, steps)
            ]
            fill = (state.fill + time).clamp_max(length + 1)
            new = CacheState(scores.state, keys[:, -length:].clone(), seen[:, -length:].clone(), fill)
            return Scores(torch.cat(parts, 1), hidden, new)

    def _mixed(self, nll: Tensor, hidden: Tensor, ids: Tensor, keys: Tensor, seen: Tensor, fill: Tensor) -> Tensor:
        """Nats of the mixture.

        Args:
            nll, ids: (batch, time). hidden: (batch, time, width).
            keys, seen: (batch, length + time) positions, of which step t sees those from t to t + length - 1.
            fill: (batch, 1) positions that were filled before the first step, perhaps more than ``length``.
        """
        length, time = self.config.length, ids.shape[1]
        offset = torch.arange(length + time, device=ids.device)[: keys.shape[1]] - torch.arange(
            time, device=ids.device
        ).unsqueeze(1)
        filled = torch.arange(keys.shape[1], device=ids.device) >= length - fill
        valid = ((offset >= 0) & (offset < length)).unsqueeze(0) & filled.unsqueeze(1)
        scores = self.config.theta * (hidden @ keys.transpose(1, 2))
        scores = scores.masked_fill(~valid, -torch.inf)
        hit = scores.masked_fill(seen.unsqueeze(1) != ids.unsqueeze(2), -torch.inf)
        known = fill + torch.arange(time, device=ids.device)
        usable = known > (0 if self.config.partial else length)
        cached = torch.where(usable, hit.logsumexp(2) - scores.logsumexp(2), 0.0).to(nll.dtype)
        mixed = -torch.logaddexp(math.log1p(-self.config.weight) - nll, math.log(self.config.weight) + cached)
        return torch.where(usable, mixed, nll)


def _grid(config: CacheConfig) -> Iterator[tuple[dict[str, float], AdapterConfig]]:
    for theta, weight in itertools.product((0.1, 0.3, 0.6, 1.0), (0.05, 0.1, 0.2, 0.3)):
        values = {"theta": theta, "weight": weight}
        yield {f"cache.{name}": value for name, value in values.items()}, config.model_copy(update=values)


class Cache(Adapter):
    """A continuous cache around whatever gives hidden states."""

    Config = CacheConfig
    EXAMPLES = (
        CacheConfig(length=5, theta=0.3, weight=0.3),
        CacheConfig(length=3, partial=False),
    )
    title = "a cache"
    place = MEMORY + 9  # the last: what it mixes in follows the text most closely
    needs_hidden = True
    search = Search(_grid, tokens=30_000)

    @classmethod
    def apply(cls, inner: Predictor, config: Any, source: Source | None) -> Predictor:
        """See :meth:`Adapter.apply`."""
        return CachePredictor(inner, config)
