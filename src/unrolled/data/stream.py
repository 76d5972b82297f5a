"""Streams of training windows: parallel columns over a split, resumable at any window."""

from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams

__all__ = ["Stream", "StreamConfig", "TokenSource", "Window"]

_DRAWS = 4096
_SHORTEST = 5


class TokenSource(Protocol):
    """What a stream reads: ids by position, and where sentences or documents begin."""

    @property
    def starts(self) -> np.ndarray | None:
        """Ascending positions, or None for one uninterrupted text."""
        ...

    def __len__(self) -> int: ...

    def ids(self, start: int, stop: int) -> np.ndarray:
        """Ids start..stop-1, int64."""
        ...


class StreamConfig(Config):
    """How a split is cut into windows."""

    columns: int = Field(default=20, ge=1, description="parallel streams, the batch size; per process")
    window: int = Field(default=70, ge=1, description="tokens per window")
    variable_windows: bool = Field(
        default=False,
        description="AWD-LSTM: window lengths vary: base = window, or window / 2 with probability 0.05; "
        "then a normal draw with mean base and deviation 5 tokens, at least 5",
    )
    window_cap: int | None = Field(default=None, ge=1, description="longest variable window in tokens; default: no cap")
    random_offset: bool = Field(
        default=False,
        description="each epoch begins at a random position and runs around the text in a circle",
    )
    jitter: int = Field(
        default=0, ge=0, description="each epoch the start of each column moves by up to this many tokens"
    )
    align: Literal["token", "line"] = Field(
        default="token",
        description="where columns begin: at any token, or right after the next end of a line (Mogrifier), so that "
        "their first input is the end symbol",
    )
    state_drop: float = Field(
        default=0.0,
        ge=0,
        lt=1,
        description="chance that a column's state restarts at the beginning of a window (Mogrifier: 0.01)",
    )
    order: Literal["corpus", "shuffled"] = Field(
        default="corpus",
        description="sentences or documents in the order of the corpus, or in a new random order each epoch",
    )


class Window(NamedTuple):
    """One window of every column.

    inputs, targets: (columns, time) int64. reset: (columns, time) bool, true where the state restarts before
    the input is consumed, or None. weight: (columns, time) float32, 0 where a position does not count, or
    None.
    epoch, index: where the window stands. carried: false where the state restarts in every column because an
    epoch begins. restart: (columns,) bool, columns whose state restarts at the beginning of this window, or None.
    """

    inputs: Tensor
    targets: Tensor
    reset: Tensor | None
    weight: Tensor | None
    epoch: int
    index: int  # type: ignore[assignment]  # hides tuple.index, which nobody needs here
    carried: bool
    restart: Tensor | None = None


class _Epoch(NamedTuple):
    """The plan of one epoch: window borders within a column, where each column begins, order of sentences."""

    borders: np.ndarray
    begins: np.ndarray
    order: np.ndarray | None
    ends: np.ndarray | None


