"""Files of texts with labels: CSV, tab-separated or JSON lines, plain or compressed."""

import csv
import io
import os
import re
from collections.abc import Iterator
from pathlib import Path

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import parse_json
from unrolled.core.packed import SUFFIXES
from unrolled.data.fields import Fields, column_of
from unrolled.data.places import corpus_folders
from unrolled.data.reading import read_plain

__all__ = ["find_sst2", "read_rows", "words_of"]

_PARTS = re.compile(r"\w+(?:'\w+)?|[^\w\s]")


def words_of(text: str) -> list[str]:
    """The words of a text in lower case, and each sign that is no part of one."""
    return _PARTS.findall(text.lower())


def find_sst2() -> tuple[Path, Path, Path]:
    """Train, dev and test of the binary Stanford Sentiment Treebank. Raises UsageError where they are not found."""
    for folder in corpus_folders():
        for end in (".csv", ".csv.gz"):
            paths = [folder / "sst2" / f"{split}_binary_sent{end}" for split in ("train", "dev", "test")]
            if all(path.is_file() for path in paths):
                return paths[0], paths[1], paths[2]
    raise UsageError(
        "SST-2 is not on this machine; put train_binary_sent.csv, dev_binary_sent.csv and test_binary_sent.csv of "
        "github.com/openai/generating-reviews-discovering-sentiment into the folder sst2 below $UNROLLED_DATA."
    )


def read_rows(path: str | os.PathLike[str], text: str = "sentence", label: str = "label") -> list[tuple[str, str]]:
    """Texts and labels of a file whose name ends in .csv, .tsv or .jsonl, and perhaps in .gz, .bz2 or .xz.

    CSV has quoted fields; in a tab-separated file quotes are plain characters. Labels are text.

    Args:
        text, label: names of the columns or keys.
    Raises:
        UsageError: no such file, kind of file or column; a row without both; no row. UnrolledError: damage.
    """
    path = Path(path)
    if not path.is_file():
        raise UsageError(f"there are no sentences at {path}; give a .csv, .tsv or .jsonl file, or sst2.")
    content = read_plain(path)
    kind = next((suffix for suffix in reversed(path.suffixes) if suffix not in SUFFIXES), "")
    if kind == ".jsonl":
        rows = list(_json_rows(content, path, text, label))
    elif kind in (".csv", ".tsv"):
        rows = list(_table_rows(content, path, text, label, kind))
    else:
        raise UsageError(
            f"{path} is neither .csv nor .tsv nor .jsonl (nor one of these with .gz, .bz2 or .xz); rename it."
        )
    if not rows:
        raise UsageError(f"{path} has no sentences.")
    return rows


def _table_rows(content: str, path: Path, text: str, label: str, kind: str) -> Iterator[tuple[str, str]]:
    lines = io.StringIO(content, newline="")
    quoted = kind == ".csv"
    reader = csv.reader(lines, strict=True) if quoted else csv.reader(lines, delimiter="\t", quoting=csv.QUOTE_NONE)
    rows: Fields | None = None
    at = (0, 0)
    try:
        for row in reader:
            if rows is None:
                at = column_of(row, text, str(path)), column_of(row, label, str(path))
                rows = Fields(str(path), len(row))
            elif any(row):
                fields = rows.of(row, f"line {reader.line_num} of {path}")
                yield fields[at[0]], fields[at[1]]
    except csv.Error as error:
        raise UnrolledError(f"line {reader.line_num} of {path} is no {kind[1:].upper()}: {error}.") from error


def _json_rows(content: str, path: Path, text: str, label: str) -> Iterator[tuple[str, str]]:
    for number, line in enumerate(content.split("\n"), 1):
        if not line.strip():
            continue
        try:
            value = parse_json(line)
        except ValueError as error:
            raise UnrolledError(f"line {number} of {path} is not JSON; it is damaged or of another kind.") from error
        if not isinstance(value, dict) or not isinstance(value.get(text), str) or value.get(label) is None:
            raise UsageError(f"line {number} of {path} has no text {text!r} with a label {label!r}; name the keys.")
        yield value[text], str(value[label])
