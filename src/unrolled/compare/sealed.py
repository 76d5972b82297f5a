"""What was decided before anything was trained, as a file: JSON with a checksum of its own, which an edit breaks."""

import datetime
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unrolled.core.errors import UnrolledError
from unrolled.core.files import read_json, write_json

__all__ = ["canonical", "check_sealed", "difference", "read_sealed", "utc_now", "write_sealed"]


def canonical(value: Any) -> bytes:
    """JSON with sorted keys and no spaces: equal values give equal bytes."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def utc_now() -> str:
    """Date and time, UTC."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def write_sealed(path: Path, value: Mapping[str, Any]) -> None:
    """Write a mapping with ``sha256``, the checksum of all else."""
    value = {key: inner for key, inner in value.items() if key != "sha256"}
    write_json(path, {**value, "sha256": hashlib.sha256(canonical(value)).hexdigest()})


def read_sealed(path: Path, kind: str, version: int, what: str) -> dict[str, Any]:
    """Read what :func:`write_sealed` wrote, its checksum included.

    Args:
        kind, version: what the file must say. what: it is, for sentences, such as a registered plan.
    Raises:
        UnrolledError: it is damaged, was edited, or is of another release.
    """
    return check_sealed(read_json(path), path, kind, version, what)


def check_sealed(value: Any, path: Path, kind: str, version: int, what: str) -> dict[str, Any]:
    """Check what was read of :func:`write_sealed`'s; see :func:`read_sealed`."""
    if not isinstance(value, dict) or value.get("kind") != kind:
        raise UnrolledError(f"{path} is no {what}: it is damaged, or of another program.")
    if value.get("version") != version:
        raise UnrolledError(f"{path} has format {value.get('version')}, this release reads {version}.")
    kept = {key: inner for key, inner in value.items() if key != "sha256"}
    if hashlib.sha256(canonical(kept)).hexdigest() != value.get("sha256"):
        raise UnrolledError(f"{path} was changed after it was registered (checksum); bring the old one back.")
    return value


def difference(old: Any, new: Any, path: str = "") -> str:
    """The first place in which two values differ, in words; empty where they are equal."""
    if old == new:
        return ""
    if isinstance(old, dict) and isinstance(new, dict):
        for key in {**old, **new}:
            if old.get(key) != new.get(key):
                return difference(old.get(key), new.get(key), f"{path}.{key}" if path else key)
    if isinstance(old, list) and isinstance(new, list):
        for one, other in zip(old, new, strict=False):
            if one != other:
                name = one.get("name") if isinstance(one, dict) else None
                inner = difference(one, other) if isinstance(one, dict) and isinstance(other, dict) else ""
                return f"{path} {name!r}: {inner}" if name else path
        return f"{path} has {len(new)} rows where it had {len(old)}"
    return path
