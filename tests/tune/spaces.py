"""A tiny space on a generated text."""

from pathlib import Path
from typing import Any

from compare.plans import RECIPE
from train.runs import write_text
from unrolled.compare.tune import Board, Limit, Outcome, begin, open_study, work

SPACE = """
kind = "unrolled space"
title = "tiny"
recipe = "{recipe}"
parameters = 1500
trial = {{ tokens = 960 }}
rungs = [0.25, 0.5]
confirm = {{ best = 2, seeds = [11, 12] }}
random = 3

[space]
"train.optimizer.lr" = {{ low = 1e-3, high = 5e-2, log = true }}
"model.embedding.size" = {{ low = 4, high = 12, integer = true }}
"model.dropout.input" = {{ values = [0.0, 0.2] }}
"""


def write_space(folder: Path, text: str = SPACE, recipe: str = RECIPE) -> Path:
    """A space, its recipe and its text; returns the path of the space."""
    words = folder / "text"
    if not words.exists():
        write_text(words)
    embedded = recipe.format(text=words).replace("width = 8", "width = 8\nembedding = { size = 8 }")
    (folder / "tiny.toml").write_text(embedded)
    path = folder / "space.toml"
    path.write_text(text.format(recipe=folder / "tiny.toml"))
    return path


def short(text: str = SPACE) -> str:
    """A space of which a study takes a second."""
    return text.replace("best = 2, seeds = [11, 12]", "best = 1, seeds = [11]").replace("tokens = 960", "tokens = 480")


def begun(folder: Path, text: str = SPACE, recipe: str = RECIPE, out: str = "out") -> Board:
    """A study in ``folder/out``."""
    begin(write_space(folder, text, recipe), folder / out)
    return Board(open_study(folder / out))


def search(board: Board, trials: int, **options: Any) -> Outcome:
    """Work until there are so many trials, and the best are confirmed."""
    return work(board.folder, Limit(trials), **options, wait=0.05)
