"""Standard streams, exit codes and what is said at the end: the one place for them.

Both streams are UTF-8 whatever the locale says, as files that ``--out`` writes are. Exit codes are 0, 1 (failed), 2
(bad usage), 130 (Ctrl-C; 143: SIGTERM) and 141 (the reader of the output has gone, as in ``| head``: silent, as a
shell reports it of other programs).
"""

import contextlib
import errno
import io
import logging
import os
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import typer

from unrolled.cli.moved import moved
from unrolled.core.errors import EchoError, StoppedError, UnrolledError
from unrolled.core.group import launched
from unrolled.core.notes import forget_notes
from unrolled.core.registry import cut
from unrolled.core.terminal import for_stream

__all__ = ["run_command", "say"]

INTERRUPTED, READER_GONE = 130, 141


class _ReaderGone(SystemExit):
    """Nobody reads our output any more. No Exception, so that nothing takes it for a fault of its own."""


class _Output:
    """Standard output: what cannot be written ends the command, with the right word for it."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with self._checked():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._checked():
            self._stream.flush()

    @contextlib.contextmanager
    def _checked(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            _discard(self._stream)
            raise _ReaderGone(READER_GONE) from None
        except OSError as error:
            _discard(self._stream)
            raise UnrolledError(f"cannot write to standard output: {error.strerror or error}.") from error


class _Errors:
    """Standard error: what cannot be said there cannot be said at all."""

    def __init__(self, stream: Any):
        self._stream = stream

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


class _Closed(io.TextIOBase):
    """In the place of a standard output that was closed when the command began."""

    encoding = "utf-8"

    def write(self, _: str) -> int:
        raise OSError(errno.EBADF, os.strerror(errno.EBADF))


def _discard(stream: Any) -> None:
    """What is left in the buffer must not be tried again when Python exits."""
    with contextlib.suppress(OSError, ValueError, io.UnsupportedOperation):
        null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(null, stream.fileno())
        os.close(null)


class _Notes(logging.Handler):
    """Notes of the library as lines of standard error."""

    def emit(self, record: logging.LogRecord) -> None:
        if not launched():  # of several processes that do the same, one says so
            say(f"note: {record.getMessage()}")


def say(text: str) -> None:
    """A line on standard error."""
    sys.stderr.write(for_stream(text, sys.stderr) + "\n")
    sys.stderr.flush()


@contextlib.contextmanager
def _streams() -> Iterator[None]:
    """The standard streams as the module says, put back at the end."""
    before = sys.stdout, sys.stderr
    # a file that is opened later must not get the number of a standard stream that is closed
    while (number := os.open(os.devnull, os.O_RDWR)) <= 2:
        pass
    os.close(number)
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")
    sys.stdout = _Output(before[0] or _Closed())  # type: ignore[assignment]
    sys.stderr = _Errors(before[1] or io.StringIO())  # type: ignore[assignment]
    log, handler = logging.getLogger("unrolled"), _Notes()
    propagate, log.propagate = log.propagate, False
    log.addHandler(handler)
    forget_notes()
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.propagate = propagate
        sys.stdout, sys.stderr = before


def run_command(command: Callable[[], int]) -> int:
    """Run a command whose function returns an exit code; whatever goes wrong becomes a sentence and a code."""
    with _streams():
        try:
            try:
                code = command()
            except BrokenPipeError:  # behind --out
                code = READER_GONE
            except Exception as error:
                code = _told(error)
            sys.stdout.flush()
        except _ReaderGone as error:
            code = int(str(error))
        except KeyboardInterrupt:
            say("unrolled: interrupted.")
            code = INTERRUPTED
        except UnrolledError as error:  # of the last flush
            code = _told(error)
        with contextlib.suppress(ValueError):  # not the main thread
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, signal.SIG_DFL)  # Python's own end is not to be told by a traceback
        return code


def _told(error: Exception) -> int:
    """Say what went wrong, in one sentence where it is known; the exit code."""
    if isinstance(error, UnrolledError):
        rank = launched()
        if not isinstance(error, EchoError) and not (rank and isinstance(error, StoppedError)):
            say(f"unrolled: {f'process {rank}: ' if rank else ''}{error}")
        return error.exit_code
    if isinstance(error, typer.Exit):
        return error.exit_code
    if isinstance(error, typer.Abort):
        say("unrolled: interrupted.")
        return INTERRUPTED
    if isinstance(error, OSError) and error.filename is not None:  # a name that is too long, say
        say(f"unrolled: cannot use {cut(str(error.filename))}: {error.strerror}.")
        return 1
    if _out_of_memory(error):
        say("unrolled: out of memory: use a smaller model, fewer columns or a shorter window.")
        return 1
    if (where := moved(error)) is not None:
        say(f"unrolled: {where}")
        return 2
    show = getattr(error, "show", None)
    if show is None:
        raise error
    show()  # click's own usage errors print themselves
    return getattr(error, "exit_code", 2)


def _out_of_memory(error: Exception) -> bool:
    """torch says so with a RuntimeError on a CPU, and with its own type on a GPU."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in str(error) or type(error).__name__ == "OutOfMemoryError")
    )
