"""Claims on jobs as plain files: any number of workers, on any machines that see the folder, may be killed at any time.

A claim is ``claims/ID.N.json``, made so that one worker alone can make it. Its time of change is a heartbeat. One whose
heart has stopped is renamed to ``ID.N.lost``, which one worker alone can do, and the job is claimed anew as N + 1. Ages
are differences of times that one file system gave, so that clocks of machines are never compared.
"""

import contextlib
import json
import os
import platform
import secrets
import threading
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from unrolled.core.errors import UnrolledError
from unrolled.core.files import make_folder, parse_json, writing

__all__ = ["Claim", "Claims", "Failure", "LostClaimError"]

_FOLDER = "claims"
_HEARTBEAT, _STALE = 30.0, 300.0
MOST_FAILURES = 3


class LostClaimError(UnrolledError):
    """Another worker has taken a job over."""


class Failure(NamedTuple):
    """How often a job failed, and how at last."""

    times: int
    reason: str


class Claim:
    """One worker's claim on a job, kept alive while it is open. A context manager.

    Args:
        path: the file that was made. nonce: what it says.
    """

    def __init__(self, path: Path, nonce: str, heartbeat: float = _HEARTBEAT):
        self.path, self.nonce = path, nonce
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._beat, args=(heartbeat,), daemon=True)
        self._thread.start()

    def _beat(self, seconds: float) -> None:
        while not self._ended.wait(seconds):
            with contextlib.suppress(OSError):
                if self.held():
                    os.utime(self.path)

    def held(self) -> bool:
        """Whether the claim is still this worker's."""
        try:
            return parse_json(self.path.read_bytes()).get("nonce") == self.nonce
        except (OSError, ValueError, AttributeError):
            return False

    def check(self) -> None:
        """Raises LostClaimError where another worker has taken the job over."""
        if not self.held():
            raise LostClaimError("another worker took this job over; nothing more of it is written here.")

    def release(self) -> None:
        """End the claim; the job is free, or done."""
        self._stop()
        if self.held():
            self.path.unlink(missing_ok=True)

    def fail(self, reason: str) -> None:
        """End the claim and note a failure."""
        self._stop()
        if self.held():
            # renamed first, since the disk may be full, which may be the failure itself
            failed = self.path.with_suffix(".failed")
            with contextlib.suppress(OSError):
                self.path.rename(failed)
                failed.write_text(json.dumps({"nonce": self.nonce, "reason": reason}))

    def _stop(self) -> None:
        self._ended.set()
        self._thread.join(timeout=5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._stop()


class Claims:
    """The claims of a comparison's folder.

    Args:
        folder: of the comparison. heartbeat, stale: seconds between signs of life, and without one after which a claim
            is taken over.
    """

    def __init__(self, folder: Path, heartbeat: float = _HEARTBEAT, stale: float = _STALE):
        self.folder = folder / _FOLDER
        self.heartbeat, self.stale = heartbeat, stale

    def take(self, job: str) -> Claim | None:
        """Claim a job; None where a living worker has it."""
        make_folder(self.folder)
        newest = self._newest(job)
        if newest is not None and newest.suffix == ".json":
            if not self._dead(newest):
                return None
            try:
                newest.rename(newest.with_suffix(".lost"))
            except FileNotFoundError:  # another worker was faster, or it has ended
                return None
        number = 1 + (int(newest.stem.rpartition(".")[2]) if newest is not None else 0)
        path, nonce = self.folder / f"{job}.{number}.json", secrets.token_hex(8)
        with writing(path):
            try:
                handle = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644)
            except FileExistsError:
                return None
            with os.fdopen(handle, "w") as file:
                json.dump({"nonce": nonce, **_worker()}, file)
        return Claim(path, nonce, self.heartbeat)

    def _newest(self, job: str) -> Path | None:
        """The file of a job with the largest number."""
        found = []
        for path in self.folder.glob(f"{_escaped(job)}.*"):
            head, _, number = path.stem.rpartition(".")
            if head == job and number.isdecimal() and path.suffix in (".json", ".lost", ".failed"):
                found.append((int(number), path))
        return max(found)[1] if found else None

    def _dead(self, path: Path) -> bool:
        """Whether the worker of a claim lives no more."""
        try:
            value, beaten = parse_json(path.read_bytes()), path.stat().st_mtime
        except (OSError, ValueError):
            value, beaten = {}, self._beaten(path)
        if isinstance(value, dict) and value.get("boot") == _boot() != "" and value.get("host") == platform.node():
            return not _alive(value)
        return beaten is None or self._now() - beaten > self.stale

    def _beaten(self, path: Path) -> float | None:
        with contextlib.suppress(OSError):
            return path.stat().st_mtime
        return None

    def _now(self) -> float:
        """The time by the clock of the file system."""
        path = self.folder / f".now-{platform.node()}-{os.getpid()}"
        path.write_bytes(b"")
        try:
            return path.stat().st_mtime
        finally:
            path.unlink(missing_ok=True)

    def failures(self) -> dict[str, Failure]:
        """Job -> how often it failed, for those that did."""
        found: dict[str, list[tuple[int, Path]]] = {}
        for path in self.folder.glob("*.failed"):
            job, _, number = path.stem.rpartition(".")
            if number.isdecimal():
                found.setdefault(job, []).append((int(number), path))
        failures = {}
        for job, paths in found.items():
            reason = ""
            with contextlib.suppress(OSError, ValueError, AttributeError):
                reason = str(parse_json(max(paths)[1].read_bytes()).get("reason", ""))
            failures[job] = Failure(len(paths), reason)
        return failures

    def parked(self) -> dict[str, Failure]:
        """The jobs that have failed as often as they are tried."""
        return {job: failure for job, failure in self.failures().items() if failure.times >= MOST_FAILURES}

    def retry(self) -> int:
        """Forget all failures; returns how many there were."""
        paths = list(self.folder.glob("*.failed"))
        for path in paths:
            path.unlink(missing_ok=True)
        return len(paths)

    def living(self) -> dict[str, dict[str, Any]]:
        """Job -> who works on it."""
        found = {}
        for path in sorted(self.folder.glob("*.json")) if self.folder.is_dir() else ():
            with contextlib.suppress(OSError, ValueError):
                value = parse_json(path.read_bytes())
                if isinstance(value, dict) and not self._dead(path):
                    found[path.stem.rpartition(".")[0]] = value
        return found


def _escaped(name: str) -> str:
    return "".join(f"[{sign}]" if sign in "[]*?" else sign for sign in name)


def _worker() -> dict[str, Any]:
    return {"host": platform.node(), "boot": _boot(), "pid": os.getpid(), "began": _began(os.getpid())}


def _boot() -> str:
    """Names this start of this machine, and the space that numbers of processes belong to (containers have their own);
    empty where the system does not tell."""
    with contextlib.suppress(OSError):
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115
    return ""


def _began(pid: int) -> str | None:
    """When a process began, in units of the system: tells it from a later one of the same number."""
    with contextlib.suppress(OSError, IndexError):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        return None if fields[0] in "ZX" else fields[19]
    return None


def _alive(worker: dict[str, Any]) -> bool:
    pid = worker.get("pid")
    return isinstance(pid, int) and worker.get("began") is not None and _began(pid) == worker["began"]
