"""Files that may be compressed: gzip, bzip2 and xz, known by their first bytes and not by their name."""

import bz2
import gzip
import io
import lzma
import stat
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

from unrolled.core.errors import UnrolledError, UsageError

__all__ = ["BROKEN", "SUFFIXES", "check_is_text", "is_packed", "open_arriving", "open_packed"]

BROKEN = (gzip.BadGzipFile, lzma.LZMAError, zlib.error, EOFError)
"""What reading broken compression raises; bzip2 raises an OSError without a number."""

SUFFIXES = (".gz", ".bz2", ".xz")
_KINDS: dict[bytes, tuple[str, Callable[..., object]]] = {
    b"\x1f\x8b\x08": ("gzip", gzip.open),
    b"BZh": ("bzip2", bz2.open),
    b"\xfd7zXZ\x00": ("xz", lzma.open),
}
_HEAD = 10
# The first block of a bzip2 file begins with digits of pi, and the end of an empty one with those of its root; a text
# may well begin with BZh.
_BZIP2_BLOCKS = bytes.fromhex("314159265359"), bytes.fromhex("177245385090")
# Kinds of files that are no text, and that nothing here unpacks.
_OTHERS = {
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"PK\x03\x04": "a zip archive (as .docx, .xlsx and .epub files are)",
    b"%PDF-": "a PDF document",
    b"{\\rtf": "an RTF document",
    b"7z\xbc\xaf\x27\x1c": "a 7z archive",
    b"\xd0\xcf\x11\xe0": "an old Office document",
    b"\xff\xfe\x00\x00": "UTF-32 (it begins with the mark of that encoding)",
    b"\x00\x00\xfe\xff": "UTF-32 (it begins with the mark of that encoding)",
    b"\xff\xfe": "UTF-16 (it begins with the mark of that encoding, as what Excel calls Unicode text)",
    b"\xfe\xff": "UTF-16 (it begins with the mark of that encoding)",
}


def _opener(head: bytes) -> Callable[..., object] | None:
    for magic, (name, opener) in _KINDS.items():
        if head.startswith(magic) and (name != "bzip2" or head[4:_HEAD] in _BZIP2_BLOCKS):
            return opener
    return None


def is_packed(path: Path) -> bool:
    """Whether the file at ``path`` is compressed, or is so by its name."""
    if path.suffix in SUFFIXES:
        return True
    if not stat.S_ISREG(path.stat().st_mode):  # a pipe can be read once only
        return False
    with path.open("rb") as file:
        return _opener(file.read(_HEAD)) is not None


def open_packed(path: Path) -> BinaryIO:
    """The uncompressed bytes of a file.

    Raises:
        UnrolledError: its name says that it is compressed, and its content is not. OSError: it cannot be read.
    """
    file = path.open("rb")
    if not file.seekable():
        return file
    opener = _opener(file.read(_HEAD))
    if opener is not None:
        file.close()
        return opener(path, "rb")  # type: ignore[return-value]
    if path.suffix in SUFFIXES and file.tell():
        file.close()
        raise UnrolledError(f"{path} is named {path.suffix} and is not compressed so; fetch it again, or rename it.")
    file.seek(0)
    return file


def open_arriving(stream: BinaryIO) -> BinaryIO:
    """The uncompressed bytes of a stream, such as a pipe, of which no more is read than its kind needs to be known."""
    read, head = getattr(stream, "read1", stream.read), b""
    while len(head) < _HEAD and any(magic[: len(head)] == head[: len(magic)] for magic in _KINDS):
        data = read(_HEAD - len(head))
        if not data:
            break
        head += data
    ahead = _Ahead(head, stream)
    opener = _opener(head)
    return ahead if opener is None else opener(ahead, "rb")  # type: ignore[return-value]


class _Ahead(io.RawIOBase):
    """A stream whose first bytes have been looked at."""

    def __init__(self, head: bytes, stream: BinaryIO):
        self._head, self._stream = head, stream

    def readable(self) -> bool:
        return True

    def read1(self, size: int = -1) -> bytes:
        if not self._head:
            return getattr(self._stream, "read1", self._stream.read)(size)
        data, self._head = (self._head, b"") if size < 0 else (self._head[:size], self._head[size:])
        return data

    read = read1


def check_is_text(head: bytes, name: str, remedy: str | None) -> None:
    """Raises UsageError where a file's first bytes say that it is something else than text in UTF-8.

    Args:
        remedy: how to read its bytes as they are all the same, such as "corpus.reading=exact"; None: not at all.
    """
    for magic, kind in _OTHERS.items():
        if head.startswith(magic):
            exact = "" if remedy is None else f" (to read its bytes as they are: {remedy})"
            raise UsageError(f"{name} is {kind}; save it as plain text in UTF-8{exact}.")
