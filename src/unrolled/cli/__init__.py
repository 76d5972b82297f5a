"""The command line: one file a verb, heavy imports only inside the verb that needs them."""

import atexit
import gc
import os
import sys
from typing import NoReturn

import typer

import unrolled.core.record  # noqa: F401  (its clock starts here, before the imports that take seconds)
from unrolled.cli.common import app
from unrolled.core.errors import UnrolledError

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of ``unrolled``. Exit code 0, 1 (failed) or 2 (bad usage); user errors are one sentence."""
    from unrolled.cli import (  # noqa: F401  (each registers its verb)
        bench,
        build,
        compress,
        corpora,
        evaluate,
        export,
        generate,
        info,
        inspect,
        inspect_errors,
        inspect_features,
        inspect_gates,
        inspect_memory,
        inspect_page,
        inspect_trace,
        inspect_units,
        score,
        train,
    )

    # at the end Python would look through all that torch has loaded for garbage, which takes most of a second
    atexit.register(gc.freeze)
    command = typer.main.get_command(app)
    try:
        code = command.main(prog_name="unrolled", standalone_mode=False)
        sys.stdout.flush()
    except UnrolledError as error:
        _fail(str(error), error.exit_code)
    except typer.Abort:
        _fail("interrupted.", 1)
    except BrokenPipeError:  # the reader of our output has gone
        # what is left in the buffer must not be tried again when Python exits
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if _out_of_memory(error):
            _fail("out of memory: use a smaller model, fewer columns or a shorter window.", 1)
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()  # click's own usage errors print themselves
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(code if isinstance(code, int) else 0)


def _fail(message: str, code: int) -> NoReturn:
    print(f"unrolled: {message}", file=sys.stderr)  # noqa: T201
    sys.exit(code)


def _out_of_memory(error: Exception) -> bool:
    """torch says so with a RuntimeError on a CPU, and with its own type on a GPU."""
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("can't allocate memory" in str(error) or type(error).__name__ == "OutOfMemoryError")
    )
