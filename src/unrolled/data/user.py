"""A user's own text as a corpus: a file, a folder, a glob pattern, or one path per split."""

import glob
import re
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from unrolled.core.errors import UsageError
from unrolled.data.reading import Part, find_cut
from unrolled.data.spec import SPLITS

__all__ = ["cut_parts", "files_at", "user_parts"]

# A split's name at the beginning of a word of the file name: train.txt, my-validation.gz, wiki.test.tokens.
_NAMES = {"train": r"train", "valid": r"(valid|val(?![a-z])|dev)", "test": r"test"}


def files_at(path: str) -> list[Path]:
    """The files that a path, folder or glob pattern names, sorted.

    Raises:
        UsageError: there is none.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if place.is_dir():
        inside = (file for file in place.rglob("*") if file.is_file())
        found = sorted(f for f in inside if not any(part.startswith(".") for part in f.relative_to(place).parts))
        if not found:
            raise UsageError(f"{path} is an empty folder; put text files into it.")
        return found
    names = glob.glob(str(place), recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
    found = sorted(Path(name) for name in names if Path(name).is_file())
    if not found:
        raise UsageError(f"{path} does not exist; give a text file, a folder or a glob pattern.")
    return found


def _by_name(files: Sequence[Path]) -> dict[str, list[Path]]:
    """Files whose names say their split; empty unless one says train."""
    named: dict[str, list[Path]] = {}
    for file in files:
        for split, pattern in _NAMES.items():
            if re.search(rf"(?:^|[^a-z]){pattern}", file.name.lower()):
                named.setdefault(split, []).append(file)
                break
    return named if "train" in named and len(named) > 1 else {}


def user_parts(
    path: str | None, explicit: dict[str, str], fractions: tuple[float, float, float]
) -> dict[str, list[Part]]:
    """Split -> documents of a user's text; every file is a document.

    Args:
        path: file, folder or pattern; files named by split are taken as such, else the text is cut.
        explicit: split -> path, instead of ``path``.
        fractions: shares of train, valid and test by bytes, cut at line ends.
    Raises:
        UsageError: a path does not exist, or the text is too short to be cut.
    """
    if explicit:
        return {s: [Part(str(f), f) for f in files_at(explicit[s])] for s in SPLITS if s in explicit}
    assert path is not None
    files = files_at(path)
    if len(files) > 1 and (named := _by_name(files)):
        return {s: [Part(str(f), f) for f in named[s]] for s in SPLITS if s in named}
    return cut_parts([Part(str(f), f) for f in files], fractions, path)


def cut_parts(parts: Sequence[Part], shares: Sequence[float], name: str) -> dict[str, list[Part]]:
    """Cut documents, taken one after another, into train, valid and test.

    Args:
        shares: fractions (their sum at most 1), cut at line ends; or byte counts (each 0 or above 1), cut
            exactly.
    Raises:
        UsageError: a split that should hold text would be empty.
    """
    sizes = [part.size() for part in parts]
    total = sum(sizes)
    if not total:
        raise UsageError(f"{name} is empty; give a text with at least one line.")
    exact = sum(shares) > 1.5
    ends = list(accumulate(share if exact else share * total for share in shares))
    splits: dict[str, list[Part]] = {}
    marks = [(0, parts[0].start), *(_place(parts, sizes, round(end), exact) for end in ends)]
    for split, share, low, high in zip(SPLITS, shares, marks, marks[1:], strict=False):
        if share:
            splits[split] = _between(parts, low, high)
            if not splits[split]:
                raise UsageError(
                    f"{name} is too short to be cut: its {split} part would be empty; give more text, "
                    "other fractions, or one file per split."
                )
    return splits


def _place(parts: Sequence[Part], sizes: Sequence[int], at: int, exact: bool) -> tuple[int, int]:
    """(document, byte in its file) of the cut at byte ``at`` of all documents together."""
    for index, size in enumerate(sizes):
        if at < size:
            return index, parts[index].start + at if exact else find_cut(parts[index], at)
        at -= size
    return len(parts), 0


def _between(parts: Sequence[Part], low: tuple[int, int], high: tuple[int, int]) -> list[Part]:
    found: list[Part] = []
    for index in range(low[0], min(high[0] + 1, len(parts))):
        part = parts[index]
        start = low[1] if index == low[0] else part.start
        stop = high[1] if index == high[0] else part.stop
        if (stop is None or stop > start) and start < part.start + part.size():
            found.append(Part(part.name, part.path, start, stop, part.make))
    return found
