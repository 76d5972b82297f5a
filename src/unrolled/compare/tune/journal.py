"""The file in which the sampler's memory is kept, mended where a writer died in the middle of a line."""

import os
from pathlib import Path

from optuna.storages.journal import (
    JournalFileBackend,
    JournalFileOpenLock,
    JournalFileSymlinkLock,
)

from unrolled.compare.sealed import utc_now

__all__ = ["open_journal"]


class _Mending:
    """A lock on a journal whose holder finds it whole.

    A line without its end (a power cut, a full disk, a lost write) would take the next one into itself, and the file
    could be read no more. So it is looked for whenever the lock is taken, which is before every line that is added.
    """

    path: Path

    def acquire(self) -> bool:
        """Wait for the lock, and mend the file."""
        super().acquire()  # type: ignore[misc]
        try:
            _mend(self.path)
        except BaseException:
            self.release()  # type: ignore[attr-defined]
            raise
        return True


class _OpenLock(_Mending, JournalFileOpenLock):
    """A file that one alone can make: Windows lets few users make symbolic links."""


class _SymlinkLock(_Mending, JournalFileSymlinkLock):
    """A symbolic link that one alone can make, on old network folders too."""


def _mend(path: Path) -> None:
    """Cut a file back to its last whole line; what is cut off is kept beside it. Only under the lock."""
    if not path.exists() or not path.stat().st_size:
        return
    with path.open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        if file.read(1) == b"\n":
            return
        file.seek(0)
        data = file.read()
        whole = data.rfind(b"\n") + 1
        stamp = utc_now().replace(":", "")
        torn = path.with_name(f"{path.name}.torn-{stamp}")
        number = 1
        while torn.exists():
            number += 1
            torn = path.with_name(f"{path.name}.torn-{stamp}-{number}")
        torn.write_bytes(data[whole:])
        file.truncate(whole)
        file.flush()
        os.fsync(file.fileno())


def open_journal(path: Path) -> JournalFileBackend:
    """The journal at a path, which is made or mended first."""
    lock = (_OpenLock if os.name == "nt" else _SymlinkLock)(str(path))
    lock.path = path
    lock.acquire()
    lock.release()
    return JournalFileBackend(str(path), lock)
