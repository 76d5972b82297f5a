"""A text as a model's tokens: losses, likeliest alternatives, and the internals of chosen units."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data.reading import Part
from unrolled.data.walk import Progress
from unrolled.evaluate import ScoreConfig, read_text, score_text
from unrolled.model import LanguageModel, ModelState
from unrolled.predict import NeuralPredictor, NeuralState
from unrolled.tokenizer import Tokenizer

__all__ = ["TextLosses", "losses_of", "trace_text"]

_ROWS = 64


class TextLosses(NamedTuple):
    """A text as a model's tokens.

    text: the text. ids: (n,). offsets: (n,) characters of the text before each. bits: (n,) its loss. top: (n, k) ids
    of the likeliest tokens in its place, and top_bits: (n, k) their -log2 probability. windows: first token of each
    window that was read at once, and the cells' states before it.
    """

    text: str
    ids: np.ndarray
    offsets: np.ndarray
    bits: np.ndarray
    top: np.ndarray
    top_bits: np.ndarray
    windows: list[tuple[int, Any]]


class _Listener(NeuralPredictor):
    """Keeps the ids that it is asked about, the distributions' likeliest tokens, and the states between windows."""

    def __init__(self, model: LanguageModel, start_id: int, k: int):
        super().__init__(model, start_id)
        self.k = min(k, model.vocab_size)
        self.ids: list[Tensor] = []
        self.top: list[Tensor] = []
        self.nats: list[Tensor] = []
        self.windows: list[tuple[int, Any]] = []

    def distributions(self, state: NeuralState, ids: Tensor, reset: Tensor | None = None) -> tuple[Tensor, NeuralState]:
        """See :meth:`Predictor.distributions`."""
        log_prob, after = super().distributions(state, ids, reset)
        best = log_prob[0].topk(self.k, 1)
        self.windows.append((sum(map(len, self.ids)), state.cells))
        self.ids.append(ids[0].cpu())
        self.top.append(best.indices.cpu())
        self.nats.append(best.values.double().cpu())
        return log_prob, after


def losses_of(
    model: LanguageModel, tokenizer: Tokenizer, part: Part, alternatives: int = 4, progress: Progress | None = None
) -> TextLosses:
    """Read a text once, from the start symbol on, as :func:`score_text` does.

    Raises:
        UsageError: an empty text, not UTF-8, or one that the tokenizer cannot read.
    """
    listener = _Listener(model, tokenizer.start_id, alternatives)
    blocks = list(read_text(part, blanks=tokenizer.blanks))
    text = b"".join(block.data for block in blocks).decode()
    if not text:
        raise UsageError(f"{part.name} is empty; give a text.")
    offsets, nats = [], []
    for scored in score_text(listener, tokenizer, blocks, ScoreConfig(unit="token", rank=True)):
        offsets.append(scored.offset)
        nats.append(scored.nats)
        if progress is not None:
            progress(scored.offset, len(text), 0.0)
    return TextLosses(
        text, torch.cat(listener.ids).numpy(), np.array(offsets), np.array(nats) / math.log(2),
        torch.cat(listener.top).numpy(), -torch.cat(listener.nats).numpy() / math.log(2), listener.windows,
    )  # fmt: skip


@torch.no_grad()
def trace_text(
    model: LanguageModel, losses: TextLosses, count: int, units: Mapping[str, np.ndarray], progress: Progress | None
) -> dict[str, np.ndarray]:
    """Some units of some internals after every token, float32 (count, units). units: by ``layer.name``.

    Windows of equal length are read side by side, each from the state that the reading before has left there.
    """
    kept = {name: np.empty((count, len(chosen)), np.float32) for name, chosen in units.items()}
    index = {name: torch.from_numpy(chosen).to(model.device) for name, chosen in units.items()}
    ends = [begin for begin, _ in losses.windows[1:]] + [len(losses.ids)]
    by_length: dict[int, list[tuple[int, Any]]] = {}
    for (begin, cells), end in zip(losses.windows, ends, strict=True):
        if begin < count:
            by_length.setdefault(min(end, count) - begin, []).append((begin, cells))
    done = 0
    for length, windows in by_length.items():
        for low in range(0, len(windows), _ROWS):
            begins = np.array([begin for begin, _ in windows[low : low + _ROWS]])
            state = _join([cells for _, cells in windows[low : low + _ROWS]])
            ids = torch.from_numpy(losses.ids[begins[:, None] + np.arange(length)]).to(model.device)
            steps = dict.fromkeys(units, 0)

            def tap(layer: int, name: str, value: Tensor, begins: np.ndarray = begins, steps: Any = steps) -> None:
                key = f"{layer}.{name}"
                if key in kept:
                    kept[key][begins + steps[key]] = value[:, index[key]].float().cpu().numpy()
                    steps[key] += 1

            model(ids, ModelState(state), tap=tap)
            if any(step != length for step in steps.values()):
                raise UnrolledError("a cell does not name each of its internals once a step; it cannot be shown.")
            done += ids.numel()
            if progress is not None:
                progress(done, count, 0.0)
    return kept


def _join(states: Sequence[Any]) -> Any:
    return tree.map_tree(lambda *rows: torch.cat(rows), states[0], *states[1:])
