"""Stop strings in a text that arrives piece by piece."""

from collections.abc import Sequence

__all__ = ["StopWatch"]


class StopWatch:
    """Passes a text on up to the first stop string that is complete, and never a part of one.

    Args:
        stop: strings that end the text; none of them empty.
        held: what was held back of the text before.
    """

    def __init__(self, stop: Sequence[str], held: str = ""):
        self._stop = tuple(stop)
        self._held = held

    @property
    def held(self) -> str:
        """What is held back, since it may begin a stop string."""
        return self._held

    def fork(self) -> "StopWatch":
        """The same, to be gone on with in another way."""
        return StopWatch(self._stop, self._held)

    def push(self, text: str) -> tuple[str, bool]:
        """What may be shown now, and whether a stop string has come (nothing after it is ever shown)."""
        text = self._held + text
        found = [(at + len(stop), at) for stop, at in ((stop, text.find(stop)) for stop in self._stop) if at >= 0]
        if found:
            self._held = ""
            # The first to be complete, not the first to begin: so the pieces' borders cannot change the result.
            return text[: min(found)[1]], True
        keep = max((self._overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep], False

    def finish(self) -> str:
        """What was held back, when no more text comes."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _overlap(text: str, stop: str) -> int:
        """Length of the longest end of ``text`` that begins ``stop``."""
        sizes = range(min(len(text), len(stop) - 1), 0, -1)
        return next((size for size in sizes if text.endswith(stop[:size])), 0)
