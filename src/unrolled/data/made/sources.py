"""Sources that switch or hide their state, with the exact probability of every symbol."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.made import predictors
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span, shifted

__all__ = ["Sources", "SourcesConfig"]

_FIRST = 1
_FARTHEST = 12


class SourcesConfig(ProblemConfig):
    """Settings of sources with exact predictors."""

    name: Literal["sources"] = "sources"
    kind: Literal["constant", "lad", "ptw", "hmm"] = Field(
        default="constant",
        description="switches with a constant hazard, with hazard 1/2 over the symbols of the segment so far, or by "
        "binary partitions of time; or a hidden Markov source",
    )
    hazard: float = Field(
        default=1 / 32, gt=0, lt=1, description="of constant: probability of a switch before a symbol"
    )
    depth: int = Field(default=9, ge=1, le=14, description="of ptw: partitions are those of 2^depth symbols")
    states: int = Field(default=4, ge=1, le=256, description="of hmm: hidden states")
    alphabet: int = Field(default=2, ge=2, le=1024, description="symbols")
    length: Span = Field(default=128, description="symbols of a row")
    book: int = Field(default=0, ge=0, description="of hmm: seed of its probabilities, which are those of all rows")


class Sources(Problem):
    r"""Symbols of a source with parameters that change, or that are hidden; ``probs`` are the exact predictions of a
    reader that knows how such sources are made (Genewein et al. 2023, arXiv:2302.03067).

    Within a segment symbols are independent, with probabilities drawn from Dirichlet(1/2), so that one segment is
    predicted as Krichevsky and Trofimov (1981) do. A switch comes before a symbol with a ``constant`` hazard; or with
    1/2 over the number of symbols of its segment so far (live and die, Willems and Krom 1997); or segments are
    drawn by partition tree weighting (Veness et al. 2013): a stretch of 2^d symbols is one segment with probability
    1/2, or else its halves are drawn so, down to single symbols. The first two are predicted by run lengths r with
    weights w (Adams and MacKay 2007):

    .. math::
        w'_{r+1} = w_r (1 - H(r)), \quad w'_0 = \sum_r w_r H(r), \quad
        p(s) = \sum_r w_r \frac{n_r^s + 1/2}{n_r + k/2}

    ``hmm``: a hidden Markov source with fixed probabilities, predicted by the forward algorithm. Groups, each the
    exponent of the power of two not above it, at most 12: ``position`` in the row, from 1; ``age``, symbols of the
    segment so far and one.
    """

    Config = SourcesConfig
    EXAMPLES = (
        SourcesConfig(length=16, hazard=0.15),
        SourcesConfig(length=(9, 14), hazard=0.1, alphabet=3),
        SourcesConfig(kind="lad", length=16),
        SourcesConfig(kind="ptw", length=13, depth=4),
        SourcesConfig(kind="hmm", length=12, states=3, alphabet=4, book=2),
    )
    fed = True
    fixed = ("book",)

    def check(self) -> None:
        """See :meth:`Problem.check`."""
        c = self.config
        if c.kind == "ptw" and self.longest().config.length > 1 << c.depth:
            raise UsageError(f"partitions of depth {c.depth} have {1 << c.depth:,} symbols; raise depth.")

    def hmm(self) -> tuple[np.ndarray, np.ndarray]:
        """(states, states) transitions and (states, alphabet) emissions; the first state is uniform."""
        c = self.config
        g = np.random.Generator(np.random.PCG64(RandomStreams(c.book).key("made source")))
        return g.dirichlet(np.full(c.states, 0.5), c.states), g.dirichlet(np.full(c.alphabet, 0.5), c.states)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, and those of the source."""
        return (">", *map(str, range(self.config.alphabet)))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        c = self.config
        position = np.tile(np.log2(np.arange(1, c.length + 1)).astype(np.int64), (rows, 1))
        groups = {"position": np.minimum(position, _FARTHEST)}
        if c.kind == "hmm":
            x = self._hidden(g, rows)
            probs = predictors.forward(x, *self.hmm())
        else:
            begins = self._partition(g, rows) if c.kind == "ptw" else self._switches(g, rows)
            x = self._segments(g, begins)
            last = np.maximum.accumulate(np.where(begins, np.arange(c.length), 0), 1)
            age = np.log2(np.arange(c.length) - last + 1).astype(np.int64)
            groups["age"] = np.minimum(age, _FARTHEST)
            if c.kind == "ptw":
                probs = predictors.partition_tree(x, c.alphabet, c.depth)
            else:
                probs = predictors.run_lengths(x, c.alphabet, self._hazard(np.arange(1, c.length)))
        inputs, targets = shifted(_FIRST + x)
        probs = np.concatenate([np.zeros((*x.shape, 1)), probs], 2)
        return Batch(inputs, targets, np.ones(inputs.shape, np.float32), groups, probs)

    def _hazard(self, n: np.ndarray) -> np.ndarray:
        """Probability of a switch after n symbols of a segment."""
        return 0.5 / n if self.config.kind == "lad" else np.full(n.shape, self.config.hazard)

    def _switches(self, g: np.random.Generator, rows: int) -> np.ndarray:
        """(rows, time) bool: where a segment begins."""
        begins, u = np.zeros((rows, self.config.length), bool), g.random((rows, self.config.length))
        begins[:, 0], age = True, np.ones(rows)
        for t in range(1, self.config.length):
            begins[:, t] = u[:, t] < self._hazard(age)
            age = np.where(begins[:, t], 1, age + 1)
        return begins

    def _partition(self, g: np.random.Generator, rows: int) -> np.ndarray:
        """(rows, time) bool: where a segment begins. From the whole to its parts: a stretch that is split makes
        halves."""
        depth = self.config.depth
        begins = np.zeros((rows, 1 << depth), bool)
        begins[:, 0], whole = (
            True,
            np.ones((rows, 1), bool),
        )  # of each stretch of this size, whether it comes from splits
        for level in range(depth, 0, -1):
            split = whole & (g.random(whole.shape) < 0.5)
            begins[:, (1 << (level - 1)) :: 1 << level] |= split
            whole = np.repeat(split, 2, 1)
        return begins[:, : self.config.length]

    def _segments(self, g: np.random.Generator, begins: np.ndarray) -> np.ndarray:
        """(rows, time) symbols, with new probabilities at each beginning."""
        rows, time = begins.shape
        theta = g.dirichlet(np.full(self.config.alphabet, 0.5), int(begins.sum()))
        which = np.cumsum(begins.reshape(-1)).reshape(rows, time) - 1  # every row begins a segment
        sums = theta.cumsum(1)[which]
        return (g.random((rows, time, 1)) * sums[..., -1:] >= sums).sum(2)

    def _hidden(self, g: np.random.Generator, rows: int) -> np.ndarray:
        moves, emit = (part.cumsum(1) for part in self.hmm())
        state, x = g.integers(0, self.config.states, rows), np.zeros((rows, self.config.length), np.int64)
        for t in range(self.config.length):
            u = g.random((2, rows, 1))
            x[:, t] = (u[0] * emit[state, -1:] >= emit[state]).sum(1)
            state = (u[1] * moves[state, -1:] >= moves[state]).sum(1)
        return x

    def answers(self, batch: Batch) -> Answers:
        """Divides the evidence of a row and each next symbol by that of the row (see ``predictors``)."""
        c, probs = self.config, np.zeros_like(batch.probs)
        for row, line in enumerate(batch.inputs.tolist()):
            x = [symbol - _FIRST for symbol in line[1:]]
            for t in range(len(line)):
                found = [self._evidence([*x[:t], symbol]) for symbol in range(c.alphabet)]
                probs[row, t, _FIRST:] = [one / sum(found) for one in found]
        return Answers(batch.targets, np.ones_like(batch.weight), probs)

    def _evidence(self, x: list[int]) -> float:
        c = self.config
        if c.kind == "hmm":
            moves, emit = self.hmm()
            return predictors.backward_evidence(x, moves.tolist(), emit.tolist())
        if c.kind == "ptw":
            return predictors.partition_evidence(x, c.alphabet, c.depth)
        return predictors.renewal_evidence(x, c.alphabet, [float(self._hazard(np.array(n))) for n in range(1, len(x))])

    def time(self) -> int:
        """``length`` symbols, from the first one on."""
        return self.longest().config.length

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Longer rows."""
        lengths = (128, 256, 512)
        most = 1 << self.config.depth if self.config.kind == "ptw" else lengths[-1]
        return {"length": tuple(length for length in lengths if length <= most)}

    def chance(self) -> float:
        """Of all symbols of the source."""
        return 1 / self.config.alphabet

    def group_values(self) -> dict[str, Sequence[int]]:
        """Places in the row."""
        return {"position": range(min(int(np.log2(self.longest().config.length)), _FARTHEST) + 1)}
