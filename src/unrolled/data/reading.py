"""Reading text in blocks: plain or compressed, whole files or ranges, never a whole file in memory."""

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, NamedTuple

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.packed import BROKEN, is_packed, open_arriving, open_packed
from unrolled.data.plain import PlainText, Reading, decode_text, not_utf8

__all__ = ["BLOCK", "Part", "Piece", "StreamPart", "find_cut", "read_parts", "read_plain", "text_part"]

BLOCK = 1 << 20
# A text without line end or space for this many bytes is cut anyway.
_LONGEST = 16 << 20
_HEAD, _READ = 16, 1 << 16


class Piece(NamedTuple):
    """A block of a split: its bytes, whether a document begins with it, and where it was read.

    offset: of its first byte in the (uncompressed) file, before anything was left out.
    """

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
        period: number of the slice in time that it is of, from 0; None without a date.
    """

    name: str
    path: Path | None = None
    start: int = 0
    stop: int | None = None
    make: Callable[[], bytes] | None = None
    period: int | None = None

    def chunks(self) -> Iterator[bytes]:
        """The bytes of this part, at most BLOCK at a time. Raises UnrolledError on an unreadable file."""
        left = None if self.stop is None else self.stop - self.start
        with self._readable(), self._open() as file:
            _skip(file, self.start)
            while left is None or left > 0:
                data = file.read(BLOCK if left is None else min(BLOCK, left))
                if not data:
                    return
                if left is not None:
                    left -= len(data)
                yield data

    @contextlib.contextmanager
    def _readable(self) -> Iterator[None]:
        """Turn what reading raises into one plain sentence."""
        try:
            yield
        except BROKEN as error:
            raise UnrolledError(f"{self.name} is damaged (its compression is broken); fetch it again.") from error
        except OSError as error:
            if error.errno is None:  # how bzip2 says it
                raise UnrolledError(f"{self.name} is damaged (its compression is broken); fetch it again.") from error
            raise UnrolledError(f"cannot read {self.name}: {error.strerror or error}.") from error

    def _open(self) -> BinaryIO:
        if self.make is not None:
            return io.BytesIO(self.make())
        assert self.path is not None
        return open_packed(self.path)

    def size(self) -> int:
        """Uncompressed bytes of this part (a compressed file is read through)."""
        if self.path is not None and not is_packed(self.path):
            total = self.path.stat().st_size
            return min(total, self.stop if self.stop is not None else total) - self.start
        return sum(map(len, self.chunks()))


@dataclass(frozen=True)
class StreamPart(Part):
    """Text that arrives on a stream, such as standard input or a pipe: given on as soon as a line is whole.

    Args:
        stream: its bytes; absent: ``path`` is opened.
    """

    stream: BinaryIO | None = field(default=None, kw_only=True)

    def chunks(self) -> Iterator[bytes]:
        """See :meth:`Part.chunks`."""
        with self._readable(), self._open() as file:
            yield from _arriving(open_arriving(file))

    def _open(self) -> BinaryIO:
        if self.stream is not None:  # not ours to be closed
            return contextlib.nullcontext(self.stream)  # type: ignore[return-value]
        assert self.path is not None
        return self.path.open("rb")


def _arriving(stream: BinaryIO) -> Iterator[bytes]:
    held: list[bytes] = []
    while data := stream.read1(_READ):  # type: ignore[attr-defined]
        held.append(data)
        if b"\n" in data or sum(map(len, held)) >= BLOCK:
            yield b"".join(held)
            held = []
    yield from held


def text_part(name: str | os.PathLike[str]) -> Part:
    """A text that is read once: a file, compressed or not, a pipe, or ``-``, which is standard input.

    Raises:
        UsageError: there is none of that name, or it is a folder; standard input is closed.
    """
    name, path = os.fspath(name), Path(name)
    if name == "-":
        if sys.stdin is None:
            raise UsageError("standard input is closed; name a file.")
        return StreamPart("standard input", stream=sys.stdin.buffer)
    if not path.exists():
        raise UsageError(f"{name} does not exist.")
    if path.is_dir():
        raise UsageError(f"{name} is a folder, not a file.")
    return Part(name, path) if path.is_file() else StreamPart(name, path)


def read_plain(name: str | os.PathLike[str]) -> str:
    """The whole of a text that is not large, by the rule of :mod:`unrolled.data.plain`; see :func:`text_part`."""
    part = text_part(name)
    return decode_text(b"".join(part.chunks()), part.name)


def _skip(file: BinaryIO, count: int) -> None:
    if count and isinstance(file, io.BufferedReader | io.BytesIO) and file.seekable():
        file.seek(count)
        return
    while count > 0:
        got = len(file.read(min(BLOCK, count)))
        if not got:
            return
        count -= got


def _last_break(data: bytes, reading: Reading) -> int:
    """Where to cut ``data`` so that no line, else no word, else no UTF-8 character is divided; 0: nowhere."""
    cut = data.rfind(b"\n") + 1
    if not cut and reading == "text":  # lines may end with CR; the last byte may be the first of CR LF
        cut = data.rfind(b"\r", 0, -1) + 1
    cut = cut or data.rfind(b" ") + 1
    if cut or len(data) < _LONGEST:
        return cut
    cut = _character_break(data)
    return cut - data.endswith(b"\r", 0, cut)


def _character_break(data: bytes) -> int:
    for back in range(1, min(4, len(data)) + 1):
        byte = data[-back]
        if byte & 0xC0 != 0x80:
            needed = 1 if byte < 0x80 else 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(data) if back >= needed else len(data) - back
    return len(data)


def _blocks(part: Part, reading: Reading) -> Iterator[bytes]:
    """Blocks that end at line ends, in a line longer than a block at a space."""
    held = b""
    for chunk in part.chunks():
        held += chunk
        cut = _last_break(held, reading)
        if cut:
            yield held[:cut]
            held = held[cut:]
    if held:
        yield held


def read_parts(
    parts: Iterable[Part], reading: Reading = "text", utf8: bool = False, remedy: str | None = None
) -> Iterator[Piece]:
    """The pieces of a split. Between two documents a missing line end is added, so that no words merge.

    Args:
        reading: ``text``: by the rule of :mod:`unrolled.data.plain`; ``exact``: the bytes as they are.
        utf8: demand UTF-8, and refuse NUL bytes.
        remedy: how a user asks for the bytes as they are, for messages.
    Raises:
        UsageError: with ``utf8``, another encoding (names file and byte); with ``text``, a file of another kind.
    """
    rule = PlainText(remedy) if reading == "text" else None
    ended, first = True, True
    for part in parts:
        begins, offset = True, part.start
        for block in _blocks(part, reading):
            if rule is not None and offset == 0:
                rule.start(block[:_HEAD], part.name)
            if utf8:
                _check(block, part.name, offset, remedy)
            data = block if rule is None else rule.plain(block, part.name)
            if data:  # nothing may be left of a block
                if begins and not ended and not first:
                    yield Piece(b"\n", False, part.name, offset)
                yield Piece(data, begins, part.name, offset)
                begins, first, ended = False, False, data.endswith(b"\n")
            offset += len(block)
    if rule is not None:
        rule.tell()


def _check(block: bytes, source: str, offset: int, exact: str | None) -> None:
    """Raises UsageError, with file and byte, where a block is not UTF-8 or holds a NUL byte."""
    remedy = ", or read its bytes with the byte tokenizer (tokenizer.name=byte)" if exact else ""
    try:
        block.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(source, offset + error.start, remedy=remedy) from error
    if (at := block.find(b"\0")) >= 0:
        raise UsageError(f"{source} holds a NUL byte at {offset + at}, so it is no text in UTF-8; convert it{remedy}.")


def find_cut(part: Part, at: int) -> int:
    """The first line end at or after byte ``at`` of a part, else the first space, else a UTF-8 boundary.

    Looks no further than one block. Returns a position in the part's file, at most the part's end.
    """
    if at <= 0:
        return part.start
    # One byte earlier, so that a cut that already falls behind a line end stays there.
    start = part.start + at - 1
    data = next(Part(part.name, part.path, start, part.stop, part.make).chunks(), b"")
    for mark in (b"\n", b"\r", b" "):
        found = data.find(mark)
        if found >= 0:
            return start + found + 1
    skip = 1
    while skip < len(data) and data[skip] & 0xC0 == 0x80:
        skip += 1
    return start + min(skip, len(data))
