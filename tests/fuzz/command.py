"""The command in this process, watched: its exit code, what it said, its time and memory."""

import ctypes
import io
import os
import signal
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.cli import main

__all__ = ["Outcome", "run"]


_MOST_TEXT = 1 << 20


class Outcome(NamedTuple):
    """code: 0, 1 or 2; 3 for a traceback, 4 where the time was over. growth: bytes. fault: of the last two."""

    code: int
    out: str
    err: str
    seconds: float
    growth: int
    fault: str


class _TimeOver(BaseException):
    pass


def _raise(*_: Any) -> None:
    raise _TimeOver


def run(arguments: Sequence[object], limit: float = 30.0) -> Outcome:
    """Run ``unrolled`` with some arguments, for ``limit`` seconds at most."""
    # on the disk: what a command prints is no memory of its own
    with tempfile.TemporaryFile("w+", encoding="utf-8") as out, tempfile.TemporaryFile("w+", encoding="utf-8") as err:
        return _run(arguments, limit, out, err)


def _run(arguments: Sequence[object], limit: float, out: Any, err: Any) -> Outcome:
    argv, streams = sys.argv, (sys.stdout, sys.stderr, sys.stdin)
    sys.argv = ["unrolled", *map(str, arguments)]
    sys.stdout, sys.stderr, sys.stdin = out, err, io.TextIOWrapper(io.BytesIO())
    before, begun, fault, code = _begin_peak(), time.monotonic(), "", 0
    alarm = signal.signal(signal.SIGALRM, _raise)
    signal.setitimer(signal.ITIMER_REAL, limit)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            main()
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except _TimeOver:
        code, fault = 4, "".join(traceback.format_exc().splitlines(keepends=True)[-8:])
    except BaseException:  # all of it is what is looked for
        code, fault = 3, traceback.format_exc()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, alarm)
        sys.argv, (sys.stdout, sys.stderr, sys.stdin) = argv, streams
    growth, seconds = max(0, _peak() - before), time.monotonic() - begun
    return Outcome(code, _text(out), _text(err), seconds, growth, fault)


def _text(stream: Any) -> str:
    stream.flush()
    stream.seek(0)
    return stream.read(_MOST_TEXT)


def _begin_peak() -> int:
    """Start the system's peak of this process anew; returns what it holds now, in bytes.

    Training asks the C library to keep freed memory, in which the growth of later inputs would hide.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    if os.access("/proc/self/clear_refs", os.W_OK):
        Path("/proc/self/clear_refs").write_text("5")
    return _peak()


def _peak() -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
