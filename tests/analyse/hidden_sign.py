"""A text with a hidden attribute: all the judging words of a line agree, and nothing else tells which they are.

Good and bad words begin alike, so what a model has to keep, from the first such word to the end of the line, is one
sign; lines end in neutral words, so the sign cannot be read off the last letters.
"""

import random
import re

GOOD = ("good", "warm", "fine", "bold")
BAD = ("grim", "weak", "foul", "base")
THINGS = ("cast", "plot", "song")
END = "so it is"


def make_line(rng: random.Random, good: bool) -> str:
    """Five to eight judgements, and a neutral end."""
    words = GOOD if good else BAD
    parts = [f"{rng.choice(THINGS)} {rng.choice(words)}" for _ in range(rng.randint(5, 8))]
    return " ".join([*parts, END])


def make_lines(count: int, seed: int) -> tuple[list[str], list[bool]]:
    """Lines and whether each is good."""
    rng = random.Random(seed)
    signs = [rng.random() < 0.5 for _ in range(count)]
    return [make_line(rng, good) for good in signs], signs


def sign_of(line: str) -> float:
    """1 where all judging words are good, 0 where all are bad, between where mixed or 0.5 where there are none."""
    found = [word in GOOD for word in re.findall(r"\w+", line) if word in GOOD or word in BAD]
    return sum(found) / len(found) if found else 0.5
