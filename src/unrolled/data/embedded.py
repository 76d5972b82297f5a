"""Corpora that come with Python: no download, but their text depends on the Python version."""

import hashlib
import sysconfig
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

from unrolled.data.reading import Part

__all__ = ["embedded_parts"]

_STDLIB_BYTES = 10_000_000
# Tests repeat themselves, lib2to3 and encodings are tables or copies, site-packages is not the standard
# library.
_LEFT_OUT = {
    "test",
    "tests",
    "idle_test",
    "site-packages",
    "dist-packages",
    "encodings",
    "lib2to3",
    "__pycache__",
}


def embedded_parts(kind: str) -> dict[str, list[Part]]:
    """Split -> documents of the embedded corpus ``kind`` ("pydoc" or "stdlib")."""
    return {"pydoc": _pydoc, "stdlib": _stdlib}[kind]()


@cache
def _pydoc() -> dict[str, list[Part]]:
    from pydoc_data.topics import topics

    def make(topic: str) -> bytes:
        return topics[topic].strip("\n").encode("utf-8") + b"\n"

    return _split({topic: len(make(topic)) for topic in topics}, "pydoc", lambda topic: partial(make, topic))


@cache
def _stdlib() -> dict[str, list[Part]]:
    root = Path(sysconfig.get_paths()["stdlib"])
    sizes: dict[str, int] = {}
    left = _STDLIB_BYTES
    for path in sorted(root.rglob("*.py"), key=lambda p: p.relative_to(root).as_posix()):
        name = path.relative_to(root).as_posix()
        if _LEFT_OUT & set(name.split("/")[:-1]):
            continue
        data = _source(path)
        if data and len(data) <= left:
            sizes[name] = len(data)
            left -= len(data)
    return _split(sizes, "stdlib", lambda name: partial(_source, root / name))


def _source(path: Path) -> bytes:
    """A file's text with plain line ends, empty where it is unreadable or not UTF-8."""
    try:
        data = path.read_bytes()
        data.decode("utf-8")
    except (OSError, UnicodeDecodeError):
        return b""
    data = data.replace(b"\r\n", b"\n").strip(b"\n")
    return data + b"\n" if data else b""


def _split(sizes: dict[str, int], kind: str, loader: Callable[[str], Callable[[], bytes]]) -> dict[str, list[Part]]:
    """Whole documents by name; 5 % of the bytes each to valid and test, chosen by a hash of the name."""
    total = sum(sizes.values())
    chosen: dict[str, str] = {}
    order = sorted(sizes, key=lambda name: hashlib.sha256(name.encode()).digest())
    for split in ("valid", "test"):
        taken = 0
        for name in order:
            # A document above the share would make one split of a single text.
            if name not in chosen and taken < 0.05 * total and sizes[name] <= 0.03 * total:
                chosen[name], taken = split, taken + sizes[name]
    splits: dict[str, list[Part]] = {"train": [], "valid": [], "test": []}
    for name in sorted(sizes):
        splits[chosen.get(name, "train")].append(Part(f"{kind}:{name}", make=loader(name)))
    return splits
