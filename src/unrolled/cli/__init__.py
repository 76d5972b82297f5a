"""The command line: one file a verb, heavy imports only inside the verb that needs them."""

import sys

import typer

from unrolled.cli.common import app
from unrolled.core.errors import UnrolledError

__all__ = ["app", "main"]


def main() -> None:
    """Entry point of ``unrolled``. Exit code 0, 1 (failed) or 2 (bad usage); user errors are one sentence."""
    from unrolled.cli import corpora, evaluate, generate, info, train  # noqa: F401  (each registers its verb)

    command = typer.main.get_command(app)
    try:
        code = command.main(standalone_mode=False)
    except UnrolledError as error:
        print(f"unrolled: {error}", file=sys.stderr)  # noqa: T201
        sys.exit(error.exit_code)
    except typer.Abort:
        print("unrolled: interrupted.", file=sys.stderr)  # noqa: T201
        sys.exit(1)
    except BrokenPipeError:  # the reader of our output has gone
        sys.stderr.close()
        sys.exit(0)
    except Exception as error:
        show = getattr(error, "show", None)
        if show is None:
            raise
        show()  # click's own usage errors print themselves
        sys.exit(getattr(error, "exit_code", 2))
    sys.exit(code if isinstance(code, int) else 0)
