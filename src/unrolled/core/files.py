"""Files that are either wholly written or not at all."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.json_text import NESTING, nested_deeper, parse_json
from unrolled.core.pipes import open_through, passes_on, target_of, text_into

__all__ = [
    "NESTING",
    "atomic_folder",
    "atomic_write",
    "make_folder",
    "nested_deeper",
    "open_output",
    "parse_json",
    "read_bounded",
    "read_json",
    "ready_output",
    "regular_file",
    "sha256_file",
    "write_json",
    "writing",
]

_MOST_JSON = 16 << 20
# of the name of a file in that of its temporary neighbour, in characters of at most 4 bytes
_KEPT = 40


def _plain(error: OSError, path: Path) -> UnrolledError:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return UnrolledError(f"no space left while writing {path}: free some and resume; the previous file is intact.")
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UsageError(f"cannot write {path}: permission denied; choose another folder.")
    return UnrolledError(f"cannot write {path}: {error.strerror or error}.")


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError of what is done inside into one plain sentence about ``path``."""
    try:
        yield
    except BrokenPipeError:  # nobody reads what is at the path any more: no fault of ours
        raise
    except OSError as error:
        raise _plain(error, path) from error
    except Exception as error:  # safetensors reports what the system said as its own type of error, in its own words
        if type(error).__name__ != "SafetensorError":
            raise
        number = re.search(r"(?:os error |code: )(\d+)", str(error))
        code = int(number.group(1)) if number else errno.EIO
        raise _plain(OSError(code, os.strerror(code)), path) from error


