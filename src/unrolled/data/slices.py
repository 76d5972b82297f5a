"""Documents with a date, cut into slices in time, each with splits of its own."""

import hashlib
import re
from collections.abc import Iterator, Sequence
from datetime import date, timedelta
from typing import Any, NamedTuple

from unrolled.core.errors import UsageError
from unrolled.core.files import parse_json
from unrolled.core.notes import note
from unrolled.core.registry import shown, unknown_name
from unrolled.data.reading import Part, read_plain
from unrolled.data.spec import SPLITS, WHOLE
from unrolled.data.user import files_at, tell_left_out

__all__ = ["Document", "check_slices", "dated_documents", "slice_names", "slice_of", "sliced_parts"]

_DAYS = {4: "-01-01", 7: "-01", 10: ""}  # characters of a date -> what makes its first day of it
_DIRECTIVES = {"%Y": r"(?P<Y>\d{4})", "%m": r"(?P<m>\d{2})", "%d": r"(?P<d>\d{2})", "%%": "%"}


class Document(NamedTuple):
    """A text, when it was written (the first and last day that its date may mean), and where it is."""

    first: date
    last: date
    text: bytes
    where: str


def check_slices(config: Any) -> None:
    """Raises UsageError where the settings of a corpus in slices do not go together."""
    if config.time is None:
        if config.slice is not None or config.slices != "year" or config.field != "text":
            raise UsageError(
                "corpus.slice, slices and field are for documents with a date; say where it is with corpus.time."
            )
        return
    if not config.path:
        raise UsageError("corpus.time is for documents of your own; name their file or folder with corpus.path.")
    if config.reading == "exact":
        raise UsageError("documents with a date are read as text; leave out corpus.reading.")
    if isinstance(config.slices, tuple):
        borders = [_span(one, "corpus.slices")[0] for one in config.slices]
        if not borders or borders != sorted(set(borders)):
            raise UsageError("corpus.slices needs one or more days, each later than the one before.")


def _span(value: Any, where: str) -> tuple[date, date]:
    """The first and the last day of a year, a month or a day. Raises UsageError for anything else."""
    text = str(value) if type(value) is int else value
    if isinstance(text, str) and re.match(r"\d{4}-\d{2}-\d{2}[T ]", text):
        text = text[:10]
    try:
        first = date.fromisoformat(text + _DAYS[len(text)])
    except (TypeError, KeyError, ValueError):
        raise UsageError(
            f"{where} has the date {shown(str(value))}, which is no year (2019), month (2019-07) or day (2019-07-31); "
            "correct it."
        ) from None
    if len(text) == 10:
        return first, first
    later = date(first.year + 1, 1, 1) if len(text) == 4 else (first + timedelta(31)).replace(day=1)
    return first, later - timedelta(1)


def slice_of(day: date, slices: str | Sequence[str]) -> str:
    """The name of the slice of a day: its year, quarter (2019-Q3) or month, or the border that the slice begins at; a
    border is the first day of the later slice, and what lies before all of them is ``begin``."""
    if slices == "year":
        return f"{day.year:04}"
    if slices == "quarter":
        return f"{day.year:04}-Q{(day.month + 2) // 3}"
    if slices == "month":
        return f"{day.year:04}-{day.month:02}"
    return next((border for border in reversed(slices) if _span(border, "corpus.slices")[0] <= day), "begin")


def dated_documents(path: str, time: str, field: str = "text") -> list[Document]:
    """The documents of a file, folder or pattern, in order of time, equal texts once: the earliest.

    Args:
        time: a field of JSON lines; or, with a % in it, a pattern of file names, whose files are a document each.
        field: of JSON lines, with the text.
    Raises:
        UsageError: nothing there; a document without text or date.
    """
    found = list(_named(path, time) if "%" in time else _lines(path, time, field))
    found.sort(key=lambda one: (one.first, one.last))
    seen: set[bytes] = set()
    kept = []
    for one in found:
        digest = hashlib.sha256(one.text).digest()
        if one.text.strip() and digest not in seen:
            kept.append(one)
        seen.add(digest)
    if len(kept) < len(found):
        note(f"{path}: left out {len(found) - len(kept):,} of {len(found):,} documents, empty or there before")
    if not kept:
        raise UsageError(f"{path} has no documents with text; give JSON lines, or files whose names hold a date.")
    return kept


