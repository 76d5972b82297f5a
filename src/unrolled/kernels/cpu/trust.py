"""A library is code: it is loaded, and made, only where nobody but this user and root can have put or changed it.

All looks go from folder to folder by what was opened, never again by a path: what was looked at is what is used.
"""

import contextlib
import errno
import hashlib
import os
import pwd
import shutil
import stat
import uuid
from collections.abc import Iterator
from pathlib import Path

from unrolled.core.errors import UsageError
from unrolled.core.files import make_folder, writing

__all__ = ["Untrusted", "hash_file", "open_trusted", "own_folder", "private_files"]

# A link is no folder here, and a pipe in the place of a file is not waited for.
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_OTHERS = stat.S_IWGRP | stat.S_IWOTH
_TRIES = 3


class Untrusted(Exception):
    """Why a file or folder is not used: a clause that names its path."""


def hash_file(library: Path) -> Path:
    """Where the sha256 of a library is kept. It lies in the same folder, so it guards against damage and mixtures, not
    against those who may write there."""
    return library.with_name(f"{library.name}.sha256")


@contextlib.contextmanager
def private_files() -> Iterator[None]:
    """Files and folders made inside, by this process and those that it starts, are this user's alone."""
    before = os.umask(0o077)
    try:
        yield
    finally:
        os.umask(before)


def open_trusted(library: Path, root: Path) -> int:
    """Open a library whose sha256 lies beside it, for reading; the caller closes it.

    Args:
        root: the folder of the cache, from which on everything is looked at.
    Raises:
        Untrusted: a folder or a file could be another user's work, or the library is not the one that was built.
        OSError: it is not there, or cannot be read.
    """
    handle, place = os.open(root, _FOLDER), root
    try:
        _check_root(handle, place)
        for part in library.parent.relative_to(root).parts:
            place = place / part
            handle = _moved(handle, _opened(handle, place))
        return _checked_library(handle, library)
    finally:
        os.close(handle)


def own_folder(root: Path, *parts: str) -> Path:
    """A folder below the cache that nobody else may write, made under :func:`private_files`.

    Where others may write the cache itself, the sticky bit is set: it keeps them from renaming what is not theirs. What
    lies at a place below it and could be another's work is moved away and deleted, where this user may.

    Raises:
        UsageError: it cannot be made this user's own; names the remedy.
    """
    make_folder(root)
    with writing(root):
        handle, place = os.open(root, _FOLDER), root
        try:
            status = os.fstat(handle)
            if status.st_uid == os.geteuid() and status.st_mode & _OTHERS:
                os.fchmod(handle, stat.S_IMODE(status.st_mode) | stat.S_ISVTX)
            _check_root(handle, place)
            for part in parts:
                place = place / part
                handle = _moved(handle, _made(handle, place))
        except Untrusted as fault:
            raise UsageError(f"{fault}; set UNROLLED_CACHE to a folder of your own.") from fault
        finally:
            os.close(handle)
    return place


def _moved(handle: int, below: int) -> int:
    """From a folder to one below it."""
    os.close(handle)
    return below


def _check_root(handle: int, place: Path) -> None:
    status = os.fstat(handle)
    _check_owner(status, place)
    if status.st_mode & _OTHERS and not status.st_mode & stat.S_ISVTX:
        raise Untrusted(f"others may rename what lies in {place}")


def _check(status: os.stat_result, place: Path) -> None:
    _check_owner(status, place)
    if status.st_mode & _OTHERS:
        raise Untrusted(f"others may write {place}")


def _check_owner(status: os.stat_result, place: Path) -> None:
    if status.st_uid in (os.geteuid(), 0):
        return
    try:
        owner = pwd.getpwuid(status.st_uid).pw_name
    except KeyError:
        owner = f"user {status.st_uid}"
    raise Untrusted(f"{place} belongs to {owner}")


def _opened(handle: int, place: Path) -> int:
    """A folder below an open one."""
    try:
        below = os.open(place.name, _FOLDER | os.O_NOFOLLOW, dir_fd=handle)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise Untrusted(f"{place} is no folder") from error
        raise
    try:
        _check(os.fstat(below), place)
    except Untrusted:
        os.close(below)
        raise
    return below


def _made(handle: int, place: Path) -> int:
    """A folder below an open one, made if it is missing or could be another's work."""
    fault: Exception | None = None
    for _ in range(_TRIES):  # another user may make it again at once
        with contextlib.suppress(FileExistsError):
            os.mkdir(place.name, 0o700, dir_fd=handle)
        try:
            return _opened(handle, place)
        except (Untrusted, PermissionError) as error:
            fault = error
        aside = f".{place.name}.{uuid.uuid4().hex}"
        try:
            os.rename(place.name, aside, src_dir_fd=handle, dst_dir_fd=handle)
        except OSError:
            break
        shutil.rmtree(aside, ignore_errors=True, dir_fd=handle)
        with contextlib.suppress(OSError):  # a file or a link, which rmtree leaves alone
            os.unlink(aside, dir_fd=handle)
    raise fault if isinstance(fault, Untrusted) else Untrusted(f"{place} cannot be opened")


def _checked_library(folder: int, library: Path) -> int:
    """The library in an open folder, once its content has the sha256 that lies beside it."""
    found = _opened_file(folder, library)
    try:
        try:
            beside = _opened_file(folder, hash_file(library))
        except FileNotFoundError as error:
            raise Untrusted(f"{library} has no checksum beside it") from error
        with os.fdopen(beside, "rb") as file:
            wanted = file.read(100).strip()
        with os.fdopen(found, "rb", closefd=False) as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        if content.encode() != wanted:
            raise Untrusted(f"{library} is not what was built")
    except BaseException:
        os.close(found)
        raise
    return found


def _opened_file(folder: int, path: Path) -> int:
    try:
        handle = os.open(path.name, _FILE, dir_fd=folder)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENXIO):
            raise Untrusted(f"{path} is no plain file") from error
        raise
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise Untrusted(f"{path} is no plain file")
        _check(status, path)
    except Untrusted:
        os.close(handle)
        raise
    return handle
