"""What outputs are written through: links, pipes, devices, what a process has open already, and compression."""

import contextlib
import errno
import gzip
import io
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, TextIO

__all__ = ["open_through", "passes_on", "target_of", "text_into"]

_OPENED = re.compile(r"(/proc/(\d+|self|thread-self)(/task/\d+)?|/dev)/fd")
# links that lead to each other
_MOST_LINKS = 40


def passes_on(path: str | os.PathLike[str]) -> bool:
    """Whether what is at ``path`` takes bytes and passes them on: a pipe, a device, or an open file of a process, such
    as /dev/stdout. An ordinary file is none, wherever it lies; /dev/shm holds such."""
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):
        return False
    if stat.S_ISDIR(mode):
        return False
    return not stat.S_ISREG(mode) or _is_open_file(os.path.abspath(path))  # noqa: PTH100 (resolve follows links)


def _is_open_file(path: str) -> bool:
    for _ in range(_MOST_LINKS):
        folder = os.path.realpath(os.path.dirname(path))  # noqa: PTH120
        if _OPENED.fullmatch(folder) or _OPENED.fullmatch(os.path.dirname(path)):  # noqa: PTH120
            return True
        if not os.path.islink(path):  # noqa: PTH114
            return False
        path = os.path.join(folder, os.readlink(path))  # noqa: PTH115, PTH118
    return False


def target_of(path: Path) -> Path:
    """What a link leads to, else the path itself. Raises OSError for links that lead to each other."""
    target = Path(os.path.realpath(path)) if path.is_symlink() else path
    if target.is_symlink():
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
    return target


def open_through(path: str | os.PathLike[str]) -> BinaryIO:
    """Open what passes bytes on, for appending: behind /dev/stdout may be a file that holds something already."""
    return os.fdopen(os.open(path, os.O_WRONLY | os.O_APPEND), "wb")


@contextlib.contextmanager
def text_into(raw: BinaryIO, path: Path) -> Iterator[TextIO]:
    """A text file in UTF-8 over an open one; gzipped where the name at ``path`` ends in ``.gz``."""
    with raw:
        # no name and no time in the header: equal content gives equal bytes
        packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.suffix == ".gz" else raw
        with io.TextIOWrapper(packed, encoding="utf-8", errors="backslashreplace", newline="\n") as file:
            yield file
