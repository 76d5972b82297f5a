"""Facts that are told in one segment of a long row and asked for in its last."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from pydantic import Field

from unrolled.core.errors import UsageError
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span

__all__ = ["Segments", "SegmentsConfig"]

_CUE, _BLANK = 1, 2
_NEEDS = 2


class SegmentsConfig(ProblemConfig):
    """Settings of facts across segments."""

    name: Literal["segments"] = "segments"
    form: Literal["copy", "fact"] = Field(
        default="copy", description="copy: the last segment gives back a string; fact: it asks for the value of one key"
    )
    segment: int = Field(default=16, ge=4, le=1 << 16, description="symbols of a segment")
    segments: Span = Field(default=(2, 4), description="segments of a row")
    length: int = Field(default=4, ge=1, le=1 << 12, description="symbols of the string, or pairs of a key and a value")
    vocab: int = Field(default=10, ge=2, le=65536, description="symbols of strings, keys, or values")
    updates: int = Field(
        default=0,
        ge=0,
        le=1 << 12,
        description="facts: so many of the segments after the first, at most, give the asked key a new value",
    )
    distance: int = Field(
        default=1,
        ge=1,
        le=1 << 12,
        description="segments from the last one that tells a fact to the question, at least",
    )


class Segments(Problem):
    """A string or pairs in the first segment, blanks, and the question in the last one (after the tasks of Bulatov et
    al. 2022, arXiv:2207.06881, and Rakotonirina and Baroni 2024, arXiv:2402.15268).

    A row has whole segments, the start symbol among the first one's symbols. What is told stands anywhere in its
    segment, all in one run; a new value of a fact counts. Answers are the row's last symbols. Group ``told``: segments
    from the last one that told what is asked for.
    """

    Config = SegmentsConfig
    EXAMPLES = (
        SegmentsConfig(segment=8, segments=(2, 3), length=2, vocab=4),
        SegmentsConfig(form="fact", segment=8, segments=(3, 5), length=2, vocab=4, updates=2),
        SegmentsConfig(form="fact", segment=6, segments=5, length=2, vocab=4, updates=1, distance=3),
    )
    fed = True

    def check(self) -> None:
        """See :meth:`Problem.check`."""
        c, least = self.config, self.shortest().config.segments
        room = c.segment - 1
        if self._told > room or (c.form == "copy" and c.length + 1 > c.segment):
            raise UsageError(
                f"segments of {c.segment} symbols have no room for {c.length}; raise segment, or lower length."
            )
        if c.length > c.vocab and c.form == "fact":
            raise UsageError(f"there are {c.vocab} keys, too few for {c.length} pairs; raise vocab.")
        if least < c.distance + 1:
            raise UsageError(f"rows of {least} segments have none {c.distance} before the question; raise segments.")
        if c.updates and c.form == "copy":
            raise UsageError("a string is told once; leave out updates, or set form=fact.")

    @property
    def _told(self) -> int:
        """Symbols that tell what is asked for."""
        return self.config.length * (1 if self.config.form == "copy" else _NEEDS)

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, cue, blank, symbols of strings; or keys and values."""
        kinds = "s" if self.config.form == "copy" else "kv"
        return (">", "=", "_", *(f"{kind}{i}" for kind in kinds for i in range(self.config.vocab)))

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        made = [self._row(g) for _ in range(rows)]
        read, weight, told = (np.array([row[part] for row in made]) for part in range(3))
        return Batch(read[:, :-1], read[:, 1:], weight.astype(np.float32), {"told": np.where(weight > 0, told, -1)})

    def _row(self, g: np.random.Generator) -> tuple[list[int], list[int], list[int]]:
        """Symbols with the target of the last one, weights and the group of its positions."""
        c = self.config
        assert isinstance(c.segments, int)
        time = c.segment * c.segments
        line = [_BLANK] * (time + 1)
        line[0] = 0
        first = 1 + int(g.integers(0, c.segment - self._told))
        last = 0
        if c.form == "copy":
            string = (3 + g.integers(0, c.vocab, c.length)).tolist()
            line[first : first + c.length] = string
            answer, cue = string, [_CUE]
        else:
            keys = (3 + g.permutation(c.vocab)[: c.length]).tolist()
            values = (3 + c.vocab + g.integers(0, c.vocab, c.length)).tolist()
            line[first : first + 2 * c.length] = [one for pair in zip(keys, values, strict=True) for one in pair]
            asked = int(g.integers(0, c.length))
            free = c.segments - 1 - c.distance
            later = np.sort(1 + g.permutation(free)[: int(g.integers(0, min(c.updates, free) + 1))]).tolist()
            value = values[asked]
            for last in later:
                place = last * c.segment + int(g.integers(0, c.segment - 1))
                value = 3 + c.vocab + int(g.integers(0, c.vocab))
                line[place : place + 2] = [keys[asked], value]
            answer, cue = [value], [_CUE, keys[asked]]
        line[time + 1 - len(answer) - len(cue) :] = cue + answer
        weight = [0] * (time - len(answer)) + [1] * len(answer)
        return line, weight, [c.segments - 1 - last] * time

    def answers(self, batch: Batch) -> Answers:
        """Reads a row backwards from its cue."""
        targets, weight = np.zeros_like(batch.inputs), np.zeros_like(batch.weight)
        for row, line in enumerate(batch.inputs.tolist()):
            cue = line.index(_CUE)
            if self.config.form == "copy":
                found = [one for one in line[1:cue] if one != _BLANK]
                targets[row, cue:], weight[row, cue:] = found, 1
            else:
                key = line[cue + 1]
                before = max(place for place in range(cue) if line[place] == key)
                targets[row, cue + 1], weight[row, cue + 1] = line[before + 1], 1
        return Answers(targets, weight)

    def time(self) -> int:
        """Whole segments."""
        longest = self.longest().config
        assert isinstance(longest.segments, int)
        return longest.segment * longest.segments

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """The segments of a row."""
        return {"segments": tuple(count for count in (2, 3, 4, 8, 16) if count > self.config.distance)}

    def chance(self) -> float:
        """Any symbol of a string, or any value."""
        return 1 / self.config.vocab

    def group_values(self) -> dict[str, Sequence[int]]:
        """Distances in segments that occur."""
        least, most = (one.config.segments for one in (self.shortest(), self.longest()))
        return {"told": range(self.config.distance if self.config.updates else least - 1, most)}
