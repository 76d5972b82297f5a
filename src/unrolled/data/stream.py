"""Streams of training windows: parallel columns over a split, resumable at any window."""

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.plan import EpochPlan, Planner, StreamConfig, TokenSource

__all__ = ["Stream", "StreamConfig", "TokenSource", "Window"]

# Windows that are read from the split together: a read of few tokens costs as much as one of many.
_GROUP = 16


class Window(NamedTuple):
    """One window of every column.

    inputs, targets: (columns, time) int64. reset: (columns, time) bool, true where the state restarts before
    the input is consumed, or None. weight: (columns, time) float32, 0 where a position does not count, or
    None.
    epoch, index: where the window stands. carried: false where the state restarts in every column, because an
    epoch begins or the config carries none. restart: (columns,) bool, columns whose state restarts at the beginning
    of this window, or None. period: (columns, time) int64, the slice in time of each target; None for a text without
    dates.
    """

    inputs: Tensor
    targets: Tensor
    reset: Tensor | None
    weight: Tensor | None
    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    carried: bool
    restart: Tensor | None = None
    period: Tensor | None = None


class Stream:
    """Windows of a split, epoch after epoch without end.

    Column b of B covers the b-th of B equal stretches of the split; the tail that does not divide is left
    out. Every other token is a target once an epoch (with ``jitter``: nearly). The input of a target is the
    token before it, and ``start_id`` where the text, a sentence or a document begins; there ``reset`` is
    true if the split has ``starts``. Any window is made directly from its epoch and index.

    Args:
        split: tokens.
        config: see :class:`StreamConfig`.
        streams: source of all random draws.
        start_id: id fed before the first token.
        own: the columns that are made here; absent: all. Lengths and counts are of all in any case.
        short: accept a split of less than one window per column (for evaluation).
    Raises:
        UsageError: the split is too short, or cannot be shuffled.
    """

    unit = "tokens"

    def __init__(
        self,
        split: TokenSource,
        config: StreamConfig,
        streams: RandomStreams,
        start_id: int,
        own: range | None = None,
        short: bool = False,
    ):
        self._split = split
        self._periods: np.ndarray | None = getattr(split, "periods", None)  # of texts with dates alone
        self._config = config
        self._start_id = start_id
        self._columns = config.columns
        self._length = len(split) // self._columns
        self._own = slice(0, self._columns) if own is None else slice(own.start, own.stop)
        # offsets and orders are the run's, whoever makes a column
        self._planner = Planner(split, config, RandomStreams(streams.seed), self._columns, start_id)
        self._plans: dict[int, EpochPlan] = {}
        self._counts: list[int] = []
        self._next = (0, 0)
        self._rows: list[np.ndarray] = []
        self._read = (-1, -1)
        self._check(short)

    def _check(self, short: bool) -> None:
        total, config = len(self._split), self._config
        if not self._length:
            raise UsageError(
                f"{self._columns} columns are more than the text's {total} {self.unit}; use fewer columns or more text."
            )
        if self._length < config.window and not short:
            raise UsageError(
                f"the text has {total} {self.unit}, less than one window of {config.window} for each of "
                f"{self._columns} columns; use fewer columns, a shorter window or more text."
            )
        if config.order == "shuffled" and self._split.starts is None:
            raise UsageError("order=shuffled needs sentences or documents; set corpus.reset to line or document.")

    def windows_per_epoch(self, epoch: int = 0) -> int:
        """Windows of an epoch; the same every epoch unless windows are variable."""
        return len(self._plan(epoch).borders) - 1

    def tokens_per_epoch(self) -> int:
        """Targets of an epoch in all columns."""
        return self._length * self._config.columns

    def locate(self, position: int) -> tuple[int, int]:
        """(epoch, index) of the window with this number, counted from the start of training."""
        if not self._config.variable_windows:
            return divmod(position, self.windows_per_epoch())
        epoch = 0
        while True:
            if position < self._count(epoch):
                return epoch, position
            position -= self._count(epoch)
            epoch += 1

    def _count(self, epoch: int) -> int:
        """Windows of an epoch, remembered for every epoch, unlike the plan."""
        while len(self._counts) <= epoch:
            self._counts.append(len(self._planner.borders(len(self._counts))) - 1)
        return self._counts[epoch]

    def position(self, epoch: int, index: int) -> int:
        """Number of a window, counted from the start of training: the inverse of :meth:`locate`."""
        if not self._config.variable_windows:
            return epoch * self.windows_per_epoch() + index
        return sum(self._count(earlier) for earlier in range(epoch)) + index

    def at(self, position: int) -> Window:
        """The window with this number, counted from the start of training."""
        return self.window(*self.locate(position))

    def window(self, epoch: int, index: int) -> Window:
        """Window ``index`` of ``epoch``, both from 0. Raises UsageError beyond the epoch's last window."""
        plan = self._plan(epoch)
        if not 0 <= index < len(plan.borders) - 1:
            raise UsageError(f"epoch {epoch} has {len(plan.borders) - 1} windows; there is no window {index}.")
        group, place = divmod(index, _GROUP)
        borders = plan.borders[group * _GROUP : (group + 1) * _GROUP + 1]
        if (epoch, group) != self._read:
            self._rows, self._read = self._columns_of(plan, int(borders[0]), int(borders[-1])), (epoch, group)
        part = slice(int(borders[place] - borders[0]), int(borders[place + 1] - borders[0]))
        inputs, targets, reset, *period = (np.ascontiguousarray(one[:, part]) for one in self._rows)
        return Window(
            torch.from_numpy(inputs),
            torch.from_numpy(targets),
            torch.from_numpy(reset) if self._split.starts is not None else None,
            None,
            epoch,
            index,
            index > 0 and self._config.carry,
            self._restart(epoch, index),
            torch.from_numpy(period[0]) if period else None,
        )

    @property
    def config(self) -> StreamConfig:
        """How the split is cut into windows."""
        return self._config

    @property
    def full_batch(self) -> int:
        """Targets of a window of full length in all columns."""
        return self._config.columns * self._config.window

    def _restart(self, epoch: int, index: int) -> Tensor | None:
        """The columns here whose state is dropped; None where there is none."""
        drawn = self._planner.restart(epoch, index)
        own = None if drawn is None else drawn[self._own]
        return own if own is not None and bool(own.any()) else None

    def __iter__(self) -> Iterator[Window]:
        return self

    def __next__(self) -> Window:
        epoch, index = self._next
        window = self.window(epoch, index)
        self._next = (epoch, index + 1) if index + 1 < self.windows_per_epoch(epoch) else (epoch + 1, 0)
        return window

    def state(self) -> dict[str, int]:
        """Where the next window stands, as JSON values."""
        return {"epoch": self._next[0], "index": self._next[1]}

    def seek(self, state: Mapping[str, Any]) -> None:
        """Continue at a place that :meth:`state` gave."""
        self._next = (int(state["epoch"]), int(state["index"]))

    def _plan(self, epoch: int) -> EpochPlan:
        if epoch not in self._plans:
            plan = self._planner.plan(epoch)
            self._plans = {epoch: plan._replace(begins=plan.begins[self._own])}
        return self._plans[epoch]

    def _columns_of(self, plan: EpochPlan, low: int, high: int) -> list[np.ndarray]:
        """Inputs, targets, resets and, where there are slices in time, periods of low..high-1 of every column."""
        rows = [self._row(plan, int(begin) + low, high - low) for begin in plan.begins]
        return [np.stack(part) for part in zip(*rows, strict=True)]

    def _row(self, plan: EpochPlan, begin: int, count: int) -> tuple[np.ndarray, ...]:
        """The same of ``count`` targets from position ``begin`` of the epoch's order."""
        parts = list(self._ranges(plan, begin, count))
        rows = [self._range(low, high) for low, high in parts]
        if len(rows) == 1:
            return rows[0]
        return tuple(np.concatenate(part) for part in zip(*rows, strict=True))

    def _ranges(self, plan: EpochPlan, begin: int, count: int) -> Iterator[tuple[int, int]]:
        """The stretches of the split that make up a stretch of the epoch's order."""
        total = len(self._split)
        begin %= total
        while count > 0:
            low, high = begin, min(begin + count, total)
            if plan.order is not None and plan.ends is not None and self._split.starts is not None:
                place = int(np.searchsorted(plan.ends, begin, side="right"))
                sentence = int(plan.order[place])
                first, size = int(self._split.starts[sentence]), self._size(sentence)
                low = first + begin - (int(plan.ends[place]) - size)
                high = min(first + size, low + count)
            yield low, high
            count -= high - low
            begin = (begin + high - low) % total

    def _size(self, sentence: int) -> int:
        starts = self._split.starts
        assert starts is not None
        end = int(starts[sentence + 1]) if sentence + 1 < len(starts) else len(self._split)
        return end - int(starts[sentence])

    def _range(self, low: int, high: int) -> tuple[np.ndarray, ...]:
        """The same of the tokens low..high-1."""
        ids = self._between(low, high)
        inputs, targets, reset = ids[:-1].copy(), ids[1:], np.zeros(high - low, bool)
        starts = self._split.starts
        if starts is not None:
            first, last = np.searchsorted(starts, [low, high])
            reset[starts[first:last] - low] = True
            inputs[reset] = self._start_id
        if starts is not None and self._periods is not None:
            places = np.searchsorted(starts, np.arange(low, high), side="right") - 1
            return inputs, targets, reset, self._periods[places]
        return inputs, targets, reset

    def _between(self, low: int, high: int) -> np.ndarray:
        """Ids low-1..high-1; ``start_id`` comes before the first."""
        ids = self._split.ids(max(low - 1, 0), high)
        return ids if low else np.concatenate([np.array([self._start_id]), ids])
