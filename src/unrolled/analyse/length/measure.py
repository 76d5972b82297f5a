r"""Loss and norm of the state by position, in texts longer than those trained on (Chen et al. 2024, arXiv:2410.07145).

Stretches of a text are read from the start symbol on, as if each were a text. Two things are measured:

- the nats of each token by its position, and beside them those of the same tokens after a past that is within what
  training knew: at least half of the trained length and less than all of it. The difference is what length alone
  costs, or gives; a comparison of positions would also be one of tokens.
- the norms of the state after 1, 2, 4, ... tokens: of each head's matrix where a layer has such, else of the field.
"""

from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unrolled.analyse.passage import Passage
from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data.walk import Progress
from unrolled.predict import NeuralPredictor

__all__ = ["LengthConfig", "LengthUse", "measure_length"]

# tokens read at once, per text
_PIECE = 512


class LengthConfig(Config):
    """What is measured."""

    length: int = Field(default=4096, ge=4, le=1 << 24, description="tokens of each stretch that is read")
    texts: int = Field(default=32, ge=2, le=1 << 20, description="stretches, spread over the text")
    trained: int = Field(ge=2, le=1 << 24, description="tokens that training reads without a break")
    tolerance: float = Field(default=0.01, gt=0, description="bits that length may cost before that counts")
    factor: float = Field(
        default=2.0, gt=1, description="times the largest norm within the trained length, above which a norm is out"
    )
    batch: int = Field(default=32, ge=1, description="stretches at once; bounds the memory and changes no figure")

    def points(self) -> list[int]:
        """Numbers of tokens after which norms are taken: 1, 2, 4, ..., the trained length and the whole."""
        powers = {1 << i for i in range(self.length.bit_length()) if 1 << i < self.length}
        return sorted(powers | {min(self.trained, self.length), self.length})


class LengthUse(NamedTuple):
    """What was measured.

    name: of the run. config: how. nats: (texts, length). near: the same tokens after a past within the trained length,
    (texts, length), nan where the first is within it too. norms: ``layer.field`` -> (texts, points, heads or 1).
    provenance: plain JSON.
    """

    name: str
    config: LengthConfig
    nats: np.ndarray
    near: np.ndarray
    norms: dict[str, np.ndarray]
    provenance: dict[str, Any]


def measure_length(
    predictor: NeuralPredictor, passage: Passage, config: LengthConfig, progress: Progress | None = None
) -> LengthUse:
    """Measure a model on a passage.

    Args:
        progress: hears of the tokens read.
    Raises:
        UsageError: a stretch that is no longer than what was trained; a passage with too few stretches.
        UnrolledError: a figure that is not a finite number.
    """
    if config.length <= config.trained:
        raise UsageError(
            f"stretches of {config.length:,} tokens are no longer than the {config.trained:,} of training; read "
            "longer ones."
        )
    ids, half = torch.from_numpy(_stretches(passage, config)), config.trained // 2
    chunks = (config.length - half) // half - 1
    total, done = len(ids) * (config.length + 2 * half * chunks), 0
    nats, near = np.zeros(ids.shape), np.full(ids.shape, np.nan)
    norms: dict[str, list[np.ndarray]] = {}
    for low in range(0, len(ids), config.batch):
        rows = slice(low, low + config.batch)
        part = ids[rows].to(predictor.device)
        nats[rows], found = _whole(predictor, part, config.points())
        for key, value in found.items():
            norms.setdefault(key, []).append(value)
        done += part.numel()
        near[rows, 2 * half : (chunks + 2) * half] = _near(predictor, part, half)
        done += len(part) * 2 * half * chunks
        if progress is not None:
            progress(done, total, float(nats[rows].sum()))
    if not (np.isfinite(nats).all() and np.isfinite(near[:, 2 * half : (chunks + 2) * half]).all()):
        raise UnrolledError("a loss is not a finite number; the model's training diverged, or its state does.")
    joined = {key: np.concatenate(parts) for key, parts in norms.items()}
    return LengthUse("model", config, nats, near, joined, dict(passage.origin))


def _stretches(passage: Passage, config: LengthConfig) -> np.ndarray:
    """(texts, length) ids, evenly among those that have no beginning of a text inside.

    Raises:
        UsageError: there are fewer.
    """
    ends = [*passage.starts[1:].tolist(), len(passage.ids)]
    begins = [
        at
        for low, high in zip(passage.starts.tolist(), ends, strict=True)
        for at in range(low, high - config.length + 1, config.length)
    ]
    if len(begins) < config.texts:
        raise UsageError(
            f"the text has {len(begins):,} stretches of {config.length:,} tokens in which no text begins, and "
            f"{config.texts:,} are wanted; read fewer, shorter ones, or more of a longer text."
        )
    chosen = [begins[i * len(begins) // config.texts] for i in range(config.texts)]
    return np.stack([passage.ids[at : at + config.length] for at in chosen])


def _whole(predictor: NeuralPredictor, ids: Tensor, points: list[int]) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Nats (texts, length) of stretches read from begin to end, and norms of the states after each of the points."""
    state, at = predictor.begin(len(ids)), 0
    nats, norms = [], []
    for point in points:
        while at < point:
            stop = min(point, at + _PIECE)
            scores = predictor.window(state, ids[:, at:stop])
            nats.append(scores.nll.double().cpu().numpy())
            state, at = scores.state, stop
        norms.append(_norms(predictor, state.cells))
    return np.concatenate(nats, 1), {key: np.stack([each[key] for each in norms], 1) for key in norms[0]}


def _norms(predictor: NeuralPredictor, states: tuple[Any, ...]) -> dict[str, np.ndarray]:
    """``layer.field`` -> (texts, heads or 1)."""
    found = {}
    for i, (cell, state) in enumerate(zip(predictor.model.stack.cells(), states, strict=True)):
        for name, part in state._asdict().items():
            if part.is_floating_point():
                each = part.flatten(2) if name in getattr(cell, "matrix_fields", ()) else part.flatten(1).unsqueeze(1)
                found[f"{i}.{name}"] = torch.linalg.vector_norm(each.detach().double(), dim=-1).cpu().numpy()
    return found


def _near(predictor: NeuralPredictor, ids: Tensor, half: int) -> np.ndarray:
    """Nats of the tokens from 2 * half on, each after at least ``half`` tokens and fewer than twice as many."""
    pieces = ids[:, half:].unfold(1, 2 * half, half)  # (texts, chunks, 2 half)
    rows = pieces.reshape(-1, 2 * half)
    nats = []
    for low in range(0, len(rows), len(ids)):
        part = rows[low : low + len(ids)]
        nats.append(predictor.window(predictor.begin(len(part)), part).nll[:, half:].double().cpu().numpy())
    return np.concatenate(nats).reshape(len(ids), -1)
