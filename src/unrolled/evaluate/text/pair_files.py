"""Where minimal pairs come from: JSON lines, alone, in a folder or in a zip archive."""

import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.core.bounded import LONGEST_LINE, UNREADABLE, check_archive, suspicious
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import parse_json, read_bounded
from unrolled.core.packed import SUFFIXES, open_packed
from unrolled.core.registry import cut
from unrolled.data.places import corpus_folders
from unrolled.data.plain import decode_text
from unrolled.data.user import tell_left_out

__all__ = ["Pair", "read_pairs"]

_MOST_BYTES = 256 << 20  # ten times BLiMP
_LABELS = {"UID": (str, int, type(None)), "linguistics_term": (str, type(None)), "field": (str, type(None))}


class Pair(NamedTuple):
    """good, bad: sentences. phenomenon, field: what the paradigm belongs to, None where the file does not say."""

    good: str
    bad: str
    phenomenon: str | None = None
    field: str | None = None

    @property
    def sentences(self) -> tuple[str, str]:
        """Both, the good one first."""
        return self.good, self.bad


def read_pairs(
    task: str | os.PathLike[str], good: str = "sentence_good", bad: str = "sentence_bad"
) -> dict[str, list[Pair]]:
    """Minimal pairs by paradigm: the line's ``UID``, else the file's name.

    Args:
        task: ``blimp``, which is looked for among the corpora; or a file of JSON lines, a folder or a .zip with such.
        good, bad: keys of the two sentences.
    Raises:
        UsageError: nothing there; a line without the keys. UnrolledError: a damaged file.
    """
    path = _blimp() if os.fspath(task) == "blimp" else Path(task)
    pairs: dict[str, list[Pair]] = {}
    for stem, name, data in _files(path):
        lines = decode_text(data, name).split("\n")
        for number, line in enumerate(lines, 1):
            if line.strip():
                value = _value(line, f"line {number} of {name}")
                for key in (good, bad):
                    if not isinstance(value.get(key), str):
                        keys = cut(", ".join(sorted(value)))
                        raise UsageError(
                            f"line {number} of {name} has no sentence {key!r}, only {keys}; name "
                            "the keys with --set pairs.good=... and --set pairs.bad=..."
                        )
                for key, kinds in _LABELS.items():
                    if not isinstance(value.get(key), kinds):
                        raise UsageError(f"line {number} of {name} has a {key!r} that is no text; leave it out.")
                paradigm = str(value.get("UID") or stem)
                pair = Pair(value[good], value[bad], value.get("linguistics_term"), value.get("field"))
                pairs.setdefault(paradigm, []).append(pair)
    if not pairs:
        raise UsageError(f"there are no pairs in {path}; give JSON lines, or a folder or .zip of .jsonl files.")
    return pairs


def _value(line: str, where: str) -> dict[str, Any]:
    if len(line) > LONGEST_LINE:
        raise UnrolledError(f"{where} is longer than a million characters, which no pair is; it is of another kind.")
    try:
        value = parse_json(line)
    except ValueError as error:
        raise UnrolledError(f"{where} is not JSON; it is damaged or of another kind.") from error
    if not isinstance(value, dict):
        raise UnrolledError(f"{where} is not a JSON object; it is of another kind.")
    return value


def _blimp() -> Path:
    for folder in corpus_folders():
        for path in (folder / "blimp" / "blimp.zip", folder / "blimp"):
            if path.is_file() or (path.is_dir() and any(path.glob("*.jsonl"))):
                return path
    raise UsageError(
        "BLiMP is not on this machine; put the 67 .jsonl files of github.com/alexwarstadt/blimp, or a zip of them "
        "named blimp.zip, into the folder blimp below $UNROLLED_DATA."
    )


def _files(path: Path) -> Iterator[tuple[str, str, bytes]]:
    """Stem, name and content of each file of pairs, in order of name."""
    if not path.exists():
        raise UsageError(f"there are no pairs at {path}; give blimp, or JSON lines, a folder or a .zip of such.")
    try:
        if path.is_dir():
            files = {file.relative_to(path): _stem(file.name) for file in sorted(path.rglob("*")) if not file.is_dir()}
            tell_left_out(str(path), [file for file, stem in files.items() if stem is None], "no files of pairs")
            for file, stem in files.items():
                if stem is not None:
                    yield stem, str(path / file), _unpacked(path / file)
        elif path.suffix == ".zip":
            check_archive(path, _MOST_BYTES)
            with zipfile.ZipFile(path) as archive:
                names = [name for name in sorted(archive.namelist()) if "__MACOSX" not in name and name[-1:] != "/"]
                left_out = [Path(name) for name in names if Path(name).suffix != ".jsonl"]
                tell_left_out(str(path), left_out, "no files of pairs")
                for name in (name for name in names if Path(name) not in left_out):
                    yield Path(name).stem, f"{name} in {path}", archive.read(name)
        else:
            yield _stem(path.name) or path.stem, str(path), _unpacked(path)
    except UNREADABLE as error:
        raise UnrolledError(f"{path} is damaged or no zip archive; fetch it again.") from error
    except OSError as error:
        raise UnrolledError(f"cannot read {path}: {error.strerror or error}.") from error


def _stem(name: str) -> str | None:
    """The name of a paradigm by its file's; None where it is no file of pairs."""
    path = Path(name)
    path = path.with_suffix("") if path.suffix in SUFFIXES else path
    return path.stem if path.suffix == ".jsonl" and not name.startswith(".") else None


def _unpacked(path: Path) -> bytes:
    """The content of a file, uncompressed."""
    data, most = read_bounded(path, _MOST_BYTES), _MOST_BYTES
    with open_packed(path) as file:
        unpacked = file.read(most + 1)
    if len(unpacked) > most or suspicious(len(unpacked), len(data)):
        raise UnrolledError(f"{path} holds too much to be read at once; unpack and divide it.")
    return unpacked