def _named(path: str, time: str) -> Iterator[Document]:
    parts = re.split(r"(%.)", time)
    if odd := [part for part in parts if len(part) == 2 and part[0] == "%" and part not in _DIRECTIVES]:
        raise UsageError(f"corpus.time has {odd[0]!r}; it takes %Y, %m and %d, four, two and two digits.")
    if "%Y" not in parts or ("%d" in parts and "%m" not in parts) or any(parts.count(one) > 1 for one in _DIRECTIVES):
        raise UsageError("corpus.time needs %Y, perhaps %m, and with it perhaps %d, each once; such as news-%Y-%m.")
    pattern = re.compile("".join(_DIRECTIVES.get(part, re.escape(part)) for part in parts))
    others = []
    for file in files_at(path):
        match = pattern.search(file.name)
        if match is None:
            others.append(file)
            continue
        groups = match.groupdict()
        day = "-".join(groups[key] for key in "Ymd" if key in groups)
        yield Document(*_span(day, str(file)), read_plain(file).encode(), str(file))
    tell_left_out(path, others, f"their names have no {time}")


def _lines(path: str, time: str, field: str) -> Iterator[Document]:
    for file in files_at(path):
        for number, line in enumerate(read_plain(file).split("\n"), 1):
            where = f"line {number} of {file}"
            if not line.strip():
                continue
            try:
                row = parse_json(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise UsageError(f"{where} is no JSON object; documents with a date are JSON lines, one each.")
            for key in (time, field):
                if key not in row:
                    raise unknown_name(f"field of {where}:", key, list(row))
            if not isinstance(row[field], str):
                raise UsageError(f"{where} has no text in {field!r}; name the field of the text with corpus.field.")
            text = row[field].encode()
            yield Document(*_span(row[time], where), text if text.endswith(b"\n") else text + b"\n", where)


def _grouped(documents: Sequence[Document], slices: str | Sequence[str]) -> dict[str, list[Document]]:
    """Slices in order of time."""
    groups: dict[str, list[Document]] = {}
    for one in documents:
        name = slice_of(one.first, slices)
        if name != slice_of(one.last, slices):
            raise UsageError(
                f"{one.where} has a date ({one.first} to {one.last}) that lies in several slices; cut by longer ones, "
                "or give it a day."
            )
        groups.setdefault(name, []).append(one)
    return groups


def slice_names(config: Any) -> list[str]:
    """The slices of a corpus's text, in order of time. Raises UsageError where its config has no ``time``."""
    if config.time is None:
        raise UsageError(f"the documents of {config.label} have no date; say where it is with corpus.time.")
    return list(_grouped(dated_documents(config.place(config.path), config.time, config.field), config.slices))


def sliced_parts(config: Any, whole: bool = False) -> dict[str, list[Part]]:
    """Split -> documents, in order of time.

    Each slice is cut by itself, by whole documents: in an order that their texts decide, its first documents are of
    train, then of valid, then of test, as ``fractions`` of its bytes. So a document is in one slice and one split, and
    what a slice holds does not depend on the others, but for texts that were there before.

    Args:
        config: a :class:`CorpusConfig` with ``time``. whole: one split with all documents.
    Raises:
        UsageError: no such slice; one with too few documents to be cut.
    """
    groups = _grouped(dated_documents(config.place(config.path), config.time, config.field), config.slices)
    if config.slice is not None:
        if config.slice not in groups:
            raise unknown_name("slice in time", config.slice, groups)
        groups = {config.slice: groups[config.slice]}
    made: dict[str, list[Part]] = {}
    for period, (name, documents) in enumerate(groups.items()):
        splits = {WHOLE: documents} if whole else _cut(name, documents, config.fractions)
        for split, chosen in splits.items():
            made.setdefault(split, []).extend(Part(one.where, make=_text_of(one), period=period) for one in chosen)
    return made


def _text_of(document: Document) -> Any:
    return lambda: document.text


def _cut(name: str, documents: list[Document], shares: Sequence[float]) -> dict[str, list[Document]]:
    order = sorted(range(len(documents)), key=lambda i: hashlib.sha256(documents[i].text).digest())
    total = sum(len(one.text) for one in documents)
    split_of: dict[int, str] = {}
    done = 0
    for i in order:
        place, at = (done + len(documents[i].text) / 2) / total, 0.0
        for split, share in zip(SPLITS, shares, strict=True):
            at += share
            if place < at:
                split_of[i] = split
                break
        done += len(documents[i].text)
    made = {
        split: [documents[i] for i in range(len(documents)) if split_of.get(i) == split]
        for split, share in zip(SPLITS, shares, strict=True)
        if share
    }
    if empty := [split for split, chosen in made.items() if not chosen]:
        raise UsageError(
            f"the slice {name} has {len(documents):,} document(s), too few to be cut: its {empty[0]} part would be "
            "empty; use longer slices or other fractions."
        )
    return made