class Stream:
    """Windows of a split, epoch after epoch without end.

    Column b of B covers the b-th of B equal stretches of the split; the tail that does not divide is left
    out. Every other token is a target once an epoch (with ``jitter``: nearly). The input of a target is the
    token before it, and ``start_id`` where the text, a sentence or a document begins; there ``reset`` is
    true if the split has ``starts``. Any window is made directly from its epoch and index.

    Args:
        split: tokens.
        config: see :class:`StreamConfig`.
        streams: source of all random draws; its rank selects this process's columns.
        start_id: id fed before the first token.
        world: number of processes that share the split.
        short: accept a split of less than one window per column (for evaluation).
    Raises:
        UsageError: the split is too short, or cannot be shuffled.
    """

    def __init__(
        self,
        split: TokenSource,
        config: StreamConfig,
        streams: RandomStreams,
        start_id: int,
        world: int = 1,
        short: bool = False,
    ):
        self._split = split
        self._config = config
        self._rank = streams.rank
        # All processes must agree on offsets and orders.
        self._streams = RandomStreams(streams.seed)
        self._start_id = start_id
        self._columns = config.columns * world
        self._length = len(split) // self._columns
        self._plans: dict[int, _Epoch] = {}
        self._counts: list[int] = []
        self._next = (0, 0)
        self._check(short)

    def _check(self, short: bool) -> None:
        total, config = len(self._split), self._config
        if not self._length:
            raise UsageError(
                f"{self._columns} columns are more than the text's {total} tokens; use fewer columns or more text."
            )
        if self._length < config.window and not short:
            raise UsageError(
                f"the text has {total} tokens, less than one window of {config.window} for each of "
                f"{self._columns} columns; use fewer columns, a shorter window or more text."
            )
        if config.order == "shuffled" and self._split.starts is None:
            raise UsageError("order=shuffled needs sentences or documents; set corpus.reset to line or document.")

    def windows_per_epoch(self, epoch: int = 0) -> int:
        """Windows of an epoch; the same every epoch unless windows are variable."""
        return len(self._plan(epoch).borders) - 1

    def tokens_per_epoch(self) -> int:
        """Targets of an epoch in this process's columns."""
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
            self._counts.append(len(self._borders(len(self._counts))) - 1)
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
        low, high = int(plan.borders[index]), int(plan.borders[index + 1])
        rows = [self._row(plan, int(begin) + low, high - low) for begin in plan.begins]
        inputs, targets, reset = (np.stack(part) for part in zip(*rows, strict=True))
        return Window(
            torch.from_numpy(inputs),
            torch.from_numpy(targets),
            torch.from_numpy(reset) if self._split.starts is not None else None,
            None,
            epoch,
            index,
            index > 0,
            self._restart(epoch, index),
        )

    @property
    def config(self) -> StreamConfig:
        """How the split is cut into windows."""
        return self._config

    def _restart(self, epoch: int, index: int) -> Tensor | None:
        """This process's columns whose state is dropped; None where there is none."""
        if not self._config.state_drop:
            return None
        drawn = torch.rand(self._columns, generator=self._streams.generator("state_drop", epoch, index))
        own = drawn[self._rank * self._config.columns :][: self._config.columns] < self._config.state_drop
        return own if bool(own.any()) else None

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

    def _plan(self, epoch: int) -> _Epoch:
        if epoch not in self._plans:
            self._plans = {epoch: _Epoch(self._borders(epoch), self._begins(epoch), *self._order(epoch))}
        return self._plans[epoch]

    def _borders(self, epoch: int) -> np.ndarray:
        """Window borders within a column, 0 first and the column's length last."""
        window, length = self._config.window, self._length
        if not self._config.variable_windows:
            return np.append(np.arange(0, length, window), length)
        generator = self._streams.generator("windows", epoch)
        ends, total = [np.zeros(1, np.int64)], 0
        while total < length:
            halved = torch.rand(_DRAWS, generator=generator).numpy() >= 0.95
            base = np.where(halved, window / 2, float(window))
            drawn = base + 5 * torch.randn(_DRAWS, generator=generator, dtype=torch.float64).numpy()
            sizes = np.maximum(_SHORTEST, np.trunc(drawn).astype(np.int64))
            if self._config.window_cap is not None:
                sizes = np.minimum(sizes, self._config.window_cap)
            ends.append(total + np.cumsum(sizes))
            total = int(ends[-1][-1])
        borders = np.concatenate(ends)
        return np.append(borders[borders < length], length)

    def _begins(self, epoch: int) -> np.ndarray:
        """Position of each of this process's columns in the epoch's order."""
        config, total = self._config, len(self._split)
        begins = np.arange(self._columns) * self._length
        if config.jitter:
            generator = self._streams.generator("jitter", epoch)
            moves = torch.randint(-config.jitter, config.jitter + 1, (self._columns,), generator=generator)
            begins = begins + moves.numpy()
        if config.random_offset:
            offset = torch.randint(total, (1,), generator=self._streams.generator("offset", epoch))
            begins = (begins + offset.numpy()) % total
        else:
            begins = np.clip(begins, 0, total - self._length)
        begins = begins[self._rank * config.columns :][: config.columns]
        return begins if config.align == "token" else np.array([self._line_start(int(begin)) for begin in begins])

    def _line_start(self, position: int) -> int:
        """The first position at or after this one, around the text, that follows an end symbol."""
        if position == 0:
            return 0
        total = len(self._split)
        low = position - 1
        for _ in range(2):
            while low < total:
                found = np.flatnonzero(self._split.ids(low, min(low + _DRAWS, total)) == self._start_id)
                if len(found):
                    return (low + int(found[0]) + 1) % total
                low += _DRAWS
            low = 0
        raise UsageError("stream.align=line needs a text with lines; set it to token.")

    def _order(self, epoch: int) -> tuple[np.ndarray | None, np.ndarray | None]:
        """Sentences in the epoch's order, and the positions in that order at which they end."""
        starts = self._split.starts
        if self._config.order == "corpus" or starts is None:
            return None, None
        order = torch.randperm(len(starts), generator=self._streams.generator("order", epoch)).numpy()
        sizes = np.diff(starts, append=len(self._split))
        return order, np.cumsum(sizes[order])

    def _row(self, plan: _Epoch, begin: int, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs, targets and resets of ``count`` targets from position ``begin`` of the epoch's order."""
        parts = list(self._ranges(plan, begin, count))
        rows = [self._range(low, high) for low, high in parts]
        if len(rows) == 1:
            return rows[0]
        inputs, targets, reset = (np.concatenate(part) for part in zip(*rows, strict=True))
        return inputs, targets, reset

    def _ranges(self, plan: _Epoch, begin: int, count: int) -> Iterator[tuple[int, int]]:
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

    def _range(self, low: int, high: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Inputs, targets and resets of the tokens low..high-1."""
        ids = self._split.ids(max(low - 1, 0), high)
        if low == 0:
            ids = np.concatenate([np.array([self._start_id]), ids])
        inputs, targets, reset = ids[:-1].copy(), ids[1:], np.zeros(high - low, bool)
        starts = self._split.starts
        if starts is not None:
            first, last = np.searchsorted(starts, [low, high])
            reset[starts[first:last] - low] = True
            inputs[reset] = self._start_id
        return inputs, targets, reset
