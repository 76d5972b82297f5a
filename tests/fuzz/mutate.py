"""Ways to damage bytes, JSON and safetensors. Everything is drawn from the generator given."""

import copy
import json
import random
import re
import struct
from typing import Any

__all__ = ["damage_bytes", "damage_json", "damage_tensors", "odd_number"]

_NUMBERS = (
    "0", "-1", "1", "2", "0.5", "-0.0", "1e-320", "1e38", "1e39", "1e308", "1e999", "-1e999", "nan", "NaN", "inf",
    "-Infinity", "null", "65535", "65536", "2147483647", "2147483648", "4294967296", "9007199254740993",
    "9223372036854775807", "18446744073709551616", "-9223372036854775809", "9" * 400, "9" * 5000, "1_0", "0x10", "1,5",
)  # fmt: skip
_PIECES = (
    b"\0", b"\r", b"\n", b"\r\n", b"\xff", b"\xef\xbb\xbf", b"\xff\xfe", b"\xed\xa0\x80", b"\xc3", b"\xe9", b"\x85",
    b"\xe2\x80\xa8", b"\t", b" ", b'"', b"[", b"{", b"\\", b"\x1b[31m", b"\xf0\x9f\x98\x80", b"=", b"#", b"<unk>",
    b"<s>",    b"NaN", b"[" * 3000, b"a" * 9_000, b" " * 5000, b"\n" * 3000,
)  # fmt: skip
_DEEP = "deep"  # stands for lists in lists until there is text: Python's own tools cannot copy those
_NUMBER = re.compile(rb"-?\d+(?:\.\d+)?(?:e-?\d+)?")


def odd_number(draw: random.Random) -> str:
    """The text of a number that few readers expect."""
    return draw.choice(_NUMBERS)


def damage_bytes(data: bytes, draw: random.Random, times: int | None = None) -> bytes:
    """Flip, cut, double, insert, splice, or put odd numbers into some bytes, once or a few times."""
    for _ in range(times or draw.choice((1, 1, 1, 2, 3, 8))):
        data = draw.choice((_flip, _flip, _cut, _double, _insert, _insert, _splice, _number, _number, _drop))(
            data, draw
        )
    return data


def _flip(data: bytes, draw: random.Random) -> bytes:
    if not data:
        return b"\x01"
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 4, 30))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return bytes(changed)


def _cut(data: bytes, draw: random.Random) -> bytes:
    return data[: draw.randint(0, len(data))]


def _drop(data: bytes, draw: random.Random) -> bytes:
    start = draw.randint(0, len(data))
    return data[:start] + data[start + draw.choice((1, 2, 9, 300)) :]


def _double(data: bytes, draw: random.Random) -> bytes:
    start, stop = sorted(draw.randint(0, len(data)) for _ in range(2))
    return data[:stop] + data[start:stop] * draw.choice((1, 1, 3)) + data[stop:]


def _insert(data: bytes, draw: random.Random) -> bytes:
    at = draw.randint(0, len(data))
    return data[:at] + draw.choice(_PIECES) + data[at:]


def _splice(data: bytes, draw: random.Random) -> bytes:
    start, stop, at = (draw.randint(0, len(data)) for _ in range(3))
    return data[:at] + data[min(start, stop) : max(start, stop)] + data[at + abs(stop - start) :]


def _number(data: bytes, draw: random.Random) -> bytes:
    found = list(_NUMBER.finditer(data[:200_000]))
    if not found:
        return _flip(data, draw)
    chosen = draw.choice(found)
    return data[: chosen.start()] + odd_number(draw).encode() + data[chosen.end() :]


