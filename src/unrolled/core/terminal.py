"""Other people's text on a terminal: shown, not executed."""

from typing import Any

__all__ = ["for_stream", "visible"]

# C0 without tab and line end, DEL, C1
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if code not in (0x09, 0x0A)}


def visible(text: str) -> str:
    """The text with control characters other than tab and line end in a visible form, such as ``\\x1b``."""
    return text.translate(_CONTROLS)


def for_stream(text: str, stream: Any) -> str:
    """The text as it is, or :func:`visible` where the stream is a terminal."""
    return visible(text) if stream.isatty() else text
