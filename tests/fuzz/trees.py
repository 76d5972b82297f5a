"""Damaged files of trees, which are trained on."""

import random
from pathlib import Path

from fuzz.mutate import damage_bytes

__all__ = ["trees"]

_BRACKETED = "".join(f"(3 (2 It) (4 (2 is) ({label} good)))\n(1 (1 Bad) (2 .))\n" for label in "3412" * 3)
_ROWS = [("It", 3, "nsubj"), ("is", 3, "cop"), ("good", 0, "root"), (".", 3, "punct")]
_SENTENCE = "".join(
    "\t".join((str(place), word, "_", "_", "_", "_", str(head), relation, "_", "_")) + "\n"
    for place, (word, head, relation) in enumerate(_ROWS, 1)
)


def trees(draw: random.Random, folder: Path) -> list[object]:
    """The arguments of a command on something damaged."""
    kind, text = draw.choice((("treebank", _BRACKETED), ("dependencies", f"# a sentence\n{_SENTENCE}\n" * 12)))
    path = folder / draw.choice(("trees.txt", "trees.txt", "trees.txt", "trees.txt", "trees.gz"))
    path.write_bytes(damage_bytes(text.encode(), draw))
    settings = [
        "task.name=classify_trees", f"task.data.name={kind}", f"task.data.path={path}", "task.width=4", "task.rows=3",
        "tokenizer=word", "train.steps=2", "train.validations=1", f"task.binary={draw.choice(('true', 'false'))}",
        f"task.cell={draw.choice(('child_sum_tree_lstm', 's_lstm', 'binary_tree_lstm'))}",
    ]  # fmt: skip
    if kind == "treebank":
        settings.append(f"task.data.nodes={draw.choice(('root', 'all'))}")
    chosen = [part for one in settings for part in ("--set", one)]
    return ["train", *chosen, "--out", folder / "run", "--device", "cpu", "--sample", 0]
