"""The command line: one file a verb, heavy imports only inside the verb that needs them."""

import atexit
import gc
import os
import signal
import sys

import typer

import unrolled.core.record  # noqa: F401  (its clock starts here, before the imports that take seconds)
from unrolled.cli.common import app
from unrolled.cli.streams import run_command
from unrolled.core.group import world_size

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of ``unrolled``. See :mod:`unrolled.cli.streams` for exit codes; user errors are one sentence."""
    from unrolled.cli import (  # noqa: F401  (each registers its verb)
        bench,
        build,
        compare,
        compress,
        corpora,
        difference,
        ensemble,
        evaluate,
        export,
        generate,
        grid,
        importing,
        info,
        inspect,
        label,
        load_test,
        merge,
        pairs,
        probe,
        retrieve,
        score,
        serve,
        store,
        train,
        tune,
        watch,
    )

    if world_size() > 1:  # torch's engine warns, from each process, of what is meant
        os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")
    # at the end Python would look through all that torch has loaded for garbage, which takes most of a second
    atexit.register(gc.freeze)
    command = typer.main.get_command(app)

    def run() -> int:
        if any(name.startswith("_UNROLLED_COMPLETE") for name in os.environ):  # a shell asks for completions
            command.main(prog_name="unrolled")
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        with command.make_context("unrolled", sys.argv[1:]) as context:
            code = command.invoke(context)
        return code if isinstance(code, int) else 0

    sys.exit(run_command(run))
