"""Models measured on synthetic problems: at points (lengths, depths, ...), and by groups of positions."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.made import Batch, Problem
from unrolled.evaluate.text.pairs import wilson
from unrolled.model import LanguageModel
from unrolled.predict import NeuralPredictor, Predictor

__all__ = ["Figures", "PointResult", "Share", "Tally", "measure_batches", "measure_points", "middle_gap"]

_BATCH, _MOST_NUMBERS, _MOST_PIECE = 64, 1 << 22, 256
_DRAWS, _SEED, _LEVEL = 1000, 20180101, 0.95
# Sums that are kept of each row: positions asked for, right, nats, nats less those of the exact distribution, legal.
_COUNT, _RIGHT, _NATS, _EXCESS, _LEGAL = range(5)


class Share(NamedTuple):
    """A share with its 95 % interval."""

    value: float
    low: float
    high: float


class Figures(NamedTuple):
    """What was found over some positions of some rows.

    accuracy: share of the positions whose most likely symbol is the target; its interval is a bootstrap over rows, of
    groups Wilson's for as many independent positions as have the same spread over rows (Kish 1965). exact: share of the
    rows that are right at all of these positions, with Wilson's interval; None where targets are drawn by chance. nats:
    mean of the targets. excess: mean of nats less those of the exact distribution, error: its standard error over rows;
    legal: share of the positions whose most likely symbol is possible; these three None where there is no exact
    distribution.
    """

    rows: int
    positions: int
    accuracy: Share
    exact: Share | None
    nats: float
    excess: float | None = None
    error: float | None = None
    legal: Share | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {key: list(value) if isinstance(value, Share) else value for key, value in self._asdict().items()}


class PointResult(NamedTuple):
    """A model at a point. groups: name -> value -> figures of these positions alone. right_rows: (rows,) bool, whether
    all that was asked of a row was right."""

    point: dict[str, Any]
    figures: Figures
    groups: dict[str, dict[int, Figures]]
    right_rows: np.ndarray

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values, without the rows."""
        groups = {
            name: {str(value): figures.to_json() for value, figures in found.items()}
            for name, found in self.groups.items()
        }
        return {"point": self.point, **self.figures.to_json(), "groups": groups}


class Tally:
    """Sums by row, gathered batch by batch."""

    def __init__(self) -> None:
        self._rows: list[np.ndarray] = []
        self._groups: dict[str, dict[int, list[np.ndarray]]] = {}
        self._exact = True

    def add(self, batch: Batch, best: np.ndarray, nats: np.ndarray) -> None:
        """The figures of a batch.

        Args:
            best: (rows, time) most likely symbols. nats: (rows, time), of the targets.
        """
        place = np.nonzero(batch.weight > 0)
        best, nats, targets = best[place], nats[place], batch.targets[place]
        excess, legal = np.zeros(len(targets)), np.zeros(len(targets))
        if batch.probs is not None:
            probs, each = batch.probs[place], np.arange(len(targets))
            excess, legal = nats + np.log(probs[each, targets]), probs[each, best] > 0
            self._exact = False
        values = np.stack([np.ones(len(targets)), best == targets, nats, excess, legal], 1)
        self._rows.append(_by_row(place[0], values, len(batch.inputs)))
        for name, group in batch.groups.items():
            belongs = group[place]
            book = self._groups.setdefault(name, {})
            for value in np.unique(belongs[belongs >= 0]).tolist():
                mine = belongs == value
                sums = _by_row(place[0][mine], values[mine], len(batch.inputs))
                book.setdefault(value, []).append(sums)

    def figures(self) -> Figures:
        """Of all positions. Raises UsageError where nothing was asked."""
        if not any(part[:, _COUNT].any() for part in self._rows):
            raise UsageError("the rows of this problem ask for nothing; make them longer.")
        return self._of(np.concatenate(self._rows), _drawn_share)

    def nats(self) -> float:
        """Mean so far."""
        count = sum(float(part[:, _COUNT].sum()) for part in self._rows)
        return sum(float(part[:, _NATS].sum()) for part in self._rows) / max(count, 1)

    def groups(self) -> dict[str, dict[int, Figures]]:
        """Of the positions of each group."""
        return {
            name: {value: self._of(np.concatenate(parts), _spread_share) for value, parts in sorted(book.items())}
            for name, book in self._groups.items()
        }

    def right_rows(self) -> np.ndarray:
        """(rows,) bool: all that was asked of the row was right."""
        sums = np.concatenate(self._rows)
        return sums[:, _RIGHT] == sums[:, _COUNT]

    def _of(self, sums: np.ndarray, share_of: Callable[[np.ndarray, int], Share]) -> Figures:
        sums = sums[sums[:, _COUNT] > 0]
        rows, positions = len(sums), int(sums[:, _COUNT].sum())
        right, nats = share_of(sums, _RIGHT), float(sums[:, _NATS].sum() / positions)
        if self._exact:
            share = float((sums[:, _RIGHT] == sums[:, _COUNT]).mean())
            return Figures(rows, positions, right, Share(share, *wilson(share, rows)), nats)
        excess = float(sums[:, _EXCESS].sum() / positions)
        return Figures(rows, positions, right, None, nats, excess, _error(sums, _EXCESS), share_of(sums, _LEGAL))


