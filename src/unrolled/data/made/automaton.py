"""In-context language learning: strings of an automaton that no other row has."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.core.errors import UsageError
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span, shifted

__all__ = ["Automaton", "AutomatonConfig", "Moves", "drawn_automaton", "minimised"]

_END, _FIRST = 1, 2
_MOST_STRINGS = 20

Moves = list[dict[int, int]]
"""Of each state the symbols that it allows, and the state behind each; the first state is 0, every state is final."""


class AutomatonConfig(ProblemConfig):
    """Settings of in-context language learning."""

    name: Literal["automaton"] = "automaton"
    states: int = Field(default=12, ge=2, le=64, description="states of an automaton at most, before it is minimised")
    alphabet: int = Field(default=18, ge=2, le=512, description="symbols of an automaton at most")
    edges: int = Field(
        default=4,
        ge=2,
        le=64,
        description="e: a state has 1 to e - 1 edges, an automaton e states and symbols at least",
    )
    longest: int = Field(default=50, ge=2, le=1 << 16, description="L: strings have 1 to L - 1 symbols")
    length: Span = Field(default=256, description="symbols of a row, separators among them")


class Automaton(Problem):
    """Strings of one random automaton in each row, with separators between them; the reader finds the language out
    while it reads (Akyürek et al. 2024, arXiv:2401.12973).

    An automaton has between e and ``states`` states and between e and ``alphabet`` symbols, each state 1 to e - 1 edges
    (as the published code has it) with different symbols, to different states and not to itself; states that are not
    reached are dropped, and it is minimised. A string is a walk from the first state: its length is uniform from 1 to L
    - 1, its edges are uniform. A row is filled with strings and cut at its end (the published code cuts by characters,
    blanks among them). ``probs`` are those of a reader that knows the automaton, so that the excess nats are the price
    of learning it. Groups: ``position``, place in the row over 32, at most 15; ``strings``, read before, at most 20.
    """

    Config = AutomatonConfig
    EXAMPLES = (
        AutomatonConfig(states=5, alphabet=6, edges=3, longest=6, length=80),
        AutomatonConfig(states=4, alphabet=5, longest=9, length=(40, 60)),
    )
    fed = True

    def check(self) -> None:
        """See :meth:`Problem.check`."""
        c = self.config
        if c.edges > min(c.states, c.alphabet):
            raise UsageError(f"an automaton has {c.edges} states and symbols at least; raise states and alphabet.")

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, separator, and the symbols of all automata."""
        return (">", "|", *(f"s{i}" for i in range(self.config.alphabet)))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        c, each = self.config, np.arange(rows)
        moves = np.full((rows, c.states, c.alphabet), -1)
        for row in range(rows):
            for state, out in enumerate(minimised(drawn_automaton(g, c.states, c.alphabet, c.edges))):
                moves[row, state, list(out)] = list(out.values())
        allowed = moves >= 0
        rank, degree = allowed.cumsum(2), allowed.sum(2)
        text, strings = np.zeros((rows, c.length), np.int64), np.zeros((rows, c.length), np.int64)
        probs, u = np.zeros((rows, c.length, len(self.symbols))), g.random((2, c.length, rows))
        state, place, read = (np.zeros(rows, np.int64) for _ in range(3))
        for t in range(c.length):
            ends = np.where(place > 0, 1 / (c.longest - place), 0.0)
            probs[:, t, _END] = ends
            probs[:, t, _FIRST:] = allowed[each, state] * ((1 - ends) / degree[each, state])[:, None]
            strings[:, t] = np.minimum(read, _MOST_STRINGS)
            # of the symbols that are allowed the one with this number
            edge = (u[1, t] * degree[each, state]).astype(np.int64)
            symbol = (rank[each, state] <= edge[:, None]).sum(1)
            over = u[0, t] < ends
            text[:, t] = np.where(over, _END, _FIRST + symbol)
            state = np.where(over, 0, moves[each, state, symbol])
            place, read = np.where(over, 0, place + 1), read + over
        inputs, targets = shifted(text)
        position = np.tile(np.minimum(np.arange(c.length) // 32, 15), (rows, 1))
        groups = {"position": position, "strings": strings}
        return Batch(inputs, targets, np.ones(inputs.shape, np.float32), groups, probs, {"moves": moves})

    def answers(self, batch: Batch) -> Answers:
        """Walks through the automaton string by string."""
        probs = np.zeros_like(batch.probs)
        for row, line in enumerate(batch.inputs.tolist()):
            moves = batch.hidden["moves"][row].tolist()
            begins = [place for place, symbol in enumerate(line) if symbol in (self.start_id, _END)]
            for begin, end in zip(begins, [*begins[1:], len(line)], strict=True):
                state = 0
                for place in range(begin, end):
                    if place > begin:
                        state = moves[state][line[place] - _FIRST]
                        assert state >= 0, "a string that the automaton does not accept"
                    allowed = [symbol for symbol, to in enumerate(moves[state]) if to >= 0]
                    # lengths that are still possible: from the symbols so far to L - 1
                    left = self.config.longest - (place - begin)
                    ends = 0.0 if place == begin else 1 / left
                    probs[row, place, _END] = ends
                    for symbol in allowed:
                        probs[row, place, _FIRST + symbol] = (1 - ends) / len(allowed)
        return Answers(batch.targets, np.ones_like(batch.weight), probs)

    def time(self) -> int:
        """``length`` symbols, from the first one on."""
        return self.longest().config.length

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Longer rows."""
        return {"length": (128, 256, 512)}

    def chance(self) -> float:
        """Of all symbols but the start."""
        return 1 / (len(self.symbols) - 1)

    def group_values(self) -> dict[str, Sequence[int]]:
        """Places in the row."""
        return {"position": range(min((self.longest().config.length - 1) // 32, 15) + 1)}


def drawn_automaton(g: np.random.Generator, states: int, alphabet: int, edges: int) -> Moves:
    """A random automaton, see :class:`Automaton`; not minimised, and with states that are not reached."""
    count = int(g.integers(edges, states + 1))
    symbols = g.permutation(alphabet)[: int(g.integers(edges, alphabet + 1))]
    moves: Moves = []
    for state in range(count):
        out = int(g.integers(1, edges))
        others = np.delete(np.arange(count), state)
        pairs = zip(g.permutation(symbols)[:out], g.permutation(others)[:out], strict=True)
        moves.append({int(symbol): int(to) for symbol, to in sorted(pairs)})
    return moves


def minimised(moves: Moves) -> Moves:
    """The smallest automaton of the same language, its states in the order in which a search by symbols reaches them:
    equal for equal languages."""
    # states that allow the same symbols are alike until what lies behind one of them tells them apart (Moore 1956)
    number = [0] * len(moves)
    while True:
        keys = [
            (number[state], tuple((s, number[to]) for s, to in sorted(out.items()))) for state, out in enumerate(moves)
        ]
        order = sorted(set(keys))
        finer = [order.index(key) for key in keys]
        if len(order) == len(set(number)):
            break
        number = finer
    member = {number[state]: state for state in range(len(moves))}
    names, queue = {number[0]: 0}, [number[0]]
    for kind in queue:
        for _, to in sorted(moves[member[kind]].items()):
            if number[to] not in names:
                names[number[to]] = len(names)
                queue.append(number[to])
    return [{s: names[number[to]] for s, to in sorted(moves[member[kind]].items())} for kind in queue]
