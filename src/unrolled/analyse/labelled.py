"""Sentences with one of two labels: CSV, tab-separated or JSON lines, plain or compressed."""

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.data.labelled.reading import read_rows

__all__ = ["Labelled", "read_labelled"]


class Labelled(NamedTuple):
    """Sentences and their labels.

    name: of the file. texts: n sentences. positive: boolean (n,). classes: the negative label and the positive one.
    """

    name: str
    texts: tuple[str, ...]
    positive: np.ndarray
    classes: tuple[str, str]

    def part(self, rows: np.ndarray) -> "Labelled":
        """Some of the sentences. rows: integer indices."""
        return self._replace(texts=tuple(self.texts[i] for i in rows.tolist()), positive=self.positive[rows])


def read_labelled(
    path: str | os.PathLike[str],
    text: str = "sentence",
    label: str = "label",
    classes: tuple[str, str] | None = None,
) -> Labelled:
    """Read a file whose name ends in .csv, .tsv or .jsonl, and perhaps in .gz, .bz2 or .xz.

    CSV has quoted fields; in a tab-separated file quotes are plain characters. Labels are compared as text.

    Args:
        text, label: names of the columns or keys.
        classes: labels that must be meant, the positive one last; absent: the two of the file, in order of their text.
    Raises:
        UsageError: no such file, kind of file or column; a row without both; not two labels. UnrolledError: damage.
    """
    path = Path(path)
    rows = read_rows(path, text, label)
    found = sorted({row[1] for row in rows})
    if classes is None:
        if len(found) != 2:
            shown = ", ".join(map(repr, found[:5])) or "none"
            raise UsageError(f"{path} must have two labels in {label!r}, and has {len(found)} ({shown}).")
        classes = found[0], found[1]
    elif odd := [value for value in found if value not in classes]:
        raise unknown_name(f"label in {path}:", odd[0], classes)
    positive = np.array([row[1] == classes[1] for row in rows])
    return Labelled(path.name, tuple(row[0] for row in rows), positive, classes)
