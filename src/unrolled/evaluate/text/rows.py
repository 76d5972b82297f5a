"""What is written of a text that is scored: one mapping of column to value for each row."""

import math
from collections.abc import Sequence
from typing import Any

from unrolled.evaluate.text.scored import ScoreConfig, Scored

__all__ = ["END", "row_columns", "row_of"]

END = "<end>"
"""The word of a row about the end of a text."""


def row_columns(config: ScoreConfig, keep: Sequence[str] = (), file: bool = False) -> list[str]:
    """Names of what a row holds.

    Args:
        keep: columns of a table that come along. file: whether the rows are of several files.
    """
    wanted = [
        *(["file"] if file else []), *keep, "line", "index", "offset", "word",
        "tokens" if config.unit == "word" else "token", "unknown", "surprisal_bits",
    ]  # fmt: skip
    asked = (("entropy_bits", config.entropy), ("rank", config.rank), ("top", config.top_k is not None))
    return wanted + [name for name, on in asked if on]


def row_of(scored: Scored, columns: Sequence[str], keep: Sequence[str] = (), file: str = "") -> dict[str, Any]:
    """The values of a row, by the names of :func:`row_columns`."""
    unit = scored.unit
    # a line end that no row of the table stands for has nothing to keep
    kept = dict(zip(keep, unit.kept or ("",) * len(keep), strict=True))
    values = {
        **kept, "file": file, "line": unit.line, "index": unit.index, "offset": scored.offset,
        "word": unit.text or END, "token": scored.text, "tokens": scored.tokens, "unknown": scored.unknown,
        "surprisal_bits": scored.bits, "rank": scored.rank, "top": scored.top,
        "entropy_bits": None if scored.entropy is None else scored.entropy / math.log(2),
    }  # fmt: skip
    return {column: values[column] for column in columns}
