r"""How far back a model uses what it has read: three views.

- Loss with a truncated past (Khandelwal et al. 2018): each of several tokens is predicted after the start symbol and
  the last k tokens, and its loss compared with that after the whole past of its text. The effective length is the
  smallest k tried from which on the mean excess is below a tolerance with its whole interval. The start symbol is read
  as at the beginning of any text: models that always carried their state may be lost where the first token comes
  straight upon the initial state.
- The norm of the gradient of a token's loss with respect to the embedding of the token j places before it:
  :math:`\|\partial L_t / \partial x_{t-j}\|`, j = 1 being the last token read. Reading begins with the start symbol as
  far back as the longest past tried, or the longest lag.
- The autocorrelation of states: of each unit over the text,
  :math:`\sum_t (s_t - \bar s)(s_{t+j} - \bar s) / \sum_t (s_t - \bar s)^2`, and its mean over the units that vary.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unrolled.analyse.passage import Passage
from unrolled.analyse.tracing import Selection, collect_trace, sites
from unrolled.cells.taps import tap_name
from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.walk import Progress
from unrolled.model import ModelState
from unrolled.predict import NeuralPredictor

__all__ = ["MemoryConfig", "MemoryUse", "autocorrelation", "measure_memory"]


class MemoryConfig(Config):
    """What is measured, and where."""

    places: int = Field(default=300, ge=2, description="tokens that are predicted after truncated pasts")
    gradients: int = Field(default=100, ge=2, description="of these places, those whose gradients are taken")
    longest: int = Field(
        default=512, ge=1, description="longest truncated past; those tried are powers of two up to it"
    )
    lags: int = Field(default=200, ge=1, description="tokens back to which gradients and autocorrelations go")
    tolerance: float = Field(default=0.01, gt=0, description="excess in bits below which a past counts as long enough")
    batch: int = Field(default=64, ge=1, description="places at once; bounds the memory and changes no figure")
    seed: int = Field(default=1, ge=0, description="of the places")

    def contexts(self) -> list[int]:
        """The pasts that are tried, 1, 2, 4, ... and the longest."""
        powers = [1 << i for i in range(self.longest.bit_length()) if 1 << i < self.longest]
        return [*powers, self.longest]

    @property
    def reach(self) -> int:
        """Tokens that a place needs before it."""
        return max(self.longest, self.lags)


class MemoryUse(NamedTuple):
    """What was measured.

    name: of the run. config: how. places: (P,) positions in the passage. truncated: (P, contexts) nats. whole: (P,)
    nats after the whole past. gradients: (G, lags) norms at the first places as drawn, lag 1 first, per nat.
    autocorrelation: ``layer.name`` of each state -> (lags + 1,). provenance: plain JSON.
    """

    name: str
    config: MemoryConfig
    places: np.ndarray
    truncated: np.ndarray
    whole: np.ndarray
    gradients: np.ndarray
    autocorrelation: dict[str, np.ndarray]
    provenance: dict[str, Any]


def measure_memory(
    predictor: NeuralPredictor, passage: Passage, config: MemoryConfig | None = None, progress: Progress | None = None
) -> MemoryUse:
    """Measure a model on a passage.

    Args:
        progress: hears of the tokens read, those of the text first.
    Raises:
        UsageError: a passage with too few places. UnrolledError: a figure that is not a finite number.
    """
    config = config or MemoryConfig()
    places = draw_places(passage, config)
    names = tuple(
        dict.fromkeys(name for key in sites(predictor) if tap_name(name := key.split(".", 1)[1]).role == "state")
    )
    chosen = places[: config.gradients]
    total = len(passage.ids) + len(places) * sum(config.contexts()) + len(chosen) * config.reach

    def tell(done: int, nats: float = 0.0) -> None:
        if progress is not None:
            progress(done, total, nats)

    trace = collect_trace(predictor, passage, Selection(names=names), lambda done, _, nats: tell(done, nats))
    correlated = {key: autocorrelation(value, config.lags) for key, value in trace.values.items()}
    ids, done = torch.from_numpy(passage.ids).to(predictor.device), len(passage.ids)
    truncated = np.zeros((len(places), len(config.contexts())))
    for column, context in enumerate(config.contexts()):
        for rows in _batches(len(places), config.batch):
            truncated[rows, column] = _after(predictor, *_pasts(ids, places[rows], context))
            done += len(places[rows]) * context
            tell(done)
    gradients = np.zeros((len(chosen), config.lags))
    for rows in _batches(len(chosen), config.batch):
        gradients[rows] = _gradients(predictor, *_pasts(ids, chosen[rows], config.reach), config.lags)
        done += len(chosen[rows]) * config.reach
        tell(done)
    if not (np.isfinite(truncated).all() and np.isfinite(gradients).all()):
        raise UnrolledError("a loss or gradient is not a finite number; the model's training diverged.")
    return MemoryUse(
        "model", config, places, truncated, trace.nats[places], gradients, correlated, dict(passage.origin)
    )


def draw_places(passage: Passage, config: MemoryConfig) -> np.ndarray:
    """Places that have enough of their own text before them, in the order drawn.

    Raises:
        UsageError: fewer of them than are wanted.
    """
    need = config.reach
    at = np.arange(len(passage.ids))
    begun = passage.starts[np.searchsorted(passage.starts, at, side="right") - 1]
    able = at[at - begun >= need]
    if len(able) < config.places:
        raise UsageError(
            f"only {len(able):,} tokens have {need:,} tokens of their text before them and {config.places:,} are "
            "wanted; use fewer places, a shorter past, fewer lags or a longer text."
        )
    generator = RandomStreams(config.seed).generator("memory")
    return able[torch.randperm(len(able), generator=generator)[: config.places].numpy()]


def _batches(total: int, batch: int) -> list[slice]:
    return [slice(low, min(low + batch, total)) for low in range(0, total, batch)]


def _pasts(ids: Tensor, places: np.ndarray, length: int) -> tuple[Tensor, Tensor]:
    """The last ``length`` tokens (batch, length) before each place, and the tokens at the places (batch,)."""
    at = torch.from_numpy(places).to(ids.device)
    return ids[at.unsqueeze(1) + torch.arange(-length, 0, device=ids.device)], ids[at]


def _after(predictor: NeuralPredictor, past: Tensor, targets: Tensor) -> np.ndarray:
    """Nats (batch,) of the targets when nothing but the start symbol and the past was read."""
    state = predictor.consume(predictor.begin(len(past)), past)
    log_prob = predictor.predict(state).log_prob.gather(1, targets.unsqueeze(1))
    return -log_prob[:, 0].double().cpu().numpy()


def _gradients(predictor: NeuralPredictor, past: Tensor, targets: Tensor, lags: int) -> np.ndarray:
    """Norms (batch, lags) of the gradients of the targets' nats by the embeddings of the past, the last token first."""
    start = predictor.consume(predictor.begin(len(past)), past[:, :-lags])
    model, past = predictor.model, past[:, -lags:]
    with torch.enable_grad():
        read = model.embedding(past).detach().requires_grad_()
        out = model.run_stack(read, ModelState(start.cells, start.head))
        # a head that carries something has to see the whole window; only the last token counts
        last = slice(None) if start.head is not None else slice(-1, None)
        shifted = torch.cat([past[:, 1:], targets.unsqueeze(1)], 1)[:, last]
        weight = torch.zeros(shifted.shape, device=past.device, dtype=out.raw.dtype)
        weight[:, -1] = 1
        total, _, _ = model.head.loss(out.raw[:, last], shifted, weight, start.head, None)
        (grad,) = torch.autograd.grad(total, read)
    return grad.double().norm(dim=-1).flip(1).cpu().numpy()


def autocorrelation(values: np.ndarray, lags: int) -> np.ndarray:
    """Mean over the units that vary of each one's autocorrelation, (lags + 1,). values: (n, units), n > lags.

    Zeros where no unit varies.
    """
    n, total, count = len(values), np.zeros(lags + 1), 0
    size = 1 << (n + lags).bit_length()
    for low in range(0, values.shape[1], 64):  # by Fourier transform, some units at a time
        x = values[:, low : low + 64].astype(np.float64)
        x -= x.mean(0)
        power = np.abs(np.fft.rfft(x, size, axis=0)) ** 2
        products = np.fft.irfft(power, size, axis=0)[: lags + 1]
        varies = products[0] > 1e-12 * n
        total += (products[:, varies] / products[0, varies]).sum(1)
        count += int(varies.sum())
    return total / max(1, count)
