"""The recovery probe: what a wrong input costs a model, and for how long.

At sampled places of a text, K symbols of the input are corrupted. From the same state the model then reads the true
text on, once with the corrupted symbols behind it and once with the true ones. Lag j is the j-th token after the
corruption, from 0: its loss given the corrupted past, less that given the true past, is the excess; the outputs that
predict it are compared as vectors. Corrupted symbols are read and never predicted: every target is the true text.

The claim behind it is that of Krause et al. (2016) for the multiplicative LSTM: transitions that depend on the input
let a model recover from a surprising symbol.
"""

import math
from collections.abc import Callable, Iterator
from types import TracebackType
from typing import Any, NamedTuple, Self

import numpy as np
import torch
from torch import Tensor, nn

from unrolled.analyse.recovery.corruption import Corruption, RecoveryConfig, draw_corruption
from unrolled.core import tree
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data import CorpusConfig, TokenSplit
from unrolled.data.walk import Columns, Progress, windows
from unrolled.predict import NeuralPredictor, NeuralState, check_vocabulary
from unrolled.runs import Run

__all__ = ["Recovery", "measure_recovery", "recovery_of_run"]

_WINDOW = 512


class Recovery(NamedTuple):
    """What was measured at each place and lag.

    name: of the run. config: how. corruption: where and what. excess: (P, lags + 1) bits. correlation, cosine: of the
    outputs with and without the corruption, by what puts them out ("output", the last raw one; "layer 1", ...), each
    (P, lags + 1). provenance: plain JSON values.
    """

    name: str
    config: RecoveryConfig
    corruption: Corruption
    excess: np.ndarray
    correlation: dict[str, np.ndarray]
    cosine: dict[str, np.ndarray]
    provenance: dict[str, Any]


def recovery_of_run(
    run: Run,
    corpus: CorpusConfig | str | None = None,
    config: RecoveryConfig | None = None,
    progress: Progress | None = None,
) -> Recovery:
    """Measure a run on its own corpus or another.

    Args:
        corpus: its config, a known name, or the path of your own text; absent: the run's own.
        progress: hears of the tokens read up to the last place.
    Raises:
        UsageError: a count model, which has no state to recover; unknown corpus or split; too short a text.
    """
    config = config or RecoveryConfig()
    predictor = NeuralPredictor(run.model, run.tokenizer.start_id)
    name, split, _ = run.to_measure(config.split, corpus)
    found = measure_recovery(predictor, split, config, progress=progress)
    provenance = {
        **run.provenance(),
        "corpus": name,
        "split": config.split,
        "text_sha256": split.checksum,
        "precision": predictor.precision,
        "tokens": len(split) if config.limit is None else min(config.limit, len(split)),
    }
    return found._replace(name=run.path.resolve().name, provenance=provenance)


def measure_recovery(
    predictor: NeuralPredictor,
    split: TokenSplit,
    config: RecoveryConfig,
    corruption: Corruption | None = None,
    progress: Progress | None = None,
) -> Recovery:
    """Measure a model on a split.

    One pass over the text carries the state and keeps it at the places; from there the true and the corrupted
    continuation run in batches of equal shape, so that equal inputs give equal figures to the last bit.

    Args:
        corruption: places and symbols of your own; absent: drawn by ``config``.
    Raises:
        UsageError: too short a text. UnrolledError: another vocabulary; a loss that is not a finite number.
    """
    check_vocabulary(predictor, len(split.tables.words))
    chosen = draw_corruption(split, config) if corruption is None else corruption
    if chosen.places.max() + config.length + config.lags >= len(split):
        raise UsageError(f"a place is followed by fewer than {config.length + config.lags + 1:,} tokens of the text.")
    excess = np.zeros((len(chosen.places), config.lags + 1))
    with _Reader(predictor) as reader:
        alike = {site: np.zeros((2, *excess.shape)) for site in reader.sites}
        for rows, start in _batches(reader, split, chosen.places, config, progress):
            true = np.stack([split.ids(p, p + config.length + config.lags + 1) for p in chosen.places[rows].tolist()])
            symbols = None if chosen.symbols is None else torch.from_numpy(chosen.symbols[rows]).to(predictor.device)
            more, similar = _continue(reader, start, torch.from_numpy(true).to(predictor.device), symbols, config)
            excess[rows] = more
            for site, values in similar.items():
                alike[site][:, rows] = values
    if not np.isfinite(excess).all():
        raise UnrolledError(
            "a loss after a corrupted place is not a finite number; the model's weights are damaged, or its training "
            "diverged."
        )
    correlation, cosine = ({site: values[i] for site, values in alike.items()} for i in (0, 1))
    return Recovery("model", config, chosen, excess, correlation, cosine, {})


class _Reading(NamedTuple):
    """Rows that have read some text. layers: (batch, width), each layer's output for the last token read."""

    state: NeuralState
    layers: tuple[Tensor, ...]


class _Scored(NamedTuple):
    """nll: (batch, time) nats. sites: (batch, time, width), the outputs before each token, raw last one first."""

    nll: Tensor
    sites: list[Tensor]


