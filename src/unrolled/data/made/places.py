"""One thing to find again, at every place of a context."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.core.errors import UsageError
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span, shifted

__all__ = ["KeyPosition", "KeyPositionConfig", "Passkey", "PasskeyConfig"]

_CUE, _MARK = 1, 2


class KeyPositionConfig(ProblemConfig):
    """Settings of the lookup of one key."""

    name: Literal["kv_position"] = "kv_position"
    vocab: int = Field(default=64, ge=4, le=65536, multiple_of=2, description="symbols: half of them keys, half values")
    pairs: Span = Field(default=16, description="pairs of a key and its value")
    position: int | None = Field(
        default=None, ge=0, le=1 << 20, description="place of the pair that is asked for, from 0 (absent: any)"
    )


class KeyPosition(Problem):
    """Pairs of a key and its value, then one of the keys: its value is due (Liu et al. 2023, arXiv:2307.03172, with
    symbols in the place of identifiers of 36 characters). Group ``position``: place of the pair that is asked for.
    """

    Config = KeyPositionConfig
    EXAMPLES = (
        KeyPositionConfig(vocab=12, pairs=5),
        KeyPositionConfig(vocab=12, pairs=(3, 6), position=2),
    )

    def check(self) -> None:
        """See :meth:`Problem.check`."""
        most, least, place = self.longest().config.pairs, self.shortest().config.pairs, self.config.position
        if most > self.config.vocab // 2:
            raise UsageError(f"kv_position has {self.config.vocab // 2} keys, too few for {most} pairs; raise vocab.")
        if place is not None and place >= least:
            raise UsageError(f"kv_position has {least} pairs, so there is no position {place}; lower it.")

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, cue, keys, values."""
        half = range(self.config.vocab // 2)
        return (">", "?", *(f"k{i}" for i in half), *(f"v{i}" for i in half))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        c, half, each = self.config, self.config.vocab // 2, np.arange(rows)
        keys = 2 + np.argsort(g.random((rows, half)), 1)[:, : c.pairs]
        values = 2 + half + g.integers(0, half, (rows, c.pairs))
        place = g.integers(0, c.pairs, rows) if c.position is None else np.full(rows, c.position)
        inputs = np.zeros((rows, 2 * c.pairs + 3), np.int64)
        inputs[:, 1:-2:2], inputs[:, 2:-2:2], inputs[:, -2], inputs[:, -1] = keys, values, _CUE, keys[each, place]
        targets, weight, position = np.zeros_like(inputs), np.zeros(inputs.shape, np.float32), np.full(inputs.shape, -1)
        targets[:, -1], weight[:, -1], position[:, -1] = values[each, place], 1, place
        return Batch(inputs, targets, weight, {"position": position})

    def answers(self, batch: Batch) -> Answers:
        """Looks the key up in the list."""
        targets, weight = np.zeros_like(batch.inputs), np.zeros_like(batch.weight)
        for row, line in enumerate(batch.inputs.tolist()):
            cue = line.index(_CUE)
            targets[row, cue + 1], weight[row, cue + 1] = line[line.index(line[cue + 1]) + 1], 1
        return Answers(targets, weight)

    def time(self) -> int:
        """The start symbol, pairs, cue and key."""
        return 2 * self.longest().config.pairs + 3

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Every place of the pairs that there are."""
        return {"position": tuple(range(self.shortest().config.pairs))}

    def chance(self) -> float:
        """Of the values that are shown."""
        return 1 / self.longest().config.pairs

    def group_values(self) -> dict[str, Sequence[int]]:
        """Every place, or the one that is chosen."""
        place = self.config.position
        return {"position": range(self.longest().config.pairs) if place is None else [place]}


class PasskeyConfig(ProblemConfig):
    """Settings of the passkey."""

    name: Literal["passkey"] = "passkey"
    length: Span = Field(default=128, description="symbols of a row up to the answer, the question among them")
    digits: int = Field(default=5, ge=1, le=64, description="digits of the passkey")
    depth: float | None = Field(
        default=None, ge=0, le=1, description="where it stands, as a share of the filler before it (absent: anywhere)"
    )
    filler: int = Field(default=8, ge=1, le=4096, description="symbols that the filler repeats in their order")


class Passkey(Problem):
    """A number in the middle of filler, asked for at the end (Mohtashami and Jaggi 2023, arXiv:2305.16300). The filler
    is one sentence, repeated. Group ``depth``: tenth of the filler, 0 to 9, behind which the passkey stands.
    """

    Config = PasskeyConfig
    EXAMPLES = (PasskeyConfig(length=32, digits=3), PasskeyConfig(length=(20, 24), digits=2, depth=0.5, filler=3))
    fed = True

    def check(self) -> None:
        """See :meth:`Problem.check`."""
        if (least := self.shortest().config.length) < self.config.digits + 3:
            raise UsageError(f"a passkey of {self.config.digits} digits needs longer rows than {least}; raise length.")

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, question, mark before the passkey, digits, filler."""
        return (">", "?", "#", *map(str, range(10)), *(f"w{i}" for i in range(self.config.filler)))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        c = self.config
        filler = c.length - c.digits - 2
        key = 3 + g.integers(0, 10, (rows, c.digits))
        at = g.integers(0, filler + 1, rows) if c.depth is None else np.full(rows, round(c.depth * filler))
        sentence = 13 + np.arange(filler) % c.filler
        text = np.array(
            [[*sentence[:n], _MARK, *one, *sentence[n:], _CUE, *one] for n, one in zip(at, key, strict=True)]
        )
        inputs, targets = shifted(text)
        asked = np.arange(inputs.shape[1]) >= c.length
        weight = np.tile(asked.astype(np.float32), (rows, 1))
        depth = np.where(asked, np.minimum(10 * at // max(filler, 1), 9)[:, None], -1)
        return Batch(inputs, targets, weight, {"depth": depth})

    def answers(self, batch: Batch) -> Answers:
        """Finds the mark."""
        targets, weight = np.zeros_like(batch.inputs), np.zeros_like(batch.weight)
        for row, line in enumerate(batch.inputs.tolist()):
            begin, cue = line.index(_MARK) + 1, line.index(_CUE)
            key = []
            while 3 <= line[begin + len(key)] < 13 and len(key) < self.config.digits:
                key.append(line[begin + len(key)])
            targets[row, cue : cue + len(key)], weight[row, cue : cue + len(key)] = key, 1
        return Answers(targets, weight)

    def time(self) -> int:
        """``length`` and the answer."""
        return self.longest().config.length + self.config.digits

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Longer rows, every depth."""
        return {"length": (128, 256, 512, 1024), "depth": (0.0, 0.25, 0.5, 0.75, 1.0)}

    def chance(self) -> float:
        """Of the digits."""
        return 0.1

    def group_values(self) -> dict[str, Sequence[int]]:
        """Every tenth, or that of the chosen depth."""
        c = self.longest().config
        filler = c.length - c.digits - 2
        if c.depth is None:
            return {"depth": sorted({min(10 * n // max(filler, 1), 9) for n in range(filler + 1)})}
        least = self.shortest().config.length - c.digits - 2
        return {"depth": sorted({min(10 * round(c.depth * n) // max(n, 1), 9) for n in range(least, filler + 1)})}
