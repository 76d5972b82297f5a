"""Reading text in blocks: plain, gzip or xz, whole files or ranges, never a whole file in memory."""

import gzip
import io
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, NamedTuple

from unrolled.core.errors import UnrolledError, UsageError

__all__ = ["BLOCK", "Part", "Piece", "check_utf8", "find_cut", "read_parts"]

BLOCK = 1 << 20
# A text without line end or space for this many bytes is cut anyway.
_LONGEST = 16 << 20
_BROKEN = (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError)


class Piece(NamedTuple):
    """A block of a split: its bytes, whether a document begins with it, and where it was read."""

    data: bytes
    begins: bool
    source: str
    offset: int


@dataclass(frozen=True)
class Part:
    """One document of a split: a file, a range of its uncompressed bytes, or text made by a function.

    Args:
        name: the file's path, or what to call the document in messages.
        path: the file, or None with ``make``.
        start, stop: range of uncompressed bytes; None is the end.
        make: gives the whole text.
    """

    name: str
    path: Path | None = None
    start: int = 0
    stop: int | None = None
    make: Callable[[], bytes] | None = None

    def chunks(self) -> Iterator[bytes]:
        """The bytes of this part, at most BLOCK at a time. Raises UnrolledError on an unreadable file."""
        left = None if self.stop is None else self.stop - self.start
        try:
            with self._open() as file:
                _skip(file, self.start)
                while left is None or left > 0:
                    data = file.read(BLOCK if left is None else min(BLOCK, left))
                    if not data:
                        return
                    if left is not None:
                        left -= len(data)
                    yield data
        except _BROKEN as error:
            raise UnrolledError(f"{self.name} is damaged (its compression is broken); fetch it again.") from error
        except OSError as error:
            raise UnrolledError(f"cannot read {self.name}: {error.strerror or error}.") from error

    def _open(self) -> BinaryIO:
        if self.make is not None:
            return io.BytesIO(self.make())
        assert self.path is not None
        if self.path.suffix == ".gz":
            return gzip.open(self.path, "rb")  # type: ignore[return-value]
        if self.path.suffix == ".xz":
            return lzma.open(self.path, "rb")  # type: ignore[return-value]
        return self.path.open("rb")

    def size(self) -> int:
        """Uncompressed bytes of this part (a compressed file is read through)."""
        if self.path is not None and self.path.suffix not in (".gz", ".xz"):
            total = self.path.stat().st_size
            return min(total, self.stop if self.stop is not None else total) - self.start
        return sum(map(len, self.chunks()))


def _skip(file: BinaryIO, count: int) -> None:
    if count and file.seekable() and not isinstance(file, gzip.GzipFile | lzma.LZMAFile):
        file.seek(count)
        return
    while count > 0:
        got = len(file.read(min(BLOCK, count)))
        if not got:
            return
        count -= got


def _last_break(data: bytes) -> int:
    """Where to cut ``data`` so that no line, else no word, else no UTF-8 character is divided; 0: nowhere."""
    for mark in (b"\n", b" "):
        cut = data.rfind(mark) + 1
        if cut:
            return cut
    return _character_break(data) if len(data) >= _LONGEST else 0


def _character_break(data: bytes) -> int:
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) if back >= needed else len(data) - back
    return len(data)


def _blocks(part: Part) -> Iterator[bytes]:
    """Blocks that end at line ends, in a line longer than a block at a space."""
    held = b""
    for chunk in part.chunks():
        held += chunk
        cut = _last_break(held)
        if cut:
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held


def read_parts(parts: Iterable[Part]) -> Iterator[Piece]:
    """The pieces of a split. Between two documents a missing line end is added, so that no words merge."""
    ended, first = True, True
    for part in parts:
        begins, offset = True, part.start
        for block in _blocks(part):
            if begins and not ended and not first:
                yield Piece(b"\n", False, part.name, offset)
            yield Piece(block, begins, part.name, offset)
            offset += len(block)
            begins, first, ended = False, False, block.endswith(b"\n")


def check_utf8(piece: Piece) -> Piece:
    """The piece itself. Raises UsageError with file and byte offset when it is not UTF-8."""
    try:
        piece.data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise UsageError(
            f"{piece.source} is not UTF-8 at byte {piece.offset + error.start}; convert it to UTF-8, or read "
            "its bytes with the byte tokenizer (tokenizer.name=byte)."
        ) from error
    return piece


def find_cut(part: Part, at: int) -> int:
    """The first line end at or after byte ``at`` of a part, else the first space, else a UTF-8 boundary.

    Looks no further than one block. Returns a position in the part's file, at most the part's end.
    """
    if at <= 0:
        return part.start
    # One byte earlier, so that a cut that already falls behind a line end stays there.
    start = part.start + at - 1
    data = next(Part(part.name, part.path, start, part.stop, part.make).chunks(), b"")
    for mark in (b"\n", b" "):
        found = data.find(mark)
        if found >= 0:
            return start + found + 1
    skip = 1
    while skip < len(data) and data[skip] & 0xC0 == 0x80:
        skip += 1
    return start + min(skip, len(data))
