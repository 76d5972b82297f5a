"""The command ``unrolled``, also as ``python -m unrolled``."""

import signal

__all__ = ["main"]


def main() -> None:
    """Entry point. Until the command itself runs, Ctrl-C ends the process without a word: nothing was begun."""
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
    from unrolled.cli import main

    main()


if __name__ == "__main__":
    main()
