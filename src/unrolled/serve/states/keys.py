"""The keys that states are signed with."""

import hashlib
import hmac
import re
import secrets
import stat
from collections.abc import Sequence
from pathlib import Path

from unrolled.core.errors import UsageError
from unrolled.core.files import read_bounded

__all__ = ["StateKeys", "read_state_keys"]

_MOST = 64 << 10


class StateKeys:
    """Keys of 32 bytes each: the first signs, and all of them verify, so that a key can be changed while states that
    the old one signed are still about.

    Args:
        keys: at least one.
    """

    def __init__(self, keys: Sequence[bytes]):
        self._keys = tuple(keys)

    @property
    def sign_of_first(self) -> str:
        """4 hexadecimal digits by which one can tell which key signed; nothing of the key follows from them."""
        return hashlib.sha256(b"unrolled state key" + self._keys[0]).hexdigest()[:4]

    def sign(self, data: bytes) -> bytes:
        """The HMAC-SHA-256 of the data under the first key, 32 bytes."""
        return hmac.digest(self._keys[0], data, "sha256")

    def verify(self, mac: bytes, data: bytes) -> bool:
        """Whether one of the keys gives this MAC; takes the same time for each wrong one."""
        found = False
        for key in self._keys:
            found |= hmac.compare_digest(hmac.digest(key, data, "sha256"), mac)
        return found

    @classmethod
    def random(cls) -> "StateKeys":
        """A key that ends with this process."""
        return cls([secrets.token_bytes(32)])


def read_state_keys(path: Path) -> StateKeys:
    """Read a file of keys, 64 hexadecimal digits a line.

    Raises:
        UsageError: no key in it, lines that are none, or a file that others than its owner may read.
    """
    mode = path.stat().st_mode if path.exists() else 0
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise UsageError(f"others may read the keys in {path}; say: chmod 600 {path}.")
    lines = [line.strip() for line in read_bounded(path, _MOST).decode("utf-8", errors="replace").splitlines()]
    lines = [line for line in lines if line and not line.startswith("#")]
    if not lines or not all(re.fullmatch("[0-9a-fA-F]{64}", line) for line in lines):
        raise UsageError(f"{path} holds no keys of 64 hexadecimal digits a line; make one with: openssl rand -hex 32.")
    return StateKeys([bytes.fromhex(line) for line in lines])
