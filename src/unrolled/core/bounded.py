"""Reading compressed files that may be made to fill the memory."""

import lzma
import struct
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from unrolled.core.errors import UnrolledError
from unrolled.core.files import regular_file

__all__ = ["LONGEST_LINE", "UNREADABLE", "bounded_lines", "check_archive"]

LONGEST_LINE = 1 << 20
# What nobody compresses: gzip reaches 1,000 to 1 where everything is the same, figures and words 3 to 1.
_UNSUSPICIOUS, _RATIO = 16 << 20, 100

UNREADABLE = (
    zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError, ValueError, RuntimeError, IndexError,
    KeyError, OverflowError,
)  # fmt: skip
"""What Python's readers of compressed files raise over damaged ones, beside OSError."""


def bounded_lines(file: IO[bytes], packed: int) -> Iterator[bytes]:
    """The lines of an open file, their ends included.

    Args:
        packed: the size of the file as it lies on the disk.
    Raises:
        ValueError: a line without end, or more text than a compressed file of this size honestly holds.
    """
    read = 0
    while line := file.readline(LONGEST_LINE + 1):
        read += len(line)
        if len(line) > LONGEST_LINE:
            raise ValueError("a line is too long")
        if suspicious(read, packed):
            raise ValueError("too much text for its size")
        yield line


def suspicious(size: int, packed: int) -> bool:
    """Whether so many bytes from a compressed file of ``packed`` bytes are an attack rather than data."""
    return size > max(_UNSUSPICIOUS, _RATIO * packed)


def check_archive(path: Path, most: int) -> None:
    """Look through the directory of a zip archive before anything in it is unpacked.

    Args:
        most: bytes that its members may have in all.
    Raises:
        UnrolledError: no archive, locked by a password, or larger inside than ``most`` or than is honest.
    """
    path = regular_file(path)
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except UNREADABLE as error:
        raise UnrolledError(f"{path} is damaged or no zip archive; fetch it again.") from error
    except OSError as error:
        raise UnrolledError(f"cannot read {path}: {error.strerror or error}.") from error
    if any(member.flag_bits & 1 for member in members):
        raise UnrolledError(f"{path} is locked by a password; unpack it and give the folder.")
    size = sum(member.file_size for member in members)
    if size > most or suspicious(size, path.stat().st_size):
        raise UnrolledError(f"{path} holds {size:,} bytes, which is too much to be read at once; unpack and divide it.")
