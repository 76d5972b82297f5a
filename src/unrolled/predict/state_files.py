"""States of texts in files: as this program writes them, and in the forms that a server gives them out in."""

import base64
import binascii
import contextlib
import os
from pathlib import Path

from unrolled.core.errors import UsageError
from unrolled.core.files import atomic_write, read_bounded
from unrolled.predict.kept import MOST_HEADER, KeptState, StateForm

__all__ = ["MAC", "read_state", "write_state"]

MAC = 32
"""Bytes of the signature before a signed state."""


def write_state(path: str | os.PathLike[str], kept: KeptState, form: StateForm) -> None:
    """Write a state as safetensors, atomically."""
    atomic_write(path, form.pack(kept))


def read_state(path: str | os.PathLike[str], form: StateForm) -> KeptState:
    """Read a state: safetensors, or what a server gave out, signed or as a blob. Signatures are not looked at, since
    the file is the user's own; everything else about it is checked.

    Raises:
        UsageError: no state, or a damaged one. OtherModelError: that of another model. UnrolledError: no such file.
    """
    path = Path(path)
    most = 2 * (form.size() + MOST_HEADER + MAC)  # the text of a blob is a third longer than its bytes
    data = read_bounded(path, most)
    for found in _readings(data):
        if _begins(found):
            return form.unpack(found)
    raise UsageError(f"{path} is no state of a text; give a file that --state-out or a server wrote.")


def _readings(data: bytes) -> list[bytes]:
    found = [data, data[MAC:]]
    text = data.strip()
    with contextlib.suppress(binascii.Error, ValueError):
        found.append(base64.b64decode(text + b"=" * (-len(text) % 4), altchars=b"-_", validate=True)[MAC:])
    return found


def _begins(data: bytes) -> bool:
    """Whether the bytes begin as safetensors do."""
    return 2 <= int.from_bytes(data[:8], "little") <= MOST_HEADER and data[8:9] == b"{"
