"""Files that are either wholly written or not at all."""

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unrolled.core.errors import UnrolledError, UsageError

__all__ = ["atomic_folder", "atomic_write", "make_folder", "read_json", "sha256_file", "write_json", "writing"]


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


def atomic_write(path: str | os.PathLike[str], content: bytes | str | Callable[[Path], object]) -> None:
    """Write a file through a temporary neighbour, flush it to disk and rename it into place.

    Args:
        content: the bytes or text, or a function that writes the file whose path it is given.
    Raises:
        UnrolledError: full disk or no permission; an earlier file of this name survives.
    """
    path = Path(path)
    with writing(path):
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
        os.close(handle)
        part = Path(name)
        try:
            if callable(content):
                content(part)
            elif isinstance(content, str):
                part.write_text(content, encoding="utf-8")
            else:
                part.write_bytes(content)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
            part.chmod(0o666 & ~_umask())
            part.replace(path)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
    _sync_folder(path.parent)


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


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read JSON. Raises UnrolledError in one sentence when the file is missing or broken."""
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnrolledError(f"{path} does not exist.") from error
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UnrolledError(f"{path} is not valid JSON: it is damaged or of another program.") from error
    except OSError as error:
        raise UnrolledError(f"cannot read {path}: {error.strerror or error}.") from error
