"""A text with a hidden attribute: all the judging words of a line agree, and nothing else tells which they are.

Good and bad words begin alike, so what a model has to keep, from the first such word to the end of the line, is one
sign. A line may end after any neutral word: the sign cannot be read off the last letters, and cannot be
forgotten there either, since another judgement may follow.
"""

import random
import re

GOOD = ("good", "warm", "fine", "bold")
BAD = ("grim", "weak", "foul", "base")
LINKS = ("and", "or")


def make_line(rng: random.Random, good: bool) -> str:
    """Three to nine judgements, each with a neutral word after it."""
    words = GOOD if good else BAD
    return " ".join(f"{rng.choice(words)} {rng.choice(LINKS)}" for _ in range(rng.randint(3, 9)))


def make_lines(count: int, seed: int) -> tuple[list[str], list[bool]]:
    """Lines and whether each is good."""
    rng = random.Random(seed)
    signs = [rng.random() < 0.5 for _ in range(count)]
    return [make_line(rng, good) for good in signs], signs


def sign_of(line: str) -> float:
    """1 where all judging words are good, 0 where all are bad, between where mixed or 0.5 where there are none."""
    found = [word in GOOD for word in re.findall(r"\w+", line) if word in GOOD or word in BAD]
    return sum(found) / len(found) if found else 0.5
