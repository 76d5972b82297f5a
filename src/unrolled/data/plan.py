"""The plan of an epoch: where its windows end, where each column begins, in which order sentences come."""

from typing import Literal, NamedTuple, Protocol

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams

__all__ = ["EpochPlan", "Planner", "StreamConfig", "TokenSource"]

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

    columns: int = Field(default=20, ge=1, description="parallel streams, the batch size, of all processes together")
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
    carry: bool = Field(
        default=True,
        description="carry the state from window to window; false: each window begins with the initial state",
    )
    order: Literal["corpus", "shuffled"] = Field(
        default="corpus",
        description="sentences or documents in the order of the corpus, or in a new random order each epoch",
    )


class EpochPlan(NamedTuple):
    """The plan of one epoch: window borders within a column, where each column begins, order of sentences."""

    borders: np.ndarray
    begins: np.ndarray
    order: np.ndarray | None
    ends: np.ndarray | None


class Planner:
    """Plans of epochs, each made from its number alone.

    Args:
        split: tokens. config: see :class:`StreamConfig`. streams: source of all draws. columns: of all processes.
        start_id: the end symbol, at which lines end.
    """

    def __init__(self, split: TokenSource, config: StreamConfig, streams: RandomStreams, columns: int, start_id: int):
        self._split, self._config, self._streams = split, config, streams
        self._columns, self._length, self._start_id = columns, len(split) // columns, start_id

    def plan(self, epoch: int) -> EpochPlan:
        """Everything about an epoch."""
        return EpochPlan(self.borders(epoch), self._begins(epoch), *self._order(epoch))

    def restart(self, epoch: int, index: int) -> Tensor | None:
        """(columns,) bool, columns whose state is dropped at the beginning of a window; None where none can be."""
        if not self._config.state_drop:
            return None
        drawn = torch.rand(self._columns, generator=self._streams.generator("state_drop", epoch, index))
        return drawn < self._config.state_drop

    def borders(self, epoch: int) -> np.ndarray:
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
        """Position of each column in the epoch's order."""
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