class _Reader:
    """A predictor whose layers are listened to while it reads.

    A layer's output is its h where the cell has one; hooks see it for any cell and leave the fast kernels on.
    """

    def __init__(self, predictor: NeuralPredictor):
        self.predictor = predictor
        self._cells = predictor.model.stack.cells()
        self.sites = ["output", *(f"layer {i + 1}" for i in range(len(self._cells)))]
        self._seen: list[Tensor] = [torch.empty(0)] * len(self._cells)

    def __enter__(self) -> Self:
        def listener(i: int) -> Callable[[nn.Module, Any, Any], None]:
            def listen(layer: nn.Module, given: Any, made: Any) -> None:
                self._seen[i] = made[0]

            return listen

        self._hooks = [cell.register_forward_hook(listener(i)) for i, cell in enumerate(self._cells)]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        for hook in self._hooks:
            hook.remove()

    def _reading(self, state: NeuralState) -> _Reading:
        return _Reading(state, tuple(y[:, -1] for y in self._seen))

    def begin(self, batch: int) -> _Reading:
        """Rows that have read the start symbol."""
        return self._reading(self.predictor.begin(batch))

    def consume(self, reading: _Reading, ids: Tensor, reset: Tensor | None = None) -> _Reading:
        """Read ids (batch, time), time >= 1. reset: see :meth:`Predictor.window`."""
        if reset is None:
            return self._reading(self.predictor.consume(reading.state, ids))
        return self._reading(self.predictor.window(reading.state, ids, reset).state)

    def score(self, reading: _Reading, ids: Tensor) -> _Scored:
        """Predict ids (batch, time), one after another."""
        scores = self.predictor.window(reading.state, ids)
        before = [
            torch.cat([last.unsqueeze(1), y[:, :-1]], 1) for last, y in zip(reading.layers, self._seen, strict=True)
        ]
        assert scores.hidden is not None
        return _Scored(scores.nll, [scores.hidden, *before])


def _batches(
    reader: _Reader, split: TokenSplit, places: np.ndarray, config: RecoveryConfig, progress: Progress | None
) -> Iterator[tuple[np.ndarray, _Reading]]:
    """Indices of at most ``batch`` places, and the rows that have read all before them."""
    rows: list[np.ndarray] = []
    kept: list[_Reading] = []
    for found, reading in _states(reader, split, places, config, progress):
        rows.append(found)
        kept.append(reading)
        while sum(map(len, rows)) >= config.batch:
            index, joined = np.concatenate(rows), _join(kept)
            yield index[: config.batch], tree.select_rows(joined, torch.arange(config.batch))
            rows = [index[config.batch :]]
            kept = [tree.select_rows(joined, torch.arange(config.batch, len(index)))]
    index = np.concatenate(rows)
    if len(index):
        yield index, _join(kept)


def _join(readings: list[_Reading]) -> _Reading:
    return tree.map_tree(lambda *rows: torch.cat(rows), readings[0], *readings[1:])


@torch.no_grad()
def _states(
    reader: _Reader, split: TokenSplit, places: np.ndarray, config: RecoveryConfig, progress: Progress | None
) -> Iterator[tuple[np.ndarray, _Reading]]:
    """Reads the text up to the last place: indices of places, and their rows before the place's first symbol."""
    columns = Columns.cut(split, config.columns, config.limit)
    column, offset = np.divmod(places, columns.length)
    device, last = reader.predictor.device, int(offset.max())
    reading = reader.begin(config.columns)
    for position, window, flags in windows(split, columns, _WINDOW):
        ids = torch.from_numpy(window).to(device)
        reset = None if flags is None else torch.from_numpy(flags).to(device)
        low, high = 0, window.shape[1]
        inside = np.unique(offset[(offset >= position) & (offset < position + high)]) - position
        for cut in [*inside.tolist(), high]:
            if cut > low:
                reading = reader.consume(reading, ids[:, low:cut], None if reset is None else reset[:, low:cut])
                low = cut
            if cut < high:
                found = np.flatnonzero(offset == position + cut)
                yield found, tree.select_rows(reading, torch.from_numpy(column[found]))
        if progress is not None:
            progress(min(position + high, last), last, 0.0)
        if position + high > last:
            return


@torch.no_grad()
def _continue(
    reader: _Reader, start: _Reading, true: Tensor, symbols: Tensor | None, config: RecoveryConfig
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Excess (batch, lags + 1) in bits, and by site correlation and cosine (2, batch, lags + 1).

    Args:
        true: (batch, length + lags + 1) ids. symbols: (batch, length) read in place of the first ones, None: nothing.
    """
    targets = true[:, config.length :]
    right = reader.score(reader.consume(start, true[:, : config.length]), targets)
    wrong = reader.score(start if symbols is None else reader.consume(start, symbols), targets)
    excess = (wrong.nll.double() - right.nll.double()) / math.log(2)
    similar = {
        site: torch.stack(_similarity(a, b)).cpu().numpy()
        for site, a, b in zip(reader.sites, right.sites, wrong.sites, strict=True)
    }
    return excess.cpu().numpy(), similar


def _similarity(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Pearson correlation over units, and cosine, (batch, time) each.

    Equal vectors give exactly 1; where a vector has no variance (no length) and the other differs, the figure is 0.
    """
    equal = (first == second).all(-1)

    def cosine(a: Tensor, b: Tensor) -> Tensor:
        value = (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))
        return torch.where(equal, 1.0, value.nan_to_num(0.0, 0.0, 0.0).clamp(-1, 1))

    a, b = first.double(), second.double()
    return cosine(a - a.mean(-1, keepdim=True), b - b.mean(-1, keepdim=True)), cosine(a, b)
