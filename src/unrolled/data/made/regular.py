"""Regular languages as text: every next symbol that the language allows, and the end."""

import re
from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from unrolled.core.registry import unknown_name
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span, shifted

__all__ = ["Regular", "RegularConfig", "Tomita", "TomitaConfig"]

_END, _BLOCK = 1, 16
_DEEPEST = 64


class _Machine(NamedTuple):
    """letters; moves: state -> letter -> next state, without those that can lead to no word; final: whether a word may
    end in the state. 0 is the first state."""

    letters: str
    moves: tuple[dict[str, int], ...]
    final: tuple[bool, ...]


class _Words(NamedTuple):
    """The same language by its definition: whether a text is a word, and whether it begins one."""

    word: Callable[[str], bool]
    begins: Callable[[str], bool]


def _odd_runs(text: str, whole: bool) -> bool:
    """Whether an even number of 0 follows each odd number of 1; without ``whole`` a last run may go on."""
    runs = [match[0] for match in re.finditer(r"1+|0+", text)]
    bad = [len(a) % 2 == 1 and a[0] == "1" and len(b) % 2 == 1 for a, b in pairwise(runs)]
    return not any(bad if whole else bad[:-1])


_TOMITA = {
    1: _Machine("01", ({"1": 0},), (True,)),
    2: _Machine("01", ({"1": 1}, {"0": 0}), (True, False)),
    3: _Machine(
        "01",
        ({"0": 0, "1": 1}, {"0": 2, "1": 0}, {"0": 3}, {"0": 2, "1": 1}),
        (True, True, False, True),
    ),
    4: _Machine("01", ({"0": 1, "1": 0}, {"0": 2, "1": 0}, {"1": 0}), (True, True, True)),
    5: _Machine(
        "01",
        ({"0": 1, "1": 2}, {"0": 0, "1": 3}, {"0": 3, "1": 0}, {"0": 2, "1": 1}),
        (True, False, False, False),
    ),
    6: _Machine("01", ({"0": 1, "1": 2}, {"0": 2, "1": 0}, {"0": 0, "1": 1}), (True, False, False)),
    7: _Machine("01", ({"0": 0, "1": 1}, {"0": 2, "1": 1}, {"0": 2, "1": 3}, {"1": 3}), (True, True, True, True)),
}
_TOMITA_WORDS = {
    1: _Words(lambda text: "0" not in text, lambda text: "0" not in text),
    2: _Words(lambda text: text == "10" * (len(text) // 2), lambda text: ("10" * len(text)).startswith(text)),
    3: _Words(lambda text: _odd_runs(text, True), lambda text: _odd_runs(text, False)),
    4: _Words(lambda text: "000" not in text, lambda text: "000" not in text),
    5: _Words(lambda text: text.count("0") % 2 == 0 and text.count("1") % 2 == 0, lambda text: True),
    6: _Words(lambda text: (text.count("0") - text.count("1")) % 3 == 0, lambda text: True),
    7: _Words(*([lambda text: bool(re.fullmatch("0*1*0*1*", text))] * 2)),
}


def _repeated(word: str) -> tuple[_Machine, _Words]:
    """(word)*"""
    moves = tuple({letter: (place + 1) % len(word)} for place, letter in enumerate(word))
    letters = "".join(sorted(set(word)))
    return _Machine(letters, moves, tuple(place == 0 for place in range(len(word)))), _Words(
        lambda text: text == word * (len(text) // len(word)), lambda text: (word * (len(text) + 1)).startswith(text)
    )


def _nested(depth: int) -> tuple[_Machine, _Words]:
    """D_n = (a D_{n-1} b)*"""
    moves = tuple(
        {**({"a": place + 1} if place < depth else {}), **({"b": place - 1} if place else {})}
        for place in range(depth + 1)
    )

    def depths(text: str) -> list[int]:
        return [text[:end].count("a") - text[:end].count("b") for end in range(len(text) + 1)]

    return _Machine("ab", moves, tuple(place == 0 for place in range(depth + 1))), _Words(
        lambda text: all(0 <= one <= depth for one in depths(text)) and depths(text)[-1] == 0,
        lambda text: all(0 <= one <= depth for one in depths(text)),
    )


def _language(name: str) -> tuple[_Machine, _Words]:
    """Raises UsageError for an unknown name."""
    if name in ("(aa)*", "(abab)*", "(aaaa)*"):
        return _repeated(name[1:-2])
    if (found := re.fullmatch(r"D([1-9]\d?)", name)) and int(found[1]) <= _DEEPEST:
        return _nested(int(found[1]))
    raise unknown_name("language", name, ["(aa)*", "(aaaa)*", "(abab)*", "D1", "D2", "D3", "D4"])


class _Automaton(Problem):
    """What :class:`Tomita` and :class:`Regular` share."""

    fed = True

    @property
    def language(self) -> tuple[_Machine, _Words]:
        raise NotImplementedError

    @property
    def symbols(self) -> tuple[str, ...]:
        """Start, end of a word, letters."""
        return (">", ".", *self.language[0].letters)

    def _law(self, letters: Sequence[int], may_end: bool) -> np.ndarray:
        """(V,) probabilities where these letters are allowed."""
        law = np.zeros(len(self.symbols))
        if may_end:
            law[_END] = self.config.end if letters else 1.0
        law[list(letters)] = (1 - law[_END]) / max(len(letters), 1)
        return law

    def draw(self, g: np.random.Generator, rows: int) -> Batch:
        """See :meth:`Problem.draw`."""
        machine, time = self.language[0], self.config.length
        laws = np.stack([
            self._law([2 + machine.letters.index(letter) for letter in sorted(moves)], final)
            for moves, final in zip(machine.moves, machine.final, strict=True)
        ])  # fmt: skip
        following = np.zeros(laws.shape, np.int64)
        for state, moves in enumerate(machine.moves):
            for letter, to in moves.items():
                following[state, 2 + machine.letters.index(letter)] = to
        sums, u = laws.cumsum(1), g.random((rows, time))
        text, probs = np.zeros((rows, time), np.int64), np.zeros((rows, time, laws.shape[1]))
        place, state, number = np.zeros((rows, time), np.int64), np.zeros(rows, np.int64), np.zeros(rows, np.int64)
        for t in range(time):
            probs[:, t], place[:, t] = laws[state], number
            # never beyond the last symbol that is allowed, however the sum was rounded
            drawn = (u[:, t, None] * sums[state, -1:] >= sums[state]).sum(1)
            text[:, t], state = drawn, following[state, drawn]
            number = np.where(drawn == _END, 0, number + 1)
        inputs, targets = shifted(text)
        position = np.minimum(place // _BLOCK, 7)
        return Batch(inputs, targets, np.ones(inputs.shape, np.float32), {"position": position}, probs)

    def answers(self, batch: Batch) -> Answers:
        """Asks the language's definition of every beginning."""
        machine, words = self.language
        probs = np.zeros_like(batch.probs)
        for row, line in enumerate(batch.inputs.tolist()):
            text = ""
            for place, symbol in enumerate(line):
                text = "" if symbol < 2 else text + machine.letters[symbol - 2]
                going = [2 + i for i, letter in enumerate(machine.letters) if words.begins(text + letter)]
                probs[row, place] = self._law(going, words.word(text))
        return Answers(batch.targets, np.ones_like(batch.weight), probs)

    def time(self) -> int:
        """``length`` symbols, from the first one on."""
        return self.longest().config.length

    def sweep(self) -> dict[str, tuple[Any, ...]]:
        """Longer rows, longer words."""
        return {"length": (64, 128, 256, 512), "end": (0.1, 0.02)}

    def chance(self) -> float:
        """Of all symbols but the start."""
        return 1 / (len(self.symbols) - 1)


class TomitaConfig(ProblemConfig):
    """Settings of Tomita's languages."""

    name: Literal["tomita"] = "tomita"
    language: int = Field(default=3, ge=1, le=7, description="number of the language, 1 to 7")
    length: Span = Field(default=64, description="symbols of a row")
    end: float = Field(default=0.1, gt=0, lt=1, description="probability that a word ends where it may")


class Tomita(_Automaton):
    """Tomita's seven languages over 0 and 1 (Tomita 1982): 1*, (10)*, no odd number of 0 after an odd number of 1, no
    000, even numbers of both, numbers equal modulo 3, 0*1*0*1*.

    Words stand after each other, with an end symbol behind each. The next symbol is drawn from those that can lead to a
    word: where a word may end, it ends with probability ``end`` (always, if it cannot go on), and the other symbols are
    equally likely. ``probs`` says what the published form asks for, the set of symbols that are allowed. Group
    ``position``: place in the word over 16, rounded down, at most 7.
    """

    Config = TomitaConfig
    EXAMPLES = (
        *(TomitaConfig(language=n, length=24, end=0.2) for n in range(1, 8)),
        TomitaConfig(language=5, length=(8, 12)),
    )
    fixed = ("language",)

    @property
    def language(self) -> tuple[_Machine, _Words]:
        """The automaton, and the definition."""
        return _TOMITA[self.config.language], _TOMITA_WORDS[self.config.language]


class RegularConfig(ProblemConfig):
    """Settings of regular languages by their expressions."""

    name: Literal["regular"] = "regular"
    language: str = Field(default="(aa)*", description="(aa)*, (aaaa)*, (abab)*, or D1, D2, ... : D_n = (a D_(n-1) b)*")
    length: Span = Field(default=64, description="symbols of a row")
    end: float = Field(default=0.1, gt=0, lt=1, description="probability that a word ends where it may")


class Regular(_Automaton):
    """Languages that are star-free, such as (ab)* and D_n, and others that need counting, such as (aa)* (Bhattamishra
    et al. 2020, arXiv:2009.11264).

    Words stand after each other, with an end symbol behind each. The next symbol is drawn from those that can lead to a
    word: where a word may end, it ends with probability ``end`` (always, if it cannot go on), and the other symbols are
    equally likely. ``probs`` says what the published form asks for, the set of symbols that are allowed. Group
    ``position``: place in the word over 16, rounded down, at most 7.
    """

    Config = RegularConfig
    EXAMPLES = (
        RegularConfig(length=20),
        RegularConfig(language="(abab)*", length=20, end=0.3),
        RegularConfig(language="D3", length=(12, 30)),
    )
    fixed = ("language",)

    def check(self) -> None:
        """See :meth:`Problem.check`."""
        _language(self.config.language)

    @property
    def language(self) -> tuple[_Machine, _Words]:
        """The automaton, and the definition."""
        return _language(self.config.language)
