"""Brackets: Dyck languages of bounded depth, and shuffles of them."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.core.errors import UsageError
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span, shifted

__all__ = ["Dyck", "DyckConfig"]

_END = 1


class DyckConfig(ProblemConfig):
    """Settings of bracket languages."""

    name: Literal["dyck"] = "dyck"
    kinds: int = Field(default=2, ge=1, le=1024, description="kinds of brackets k")
    depth: Span = Field(default=4, description="brackets that may be open at once, m; with shuffle: of each kind")
    length: Span = Field(default=64, description="symbols of a row")
    shuffle: bool = Field(default=False, description="kinds are closed in any order, each kind by itself")
    open: float = Field(default=0.5, gt=0, lt=1, description="probability to open a bracket where both is possible")
    end: float = Field(default=0.1, gt=0, lt=1, description="probability that a word ends where nothing is open")


class Dyck(Problem):
    """Words of Dyck-(k, m) after each other, an end symbol behind each (Hewitt et al. 2020, arXiv:2010.07515); with
    ``shuffle`` Shuffle-Dyck (Suzgun et al. 2019, arXiv:1906.03648), which counts and needs no stack.

    Where nothing is open the word ends with probability ``end``, else a bracket is opened; where some are open and more
    may be, one is opened with probability ``open``; kinds that may be taken are equally likely. Group ``depth``:
    brackets open.
    """

    Config = DyckConfig
    EXAMPLES = (
        DyckConfig(length=30),
        DyckConfig(kinds=3, depth=2, length=(20, 30), open=0.6, end=0.4),
        DyckConfig(depth=(1, 3), length=40, shuffle=True),
    )
    fed = True

    def check(self) -> None:
        """See :meth:`Problem.check`."""
        if self.longest().config.depth > 1 << 16:
            raise UsageError("dyck opens at most 65,536 brackets; lower depth.")

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, end of a word, opening brackets, closing ones."""
        kinds = range(self.config.kinds)
        return (">", ".", *(f"({i}" for i in kinds), *(f"){i}" for i in kinds))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        c, k = self.config, self.config.kinds
        text, probs = np.zeros((rows, c.length), np.int64), np.zeros((rows, c.length, 2 + 2 * k))
        depth = np.zeros((rows, c.length), np.int64)
        # what is open: of each kind how many, and, unless shuffled, in which order
        count, stack = np.zeros((rows, k), np.int64), np.full((rows, k * c.depth + 1), -1)
        each, u = np.arange(rows), g.random((rows, c.length))
        for t in range(c.length):
            total = count.sum(1)
            can_open = count < c.depth if c.shuffle else np.tile(total[:, None] < c.depth, (1, k))
            can_close = count > 0 if c.shuffle else np.arange(k) == stack[each, total][:, None]
            opens, closes, law = can_open.any(1), total > 0, probs[:, t]
            p_open = np.where(~closes, 1 - c.end, np.where(opens, c.open, 0.0))
            law[:, _END] = np.where(closes, 0.0, c.end)
            law[:, 2 : 2 + k] = can_open * (p_open / np.maximum(can_open.sum(1), 1))[:, None]
            law[:, 2 + k :] = can_close * ((1 - p_open) * closes / np.maximum(can_close.sum(1), 1))[:, None]
            sums = law.cumsum(1)
            drawn = (u[:, t, None] * sums[:, -1:] >= sums).sum(1)
            text[:, t], depth[:, t] = drawn, total
            kind, opened, closed = (drawn - 2) % k, (drawn >= 2) & (drawn < 2 + k), drawn >= 2 + k
            count[each, kind] += opened.astype(np.int64) - closed
            stack[each[opened], total[opened] + 1] = kind[opened]
        inputs, targets = shifted(text)
        return Batch(inputs, targets, np.ones(inputs.shape, np.float32), {"depth": depth}, probs, self._bound(rows))

    def _bound(self, rows: int) -> dict[str, np.ndarray]:
        return {"depth": np.full(rows, self.config.depth)}

    def answers(self, batch: Batch) -> Answers:
        """Keeps a list of what is open."""
        c, probs = self.config, np.zeros_like(batch.probs)
        for row, line in enumerate(batch.inputs.tolist()):
            most, opened = int(batch.hidden["depth"][row]), []
            for place, symbol in enumerate(line):
                name = self.symbols[symbol]
                if name[0] == "(":
                    opened.append(int(name[1:]))
                elif name[0] == ")":
                    opened.reverse()  # the last one of the kind is closed; unless shuffled it is the very last
                    assert c.shuffle or opened[0] == int(name[1:])
                    opened.remove(int(name[1:]))
                    opened.reverse()
                if c.shuffle:
                    may_open = [kind for kind in range(c.kinds) if opened.count(kind) < most]
                else:
                    may_open = list(range(c.kinds)) if len(opened) < most else []
                may_close = sorted(set(opened)) if c.shuffle else opened[-1:]
                share = 1 - c.end if not opened else c.open if may_open else 0.0
                for kind in may_open:
                    probs[row, place, self.symbols.index(f"({kind}")] = share / len(may_open)
                for kind in may_close:
                    probs[row, place, self.symbols.index(f"){kind}")] = (1 - share) / len(may_close)
                if not opened:
                    probs[row, place, _END] = c.end
        return Answers(batch.targets, np.ones_like(batch.weight), probs)

    def time(self) -> int:
        """``length`` symbols, from the first one on."""
        return self.longest().config.length

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Longer rows, and deeper ones."""
        return {"length": (64, 128, 256, 512), "depth": (4, 8)}

    def chance(self) -> float:
        """Of all symbols but the start."""
        return 1 / (len(self.symbols) - 1)

    def group_values(self) -> dict[str, Sequence[int]]:
        """From nothing to all that may be."""
        most = self.longest().config.depth * (self.config.kinds if self.config.shuffle else 1)
        return {"depth": range(most + 1)}
