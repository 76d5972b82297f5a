"""Multi-query associative recall."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.core.errors import UsageError
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span

__all__ = ["MultiQuery", "MultiQueryConfig"]

_BLANK = 1


class MultiQueryConfig(ProblemConfig):
    """Settings of multi-query associative recall."""

    name: Literal["mqar"] = "mqar"
    vocab: int = Field(default=64, ge=4, le=65536, multiple_of=2, description="symbols: half of them keys, half values")
    length: Span = Field(default=64, description="symbols of a row: pairs, then queries")
    pairs: int = Field(default=8, ge=1, le=32768, description="pairs of a key and its value, each asked for once")
    power: float = Field(
        default=0.01, gt=0, le=100, description="exponent a of the law g^(a-1) by which the place g of a query is drawn"
    )
    passes: int = Field(default=1, ge=1, le=1000, description="how often the pairs are shown")
    filler: bool = Field(default=False, description="fill the places without a query with keys that no pair has")


class MultiQuery(Problem):
    """Pairs of a key and a value are shown, then each key is asked for once, somewhere in what follows; the answer is
    due at the key (Arora et al. 2023, arXiv:2312.04927).

    Behind the pairs come slots of two symbols, numbered g = 1, 2, ...; the slots of the queries are drawn one after the
    other without replacement, with p(g) in proportion to a g^(a-1), and a query takes the first place of its slot.
    Other places are blank. The published generator fills them, where asked to, with any symbols, keys among them that
    are then not asked for; here with keys that the row does not use. Group ``gap``: symbols from where the pair was
    last shown.
    """

    Config = MultiQueryConfig
    EXAMPLES = (
        MultiQueryConfig(vocab=16, length=24, pairs=4),
        MultiQueryConfig(vocab=32, length=(20, 24), pairs=2, power=1.0, passes=2, filler=True),
    )

    def check(self) -> None:
        """See :meth:`Problem.check`."""
        c = self.config
        least = self.shortest().config.length
        if c.pairs > c.vocab // 2 - c.filler:
            raise UsageError(f"mqar has {c.vocab // 2} keys, too few for {c.pairs} pairs; raise vocab.")
        if (least - 2 * c.pairs * c.passes) // 2 < c.pairs:
            raise UsageError(
                f"mqar shows {c.pairs} pairs {c.passes} times and asks for each: a row needs at least "
                f"{2 * c.pairs * (c.passes + 1)} symbols; raise length."
            )

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, blank, keys, values."""
        half = range(self.config.vocab // 2)
        return (">", "_", *(f"k{i}" for i in half), *(f"v{i}" for i in half))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        c, half = self.config, self.config.vocab // 2
        shuffled = np.argsort(g.random((rows, half)), 1)
        keys, values = 2 + shuffled[:, : c.pairs], 2 + half + g.integers(0, half, (rows, c.pairs))
        shown = np.tile(np.stack([keys, values], 2).reshape(rows, -1), (1, c.passes))
        begin = 1 + shown.shape[1]
        slots = (c.length + 1 - begin) // 2
        # drawing without replacement by weights is sorting by noise (Gumbel) added to their logarithms
        law = (c.power - 1) * np.log(np.arange(1, slots + 1)) - np.log(-np.log(g.random((rows, slots))))
        at = begin + 2 * np.argsort(-law, 1)[:, : c.pairs]
        inputs = np.full((rows, c.length + 1), _BLANK)
        inputs[:, 0], inputs[:, 1:begin] = 0, shown
        if c.filler:
            other = g.integers(c.pairs, half, (rows, c.length + 1 - begin))
            inputs[:, begin:] = 2 + np.take_along_axis(shuffled, other, 1)
        np.put_along_axis(inputs, at, keys, 1)
        targets, weight, gap = np.zeros_like(inputs), np.zeros(inputs.shape, np.float32), np.full(inputs.shape, -1)
        np.put_along_axis(targets, at, values, 1)
        np.put_along_axis(weight, at, np.float32(1), 1)
        np.put_along_axis(gap, at, at - (begin - 2 * c.pairs + 2 * np.arange(c.pairs)), 1)
        return Batch(inputs, targets, weight, {"gap": gap})

    def answers(self, batch: Batch) -> Answers:
        """Looks keys up in a dictionary."""
        shown, half = 2 * self.config.pairs * self.config.passes, self.config.vocab // 2
        targets, weight = np.zeros_like(batch.inputs), np.zeros_like(batch.weight)
        for row, line in enumerate(batch.inputs.tolist()):
            book = dict(zip(line[1 : shown + 1 : 2], line[2 : shown + 1 : 2], strict=True))
            assert all(2 <= key < 2 + half <= value for key, value in book.items())
            for place in range(shown + 1, len(line)):
                if line[place] in book:
                    targets[row, place], weight[row, place] = book[line[place]], 1
        return Answers(targets, weight)

    def time(self) -> int:
        """The start symbol and ``length`` symbols."""
        return self.longest().config.length + 1

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Longer rows."""
        return {"length": (64, 128, 256, 512)}

    def chance(self) -> float:
        """Of the values that are shown."""
        return 1 / self.config.pairs

    def group_values(self) -> dict[str, Sequence[int]]:
        """From the last pair shown to the first slot, up to the first pair and the last slot."""
        c = self.longest().config
        slots = (c.length - 2 * c.pairs * c.passes) // 2
        return {"gap": range(2, 2 * c.pairs + 2 * slots, 2)}
