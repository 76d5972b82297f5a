"""What a user should know although nothing failed: one sentence each, told once."""

import logging

__all__ = ["forget_notes", "note"]

_LOG = logging.getLogger("unrolled")
_told: set[str] = set()


def note(sentence: str) -> None:
    """Tell something by the logger ``unrolled`` (as a warning), unless it was told before.

    The command line shows these on standard error; in a program they go where its logging goes.
    """
    if sentence not in _told:
        _told.add(sentence)
        _LOG.warning(sentence)


def forget_notes() -> None:
    """Another command begins: what was told may be told again."""
    _told.clear()
