"""A model's internals over a text: read window by window, or a selection of them held or saved as a whole."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unrolled.analyse.passage import Passage, PassageText
from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_write
from unrolled.core.memory import free_memory
from unrolled.core.registry import unknown_name
from unrolled.core.tree import save_tensors
from unrolled.data.walk import Progress
from unrolled.model import ModelState, Wanted, trace_window
from unrolled.predict import NeuralPredictor, NeuralState, Predictor, check_vocabulary

__all__ = [
    "Selection",
    "Trace",
    "Traced",
    "collect_trace",
    "open_reader",
    "read_nats",
    "save_trace",
    "sites",
    "trace_passage",
]

_WINDOW = 128
# of the memory that is free, the part that a trace may take
_SHARE = 0.5


class Selection(Config):
    """Which internals of which layers, and which of their units."""

    layers: tuple[int, ...] | None = Field(default=None, description="layers, from 0 (absent: all)")
    names: tuple[str, ...] | None = Field(default=None, description="names of internals, such as c or f (absent: all)")
    units: tuple[int, ...] | None = Field(default=None, description="numbers of units, from 0 (absent: all)")

    def wanted(self, layer: int, name: str) -> bool:
        """Whether an internal is selected."""
        return (self.layers is None or layer in self.layers) and (self.names is None or name in self.names)

    def check(self, found: dict[str, int]) -> dict[str, int]:
        """The selected among ``found``, ``layer.name`` -> units; raises UsageError for what is not there."""
        layers = sorted({int(key.split(".", 1)[0]) for key in found})
        names = list(dict.fromkeys(key.split(".", 1)[1] for key in found))
        for layer in self.layers or ():
            if layer not in layers:
                raise UsageError(f"the model has no layer {layer}; its layers are 0 to {layers[-1]}.")
        for name in self.names or ():
            if name not in names:
                raise unknown_name("internal", name, names)
        chosen = {key: n for key, n in found.items() if self.wanted(int(key.split(".", 1)[0]), key.split(".", 1)[1])}
        if not chosen:
            raise UsageError("the chosen layers have none of the chosen internals; choose others.")
        for key, size in chosen.items():
            for unit in self.units or ():
                if not 0 <= unit < size:
                    raise UsageError(f"{key} has no unit {unit}; its units are 0 to {size - 1}.")
        return chosen if self.units is None else dict.fromkeys(chosen, len(self.units))


class Traced(NamedTuple):
    """A window. start: position of its first token. ids: (time,). nats: (time,) float64, of each token given those
    before it. values: ``layer.name`` -> (time, units), after each token was read."""

    start: int
    ids: np.ndarray
    nats: np.ndarray
    values: dict[str, Tensor]


class Trace(NamedTuple):
    """ids: (n,). nats: (n,) float64. values: ``layer.name`` -> (n, units) float32."""

    ids: np.ndarray
    nats: np.ndarray
    values: dict[str, np.ndarray]


@torch.no_grad()
def sites(predictor: NeuralPredictor) -> dict[str, int]:
    """Every internal of a model, ``layer.name`` -> number of units."""
    token = torch.full((1, 1), predictor.start_id, device=predictor.device)
    values, _ = trace_window(predictor.model, token)
    return {key: value.shape[-1] for key, value in values.items()}


@torch.no_grad()
def trace_passage(
    predictor: NeuralPredictor, passage: Passage, wanted: Wanted | None = None, progress: Progress | None = None
) -> Iterator[Traced]:
    """Read a passage with the state carried on, in memory that does not grow with its length.

    Every text begins with the start symbol, as in an evaluation, so that its first token is scored as well; the
    internals after the start symbol are no row of the trace.

    Raises:
        UnrolledError: a loss that is not a finite number.
    """
    model, total, state = predictor.model, 0.0, predictor.begin(1)
    for low, high, begins in passage.segments(_WINDOW):
        if begins:
            state = predictor.begin(1)
        ids = torch.from_numpy(passage.ids[low:high]).to(predictor.device).unsqueeze(0)
        values, out = trace_window(model, ids, ModelState(state.cells, state.head), wanted)
        hidden = torch.cat([state.hidden.unsqueeze(1), out.raw[:, :-1]], 1)
        _, nll, head = model.head.loss(hidden, ids, None, state.head, None)
        state = NeuralState(out.state.cells, head, out.raw[:, -1])
        nats = _finite(nll[0].double().cpu().numpy(), low)
        total += float(nats.sum())
        yield Traced(low, passage.ids[low:high], nats, {key: value[0] for key, value in values.items()})
        if progress is not None:
            progress(high, len(passage.ids), total / high)


@torch.no_grad()
def read_nats(predictor: Predictor, passage: Passage, progress: Progress | None = None) -> np.ndarray:
    """Nats (n,) float64 of every token given those before it, by any predictor.

    Raises:
        UnrolledError: a loss that is not a finite number.
    """
    found, state = np.zeros(len(passage.ids)), predictor.begin(1)
    for low, high, begins in passage.segments(512):
        if begins:
            state = predictor.begin(1)
        ids = torch.from_numpy(passage.ids[low:high]).to(predictor.device).unsqueeze(0)
        scores = predictor.window(state, ids)
        state = scores.state
        found[low:high] = _finite(scores.nll[0].double().cpu().numpy(), low)
        if progress is not None:
            progress(high, len(passage.ids), float(found[:high].mean()))
    return found


def _finite(nats: np.ndarray, low: int) -> np.ndarray:
    if not np.isfinite(nats).all():
        raise UnrolledError(
            f"the loss of token {low + int(np.argmin(np.isfinite(nats))) + 1:,} is not a finite number; the model's "
            "weights are damaged, or its training diverged."
        )
    return nats


def collect_trace(
    predictor: NeuralPredictor, passage: Passage, selection: Selection | None = None, progress: Progress | None = None
) -> Trace:
    """Hold the selected internals over a whole passage.

    Raises:
        UsageError: more than half of the free memory would be needed; names, layers or units that are not there.
    """
    selection = selection or Selection()
    chosen = selection.check(sites(predictor))
    length = len(passage.ids)
    size, free = 4 * length * sum(chosen.values()), free_memory()
    if free is not None and size > _SHARE * free:
        raise UsageError(
            f"{sum(chosen.values()):,} units over {length:,} tokens are {_amount(size)}, more than half of the "
            f"{_amount(free)} of memory that are free; choose fewer layers, names or units, or fewer tokens with limit."
        )
    units = None if selection.units is None else list(selection.units)
    values = {key: np.zeros((length, width), np.float32) for key, width in chosen.items()}
    nats = np.zeros(length)
    for part in trace_passage(predictor, passage, selection.wanted, progress):
        here = slice(part.start, part.start + len(part.ids))
        nats[here] = part.nats
        for key, value in part.values.items():
            values[key][here] = (value if units is None else value[:, units]).float().cpu().numpy()
    return Trace(passage.ids, nats, values)


def _amount(size: float) -> str:
    return f"{size / 1e9:,.1f} GB" if size >= 1e8 else f"{size / 1e6:,.1f} MB"


def save_trace(path: str | os.PathLike[str], trace: Trace, text: PassageText) -> None:
    """Write a trace as ``.npz`` or ``.safetensors``, atomically.

    The arrays of the file: every ``layer.name`` (n, units) float32; ``ids`` (n,); ``nats`` (n,) float64; ``text``, the
    bytes of all tokens, and ``ends`` (n,), where each token ends in them.

    Raises:
        UsageError: another ending.
    """
    path = Path(path)
    arrays: dict[str, Any] = {
        **trace.values,
        "ids": trace.ids,
        "nats": trace.nats,
        "text": text.data,
        "ends": text.ends,
    }
    if path.suffix == ".npz":

        def write(part: Path) -> None:
            with part.open("wb") as file:
                np.savez(file, **arrays)

        atomic_write(path, write)
    elif path.suffix == ".safetensors":
        save_tensors(path, {key: torch.from_numpy(np.array(value)) for key, value in arrays.items()})
    else:
        raise UsageError(f"{path} ends neither in .npz nor in .safetensors; choose one of the two.")


def open_reader(run: Any) -> NeuralPredictor:
    """The predictor of a run. Raises UsageError for a count model, which has no internals."""
    predictor = NeuralPredictor(run.model, run.tokenizer.start_id)
    check_vocabulary(predictor, run.tokenizer.vocab_size)
    return predictor