def _odd_value(draw: random.Random, old: Any) -> Any:
    """Something else than ``old``, mostly of another type."""
    choices: list[Any] = [
        None, True, False, 0, -1, 1, 2, 0.5, -0.5, 1e308, 2**31, 2**53, 2**53 + 1, 2**63, 2**64, -(2**63), 10**400, "",
        "x", "/dev/zero", "a\0b", "\ud800", "x" * 5000, "\x1b[31m", [], {}, [None], [[]], {"": None}, {"name": None},
        {"name": "lstm"}, [1, "a"], [0] * 1000,
    ]  # fmt: skip
    if draw.random() < 0.08:
        return _DEEP
    if isinstance(old, bool) and draw.random() < 0.4:
        return not old
    if isinstance(old, int) and draw.random() < 0.4:
        return old + draw.choice((-1, 1, 7, 1000))
    if isinstance(old, float) and draw.random() < 0.4:
        return old * draw.choice((-1, 0, 1e-30, 1e30, 2))
    if isinstance(old, list) and old and draw.random() < 0.6:
        return draw.choice((old[1:], old + old, old[::-1], [old], old[0]))
    return draw.choice(choices)


def _places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        keys: list[Any] = list(value)
    else:
        keys = list(range(len(value))) if isinstance(value, list) else []
    for key in keys if len(keys) < 40 else [*keys[:10], *keys[-5:]]:
        found += _places(value[key], (*path, key))
    return found


def damage_json(value: Any, draw: random.Random) -> str:
    """JSON text of a value in which something was replaced, removed, renamed, written twice, or only bytes changed."""
    value = copy.deepcopy(value)
    twice = ""
    for _ in range(draw.choice((1, 1, 1, 2, 4))):
        places = _places(value)
        if not places:
            break
        path = draw.choice(places)
        inner = value
        for key in path[:-1]:
            inner = inner[key]
        action = draw.random()
        if action < 0.65:
            inner[path[-1]] = _odd_value(draw, inner[path[-1]])
        elif action < 0.8:
            del inner[path[-1]]
        elif isinstance(inner, dict):
            if action < 0.9:
                inner[draw.choice(("x[0]", "", "x" * 3000, "a.b", str(path[-1]) + "s"))] = inner.pop(path[-1])
            else:
                twice = json.dumps(str(path[-1]))
        else:
            inner.insert(path[-1], copy.deepcopy(inner[path[-1]]))
    text = json.dumps(value)
    while f'"{_DEEP}"' in text:
        depth = draw.choice((5, 62, 63, 64, 65, 200, 900, 20_000))
        left, right = draw.choice((("[", "]"), ('{"a":', "}")))
        text = text.replace(f'"{_DEEP}"', left * depth + "1" + right * depth, 1)
    if twice:
        text = text.replace(twice, f"{twice}: 1, {twice}", 1)
    return text if draw.random() < 0.85 else damage_bytes(text.encode(), draw, 1).decode("latin-1")


def damage_tensors(data: bytes, draw: random.Random) -> bytes:
    """A safetensors file with another header, other numbers (NaN and infinities among them), or other bytes."""
    size = struct.unpack_from("<Q", data)[0]
    header, body = data[8 : 8 + size], bytearray(data[8 + size :])
    way = draw.random()
    if way < 0.4:
        text = damage_json(json.loads(header), draw).encode("utf-8", "surrogatepass")
        if draw.random() < 0.5:
            text = re.sub(
                rb"F32|F64|I64", draw.choice((b"F64", b"F16", b"I32", b"BOOL", b"F8_E5M2", b"C64", b"F32")), text
            )
        return struct.pack("<Q", len(text) + draw.choice((0, 0, 0, 1, -1, 2**40))) + text + bytes(body)
    if way < 0.7 and body:
        odd = draw.choice(
            (b"\x00\x00\xc0\x7f", b"\x00\x00\x80\x7f", b"\x00\x00\x80\xff", b"\xff\xff\x7f\x7f", b"\0\0\0\0")
        )
        for _ in range(draw.choice((1, 5))):
            at = draw.randrange(0, max(1, len(body) - 8), 4)
            body[at : at + len(odd)] = odd
        return data[: 8 + size] + bytes(body)
    return damage_bytes(data, draw)
