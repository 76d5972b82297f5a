"""What pages of HTML allow of themselves."""

import base64
import hashlib

__all__ = ["source_hash"]


def source_hash(source: str) -> str:
    """Of a style or script as it stands between its tags, for a content security policy."""
    return "sha256-" + base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
