"""A user's own text as a corpus: a file, a folder, a glob pattern, or one path per split."""

import glob
import itertools
import os
import re
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path

from unrolled.core.errors import UsageError
from unrolled.core.notes import note
from unrolled.data.reading import Part, find_cut
from unrolled.data.spec import SPLITS

__all__ = ["cut_parts", "files_at", "user_parts"]

# A split's name as a whole word of a file's or folder's name: train.txt, my-validation.gz, wiki.test.tokens,
# valid/part-3.txt; not Devils.txt, nor trains.txt.
_NAMES = {"train": r"train|training", "valid": r"valid|validation|val|dev", "test": r"test|testing"}
_WORDS = {split: re.compile(rf"(?<![^\W\d_])(?:{names})(?![^\W\d_])") for split, names in _NAMES.items()}
# What editors and desktops leave beside a text.
_LEAVINGS = ("*~", "#*#", "*.swp", "*.swo", "*.bak", "*.tmp", "*.part", "Thumbs.db", "desktop.ini")
_LISTED = 10


def files_at(path: str) -> list[Path]:
    """The files that a path, folder or glob pattern names, sorted.

    Of a folder, hidden files, links to folders and what editors leave there are not taken; which, is told.

    Raises:
        UsageError: there is none, or it is a pipe or device, which cannot be read several times.
    """
    place = Path(path).expanduser()
    if place.is_file():
        return [place]
    if place.is_dir():
        found, skipped = _inside(place)
        if not found:
            kind = "holds hidden files, leavings of editors and links alone" if skipped else "is an empty folder"
            raise UsageError(f"{path} {kind}; put text files into it.")
        _tell_left_out(path, skipped, "hidden, or left by an editor, or no file")
        return found
    if place.exists():
        raise UsageError(f"{path} is a pipe or device; a corpus is read several times: write it to a file first.")
    names = glob.glob(str(place), recursive=True)  # noqa: PTH207 (Path.glob takes no absolute pattern)
    found = sorted(Path(name) for name in names if Path(name).is_file())
    if not found:
        raise UsageError(f"{path} does not exist; give a text file, a folder or a glob pattern.")
    return found


def _inside(place: Path) -> tuple[list[Path], list[Path]]:
    """The files below a folder that are taken, and what is not."""
    found, skipped = [], []
    for root, folders, names in os.walk(place):
        for name in [*folders, *names]:
            file = Path(root, name)
            # os.walk does not follow links to folders; what is no file may be a pipe, or a link to nothing
            odd = file.is_symlink() if name in folders else not file.is_file()
            if odd or name.startswith(".") or any(fnmatch(name, pattern) for pattern in _LEAVINGS):
                skipped.append(file)
            elif name in names:
                found.append(file)
        folders[:] = [name for name in folders if not name.startswith(".")]
    return sorted(found), sorted(file.relative_to(place) for file in skipped)


def _tell_left_out(path: str, files: Sequence[Path], why: str) -> None:
    if files:
        shown = ", ".join(map(str, files[:_LISTED])) + (", ..." if len(files) > _LISTED else "")
        note(f"{path}: left out {len(files):,} of what is there ({why}): {shown}")


def _split_of(file: Path, root: Path) -> str | None:
    """The split that a file's name says, else that of the nearest folder below ``root`` whose name says one."""
    inside = file.relative_to(root) if file.is_relative_to(root) else Path(file.name)
    for name in reversed(inside.parts):
        for split, pattern in _WORDS.items():
            if pattern.search(name.lower()):
                return split
    return None


def _by_name(files: Sequence[Path], path: str) -> dict[str, list[Path]]:
    """Files whose names say their split; empty unless one says train and one says another."""
    named: dict[str, list[Path]] = {}
    rest: list[Path] = []
    root = Path(*itertools.takewhile(lambda part: not glob.has_magic(part), Path(path).expanduser().parts))
    for file in files:
        split = _split_of(file, root)
        (rest if split is None else named.setdefault(split, [])).append(file)
    if "train" not in named or len(named) < 2:
        return {}
    _tell_left_out(path, rest, "files are named by split, and these are not")
    return named


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
    if len(files) > 1 and (named := _by_name(files, path)):
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
    ends = list(itertools.accumulate(share if exact else share * total for share in shares))
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