def _by_row(rows: np.ndarray, values: np.ndarray, count: int) -> np.ndarray:
    """(count, sums): the sums over the positions of each row."""
    found = np.zeros((count, values.shape[1]))
    np.add.at(found, rows, values)
    return found


def _error(sums: np.ndarray, which: int) -> float:
    """Standard error, over rows, of the mean over positions."""
    count, rows = sums[:, _COUNT].sum(), len(sums)
    off = sums[:, which] - sums[:, which].sum() / count * sums[:, _COUNT]
    return math.sqrt(float((off**2).sum()) * rows / max(rows - 1, 1)) / float(count)


def _spread_share(sums: np.ndarray, which: int) -> Share:
    """A share of positions, with the interval of as many independent ones as would have its standard error."""
    count, error = float(sums[:, _COUNT].sum()), _error(sums, which)
    value = float(sums[:, which].sum() / count)
    trials = min(count, value * (1 - value) / error**2) if error > 0 else min(count, len(sums))
    return Share(value, *wilson(value, max(round(trials), 1)))


def _drawn_share(sums: np.ndarray, which: int) -> Share:
    """A share of positions, with the percentile interval of a bootstrap over rows."""
    rows, g, means = len(sums), np.random.default_rng(_SEED), []
    each = max(1, _MOST_NUMBERS // rows)  # draws at once
    for begin in range(0, _DRAWS, each):
        drawn = g.multinomial(rows, np.full(rows, 1 / rows), min(each, _DRAWS - begin))
        means.append((drawn @ sums[:, which]) / (drawn @ sums[:, _COUNT]))
    low, high = np.quantile(np.concatenate(means), [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Share(float(sums[:, which].sum() / sums[:, _COUNT].sum()), float(low), float(high))


def measure_batches(
    predictor: Predictor, batches: Iterable[Batch], free: bool = False, heard: Callable[[Tally], None] | None = None
) -> Tally:
    """A predictor on batches of a problem.

    Rows are read in pieces with the state carried on, so that long ones take no more memory than short ones.

    Args:
        free: the model runs on its own answers: where something is asked, its most likely symbol is the next input.
        heard: called after each batch.
    """
    tally = Tally()
    for batch in batches:
        tally.add(batch, *(_free if free else _forced)(predictor, batch))
        if heard is not None:
            heard(tally)
    return tally


def _forced(predictor: Predictor, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """(rows, time): the most likely symbol after each input, and the target's nats; zeros where nothing is asked."""
    rows, time = batch.inputs.shape
    piece = max(1, min(_MOST_PIECE, _MOST_NUMBERS // (rows * predictor.vocab_size)))
    ids, asked = torch.from_numpy(batch.inputs).to(predictor.device), torch.from_numpy(batch.weight > 0)
    targets = torch.from_numpy(batch.targets)
    best, nats = torch.zeros(rows, time, dtype=torch.int64), torch.zeros(rows, time, dtype=torch.float64)
    state = predictor.begin(rows)  # has read the start symbol
    for low in range(0, time, piece):
        part = ids[:, low + 1 : low + piece + 1]
        if low + piece >= time:  # what follows the last input matters to nobody
            part = torch.cat([part, ids[:, :1]], 1)
        here = asked[:, low : low + piece]
        if not bool(here.any()):
            state = predictor.consume(state, part)
            continue
        log_prob, state = predictor.distributions(state, part)
        found = log_prob[here.to(log_prob.device)].double().cpu()
        best[:, low : low + piece][here] = found.argmax(1)
        nats[:, low : low + piece][here] = -found.gather(1, targets[:, low : low + piece][here].unsqueeze(1))[:, 0]
    return best.numpy(), nats.numpy()


def _free(predictor: Predictor, batch: Batch) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`_forced`, with the most likely symbols in place of the answers among the inputs."""
    rows, time = batch.inputs.shape
    ids, asked = torch.from_numpy(batch.inputs), torch.from_numpy(batch.weight > 0)
    targets = torch.from_numpy(batch.targets)
    best, nats = torch.zeros(rows, time, dtype=torch.int64), torch.zeros(rows, time, dtype=torch.float64)
    state = predictor.begin(rows)
    for t in range(time):
        log_prob = predictor.predict(state).log_prob.double().cpu()
        best[:, t], nats[:, t] = log_prob.argmax(1), -log_prob.gather(1, targets[:, t : t + 1])[:, 0]
        if t + 1 < time:
            following = torch.where(asked[:, t], best[:, t], ids[:, t + 1])
            state = predictor.observe(state, following.to(predictor.device))
    return best.numpy(), nats.numpy()


def measure_points(
    model: LanguageModel | Predictor,
    problem: Problem,
    points: Sequence[Mapping[str, Any]] = ({},),
    rows: int = 1000,
    streams: RandomStreams | None = None,
    split: str = "test",
    free: bool = False,
    apart: bool = False,
    heard: Callable[[int, int], None] | None = None,
) -> list[PointResult]:
    """A model on a problem at several points.

    Args:
        model: a model, or any predictor of the problem's symbols.
        problem: the one that was learned. points: settings to change, each a mapping such as ``{"length": 512}``.
        rows: of each point. streams, split: where the rows come from; by default seed 1.
        free: run on the model's own answers (problems with ``fed``; for others it is the same).
        apart: rows are those of the split alone, see :meth:`unrolled.data.made.Problem.batch`.
        heard: called with the points and rows that are done.
    Returns:
        one result a point, in their order.
    Raises:
        UsageError: a point that the problem cannot be at.
    """
    predictor = NeuralPredictor(model, problem.start_id) if isinstance(model, LanguageModel) else model
    streams, results = streams or RandomStreams(1), []
    problems = [problem.at(**point) for point in points]  # refused before anything is computed
    for number, (point, one) in enumerate(zip(points, problems, strict=True)):
        each = max(1, min(_BATCH, rows, _MOST_NUMBERS * 8 // (one.time() * len(one.symbols))))
        sizes = [min(each, rows - begin) for begin in range(0, rows, each)]
        batches = (one.batch(streams, split, index, size, apart) for index, size in enumerate(sizes))
        done = iter(range(each, rows + each, each))

        def after(_: Tally, number: int = number, done: Any = done) -> None:
            if heard is not None:
                heard(number, min(next(done), rows))

        tally = measure_batches(predictor, batches, free and problem.fed, after)
        results.append(PointResult(dict(point), tally.figures(), tally.groups(), tally.right_rows()))
    return results


def middle_gap(results: Sequence[PointResult]) -> Share:
    """How much better the ends are than the middle: the exact share of the end fifths of the points less that of the
    middle fifth (Liu et al. 2023, arXiv:2307.03172: above 0 for a U), with a bootstrap interval over rows.

    Args:
        results: of points in their order, such as every ``position``; five at least.
    """
    fifth = len(results) // 5
    middle = (len(results) - fifth) // 2
    parts = [*results[:fifth], *results[len(results) - fifth :]], results[middle : middle + fifth]
    g, ends, inner = np.random.default_rng(_SEED), *(np.zeros(_DRAWS + 1) for _ in parts)
    for sums, part in zip((ends, inner), parts, strict=True):
        for result in part:
            rows, share = len(result.right_rows), float(result.right_rows.mean())
            sums += np.concatenate([[share], g.binomial(rows, share, _DRAWS) / rows]) / len(part)
    low, high = np.quantile((ends - inner)[1:], [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Share(float((ends - inner)[0]), float(low), float(high))
