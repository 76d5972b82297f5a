"""The two kinds of error a user may meet. Each message is one plain sentence that names the remedy."""

__all__ = ["UnrolledError", "UsageError"]


class UnrolledError(Exception):
    """Something failed (a broken file, a full disk, a diverged run). The command line exits with code 1."""

    exit_code = 1


class UsageError(UnrolledError):
    """The request itself is wrong (unknown name, mistyped key, impossible size). Exit code 2."""

    exit_code = 2
