"""An exported step beside the predictor: how far apart they are on real text, and how fast each is."""

import time
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import UnrolledError
from unrolled.model import LanguageModel
from unrolled.predict import NeuralPredictor, PackedPredictor
from unrolled.predict.base import Predictor
from unrolled.predict.packed_program import Quantize, why_not_packed
from unrolled.runs import Run
from unrolled.serve.onnx.session import OnnxStep

__all__ = ["MOST_ERROR", "MOST_NATS", "Verified", "steps_to_verify", "verify"]

MOST_ERROR, MOST_NATS = 1e-4, 0.005
"""What float32 may be off in any log-probability, and 8-bit weights in the mean nats of a token."""

_ROUNDS = 3


class Verified(NamedTuple):
    """steps: tokens read. error: the largest difference in any log-probability. nats: mean nats per token of the
    exported step, less the predictor's. tokens_per_second: of ONNX Runtime with one thread, over all rows of a call.
    ours: of the decoder of this library in the same minute, one row, with weights of the same kind; None where it
    cannot be prepared."""

    steps: int
    error: float
    nats: float
    tokens_per_second: float
    ours: float | None

    def check(self, int8: bool) -> None:
        """Raises UnrolledError where the two are too far apart."""
        bad = abs(self.nats) > MOST_NATS if int8 else self.error > MOST_ERROR
        if bad or not np.isfinite(self.error):
            what = f"{abs(self.nats):.4f} nats per token" if int8 else f"{self.error:.1e} in a log-probability"
            most = f"{MOST_NATS} nats; leave out --int8" if int8 else f"{MOST_ERROR}; report the model's settings"
            raise UnrolledError(
                f"nothing was written: over {self.steps} tokens the exported step is {what} away from the model, more "
                f"than {most}."
            )


def steps_to_verify(run: Run, steps: int) -> tuple[Tensor, str]:
    """(steps,) ids, and where they come from: the run's validation text, or drawn ones for a run that reads no text."""
    if not run.task_class.reads_text:
        drawn = torch.randint(run.model.vocab_size, (steps,), generator=torch.Generator().manual_seed(0))
        return drawn, "drawn tokens"
    _, split, _ = run.to_measure("valid")
    found = torch.from_numpy(np.array(split.ids(0, min(steps, len(split))), np.int64))
    return found, "validation text"


def verify(model: LanguageModel, own: LanguageModel, step: OnnxStep, ids: Tensor, rows: int, int8: bool) -> Verified:
    """Read ``ids`` with both.

    Args:
        model: in float32, each operation the reference. own: the same as the run has it, for the decoder.
        rows: of each call of the step; all read the same.
    """
    predictor = NeuralPredictor(model, step.start_id)
    found, _ = _read(step, ids, rows)
    wanted = torch.stack(_predicted(predictor, ids)).numpy()
    if step.scores == "logits":
        found = torch.log_softmax(torch.from_numpy(found), -1).numpy()
    places = np.arange(len(ids)), ids.numpy()
    nats = float(wanted[places].mean() - found[places].mean())
    quantize: Quantize | None = "int8" if int8 else None
    ours = None if why_not_packed(own, quantize) else PackedPredictor(own, step.start_id, quantize=quantize)
    times: list[tuple[float, float]] = []
    for _ in range(_ROUNDS if rows == 1 else 1):  # in turn, so that what else the machine does meets both
        begin = time.perf_counter()
        _read(step, ids, rows)
        middle = time.perf_counter()
        if ours is not None:
            _predicted(ours, ids)
        times.append((middle - begin, time.perf_counter() - middle))
    theirs, mine = (len(ids) / min(part) for part in zip(*times, strict=True))
    return Verified(len(ids), float(np.abs(found - wanted).max()), nats, theirs * rows, None if ours is None else mine)


def _read(step: OnnxStep, ids: Tensor, rows: int) -> tuple[np.ndarray, Any]:
    """(tokens, V): what each token was predicted with, and the state after the one before the last."""
    inputs = np.concatenate([[step.start_id], ids.numpy()[:-1]]).astype(np.int64)
    state, found = step.initial(rows), []
    for token in inputs:
        scores, state = step.step(np.full(rows, token, np.int64), state)
        found.append(scores[-1])
    return np.stack(found), state


def _predicted(predictor: Predictor, ids: Tensor) -> list[Tensor]:
    """The log-probabilities (V,) that each token was predicted with."""
    state, found = predictor.begin(1), []
    for token in ids.split(1):
        found.append(predictor.predict(state).log_prob[0].clone())
        state = predictor.observe(state, token)
    return found
