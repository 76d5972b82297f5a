"""The command in a process of its own: a fork of this one, which has imported everything already."""

import io
import os
import signal
import sys
import time
import warnings
from collections.abc import Sequence
from typing import NamedTuple

__all__ = ["Process", "forked"]

_LONGEST = 60.0


class Process:
    """A command under way. stdin, stdout, stderr: file descriptors for it; None: closed."""

    def __init__(
        self,
        arguments: Sequence[object],
        stdin: int | None,
        stdout: int | None,
        stderr: int | None,
        encoding: str = "utf-8",
    ):
        sys.stdout.flush()
        sys.stderr.flush()
        self._ready, ready = os.pipe()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside idle threads
            self.number = os.fork()
        if not self.number:
            code = 99
            try:
                code = _child([str(one) for one in arguments], (stdin, stdout, stderr), encoding, ready)
            finally:
                os._exit(code)
        os.close(ready)

    def interrupt(self) -> int:
        """Ctrl-C half a second after the command has begun, and again should it be missed; the exit code."""
        os.read(self._ready, 1)
        time.sleep(0.5)
        os.kill(self.number, signal.SIGINT)
        return self.wait(again=5.0)

    def wait(self, again: float | None = None) -> int:
        """The exit code; minus the number of the signal that ended it.

        Args:
            again: seconds after which Ctrl-C is sent once more.
        """
        began = told = time.monotonic()
        while True:
            number, status = os.waitpid(self.number, os.WNOHANG)
            if number:
                os.close(self._ready)
                return os.waitstatus_to_exitcode(status)
            if again is not None and time.monotonic() - told > again:
                told = time.monotonic()
                os.kill(self.number, signal.SIGINT)
            if time.monotonic() - began > _LONGEST:
                os.kill(self.number, signal.SIGKILL)
                os.waitpid(self.number, 0)
                raise AssertionError("the command hangs")
            time.sleep(0.005)


def _child(arguments: list[str], streams: Sequence[int | None], encoding: str, ready: int) -> int:
    held = [None if stream is None else os.dup(stream) for stream in streams]
    for number, stream in enumerate(held):
        if stream is None:
            os.close(number)
        else:
            os.dup2(stream, number)
    os.write(ready, b"!")
    os.closerange(3, 256)
    # as Python begins: strict but for standard error, in the encoding of the locale
    files: list[io.TextIOWrapper | None] = []
    for number, (stream, errors) in enumerate(zip(streams, ("strict", "strict", "backslashreplace"), strict=True)):
        file = None if stream is None else os.fdopen(number, "rb" if number == 0 else "wb")
        files.append(None if file is None else io.TextIOWrapper(file, encoding=encoding, errors=errors))
    sys.stdin, sys.stdout, sys.stderr = files  # type: ignore[assignment]
    sys.argv = ["unrolled", *arguments]
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from unrolled.cli import main

    code = 0
    try:
        main()
    except SystemExit as ended:
        code = int(ended.code or 0)
    except BaseException:
        import traceback

        traceback.print_exc()
        code = 98
    try:  # as Python ends: where this fails it says so, with the code 120
        if files[1] is not None:
            files[1].flush()
    except OSError:
        code = 120
    return code


class Done(NamedTuple):
    """Exit code and what came out."""

    code: int
    out: bytes
    err: bytes


def forked(*arguments: object, data: bytes = b"", encoding: str = "utf-8") -> Done:
    """Run a command to its end, with ``data`` on its standard input, and streams in a locale's ``encoding``."""
    import tempfile

    with tempfile.TemporaryFile() as given, tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
        given.write(data)
        given.seek(0)
        code = Process(arguments, given.fileno(), out.fileno(), err.fileno(), encoding).wait()
        out.seek(0)
        err.seek(0)
        return Done(code, out.read(), err.read())
