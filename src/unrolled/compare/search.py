"""What a search of one setting found, and which value it chooses."""

import math
from typing import NamedTuple

__all__ = ["Choice", "Tried", "Value", "at_edge", "best_of", "beyond", "number"]

Value = float | int | str


class Tried(NamedTuple):
    """A value that was searched: mean nats per token over the search's seeds, infinite where one diverged."""

    value: Value
    nats_per_token: float
    added: bool


class Choice(NamedTuple):
    """What a search chose. value: None where there was no search. refused: a sentence, where the plan forbids to go on.
    set_aside: earlier choices, of which a full run diverged."""

    value: Value | None
    tried: tuple[Tried, ...] = ()
    at_edge: bool = False
    set_aside: tuple[Value, ...] = ()
    refused: str | None = None


def number(value: Value) -> float:
    """A value by which others are less or more; infinite for one that is no number."""
    return float(value) if isinstance(value, float | int) else math.inf


def best_of(tried: list[Tried]) -> Tried | None:
    """The least loss; ties go to the smaller value. None where all diverged."""
    finite = [one for one in tried if math.isfinite(one.nats_per_token)]
    return min(finite, key=lambda one: (one.nats_per_token, number(one.value)), default=None)


def at_edge(values: list[Value], value: Value) -> bool:
    """Whether a value is the least or largest of numbers; a single one was not searched, and has no edge."""
    numbers = [number(one) for one in values]
    return len(numbers) > 1 and all(map(math.isfinite, numbers)) and number(value) in (min(numbers), max(numbers))


def beyond(values: list[Value], best: Value) -> float | None:
    """A geometric step beyond the edge that ``best`` lies at; None where it lies at none, or is the only one."""
    if len(values) < 2:
        return None
    ordered = sorted(map(number, values))
    if number(best) == ordered[0]:
        return float(f"{ordered[0] ** 2 / ordered[1]:.6g}")
    if number(best) == ordered[-1]:
        return float(f"{ordered[-1] ** 2 / ordered[-2]:.6g}")
    return None
