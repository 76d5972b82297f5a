"""The kinds of error a user may meet. Each message is one plain sentence that names the remedy."""

__all__ = ["EchoError", "LostError", "StoppedError", "UnrolledError", "UsageError"]


class UnrolledError(Exception):
    """Something failed (a broken file, a full disk, a diverged run). The command line exits with code 1."""

    exit_code = 1


class UsageError(UnrolledError):
    """The request itself is wrong (unknown name, mistyped key, impossible size). Exit code 2."""

    exit_code = 2


class EchoError(UnrolledError):
    """What another process of a group has said already; the command line ends without a word."""

    def __init__(self, sentence: str, exit_code: int):
        super().__init__(sentence)
        self.exit_code = exit_code


class LostError(UnrolledError):
    """Another process of a group has ended, or does not answer."""

    def __init__(self) -> None:
        super().__init__(
            "another process of this run has ended or does not answer; see what it said, and go on from the last "
            "training state with --resume."
        )


class StoppedError(UnrolledError):
    """A signal ended work that can be gone on with. Exit code 128 and the signal's number, as of a shell."""

    def __init__(self, sentence: str, signal: int):
        super().__init__(sentence)
        self.exit_code = 128 + signal