def _sync_folder(folder: Path) -> None:
    with contextlib.suppress(OSError):  # some file systems cannot sync a folder
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def sha256_file(path: str | os.PathLike[str]) -> str:
    """sha256 of a file's bytes, in hexadecimal, read in constant memory."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def make_folder(path: str | os.PathLike[str]) -> Path:
    """Create a folder and its parents. Raises UsageError in one sentence where that is impossible."""
    path = Path(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:
        raise UsageError(f"{path} is a file, not a folder; choose another folder.") from error
    except NotADirectoryError as error:
        raise UsageError(f"{path} lies below a file, not a folder; choose another folder.") from error
    except OSError as error:
        raise _plain(error, path) from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise UsageError(f"cannot write into {path}: permission denied; choose another folder.")
    return path


def ready_output(path: str | os.PathLike[str], *inputs: str | os.PathLike[str]) -> Path:
    """Make sure that an output can be written, before the work that it is to hold is done.

    Its folder is made. Raises UsageError in one sentence where the output is a folder, cannot be written, or is one of
    the inputs, which would be lost.
    """
    path = Path(path)
    if passes_on(path):
        return path
    if path.is_dir():
        raise UsageError(f"{path} is a folder; name a file in it.")
    for given in inputs:
        with contextlib.suppress(OSError):
            if path.samefile(given):
                raise UsageError(f"{path} is what is read, and would be lost; name another file with --out.")
    with writing(path):
        target = target_of(path)
    make_folder(target.parent)
    if target.exists() and not os.access(target, os.W_OK):
        raise _plain(PermissionError(errno.EACCES, ""), path)
    return path


@contextlib.contextmanager
def _replacing(path: Path) -> Iterator[Path]:
    """A temporary neighbour of a file, to be written; at the end it is flushed to disk and renamed into place.

    A link stays a link, and its target is replaced. A file that is there keeps its mode and, where we may set it, its
    owner; one with several names is written over, so that all of them have the new content.
    """
    target = target_of(path)
    old = target.stat() if target.exists() else None
    if old is not None and not os.access(target, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))
    # a name may be as long as the system allows already
    handle, name = tempfile.mkstemp(prefix=f".{target.name[:_KEPT]}.", suffix=".part", dir=target.parent)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb+") as file:
            os.fsync(file.fileno())
        if old is None:
            part.chmod(0o666 & ~_umask())
        else:
            with contextlib.suppress(OSError):
                os.chown(part, old.st_uid, old.st_gid)
            part.chmod(stat.S_IMODE(old.st_mode))
        if old is not None and old.st_nlink > 1:
            with part.open("rb") as source, target.open("rb+") as file:
                shutil.copyfileobj(source, file)
                file.truncate()
                os.fsync(file.fileno())
            part.unlink()
        else:
            part.replace(target)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    _sync_folder(target.parent)


def atomic_write(path: str | os.PathLike[str], content: bytes | str | Callable[[Path], object]) -> None:
    """Write a file through a temporary neighbour, flush it to disk and rename it into place.

    Where a pipe or device is at ``path``, it gets the bytes. A link is followed, and a file that is there keeps
    its mode.

    Args:
        content: the bytes or text, or a function that writes the file whose path it is given.
    Raises:
        UnrolledError: full disk or no permission; an earlier file of this name survives.
    """
    path = Path(path)
    with writing(path):
        if not passes_on(path):
            with _replacing(path) as part:
                _fill(part, content)
            return
        if not callable(content):
            with open_through(path) as file:
                file.write(content.encode() if isinstance(content, str) else content)
            return
        with tempfile.TemporaryDirectory() as folder:
            part = Path(folder) / "part"
            content(part)
            with part.open("rb") as source, open_through(path) as file:
                shutil.copyfileobj(source, file)


def _fill(part: Path, content: bytes | str | Callable[[Path], object]) -> None:
    if callable(content):
        content(part)
    elif isinstance(content, str):
        part.write_text(content, encoding="utf-8", newline="\n")
    else:
        part.write_bytes(content)


@contextlib.contextmanager
def open_output(path: str | os.PathLike[str]) -> Iterator[TextIO]:
    """A text file in UTF-8 that appears whole at the end, or not at all; a pipe or device gets the text as it comes.

    It is gzipped where its name ends in ``.gz``. What Unicode does not have, such as the odd bytes of a file's name,
    is written as on standard output, with a backslash.

    Raises:
        UnrolledError: see :func:`atomic_write`.
    """
    path = Path(path)
    with writing(path):
        if passes_on(path):
            with text_into(open_through(path), path) as file:
                yield file
            return
        with _replacing(path) as part, text_into(part.open("wb"), path) as file:
            yield file
            file.close()


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Fill a temporary folder, then rename it to ``path``, which must not exist yet."""
    path = Path(path)
    with writing(path):
        part = Path(tempfile.mkdtemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent))
        try:
            yield part
            for file in part.rglob("*"):
                if file.is_file():
                    with file.open("rb+") as opened:
                        os.fsync(opened.fileno())
            _sync_folder(part)
            part.chmod(0o777 & ~_umask())
            part.rename(path)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    _sync_folder(path.parent)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write JSON atomically, indented, with a final newline."""
    atomic_write(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def regular_file(path: str | os.PathLike[str]) -> Path:
    """The path of an ordinary file. To be asked before opening: a pipe without a writer is never opened, and a device
    may never end.

    Raises:
        UnrolledError: missing, a folder, a pipe or a device.
    """
    path = Path(path)
    try:
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError) as error:
        raise UnrolledError(f"{path} does not exist.") from error
    except OSError as error:
        raise UnrolledError(f"cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:  # a NUL in the name
        raise UsageError(f"{str(path)!r} is no name of a file; give another one.") from error
    if not stat.S_ISREG(mode):
        kind = "a folder" if stat.S_ISDIR(mode) else "a pipe or a device"
        raise UnrolledError(f"cannot read {path}: it is {kind}, not a file; put the file in its place.")
    return path


def read_bounded(path: str | os.PathLike[str], most: int) -> bytes:
    """The bytes of a file. Raises UnrolledError in one sentence: no ordinary file, unreadable, or above ``most``."""
    path = regular_file(path)
    try:
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise UnrolledError(f"cannot read {path}: {error.strerror or error}.") from error
    if len(data) > most:
        size = f"{most >> 20} MB" if most >= 1 << 20 else f"{most >> 10} kB"
        raise UnrolledError(f"{path} is larger than {size}: it is damaged or of another kind.")
    return data


def read_json(path: str | os.PathLike[str], most: int = _MOST_JSON) -> Any:
    """Read JSON.

    Args:
        most: the size of the largest file that is read, in bytes.
    Raises:
        UnrolledError: the file is missing, broken, too large or no ordinary file; in one sentence.
    """
    data = read_bounded(path, most)
    try:
        return parse_json(data)
    except ValueError as error:
        raise UnrolledError(f"{path} is not valid JSON: it is damaged or of another program.") from error
