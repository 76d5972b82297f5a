"""JSON as the standard has it, and no larger or deeper than anything of ours."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["NESTING", "nested_deeper", "parse_json"]

NESTING = 64
"""How deep lists and mappings may lie in each other in what is read."""
# Signs between values; the largest vocabulary of subwords, 2^20, has 5 million. A value takes some 100 bytes at most.
_MOST_VALUES = 6_000_000
_HALF = re.compile(r"\\u[dD][89a-fA-F]|[\ud800-\udfff]")


def nested_deeper(value: Any, most: int = NESTING) -> bool:
    """Whether lists and mappings lie in each other more than ``most`` deep. Everything of ours is flatter, and what
    later walks such a value would run out of stack."""
    level = [value]
    for _ in range(most + 1):
        level = [
            inner
            for outer in level
            if isinstance(outer, Mapping | list | tuple)
            for inner in (outer.values() if isinstance(outer, Mapping) else outer)
            if isinstance(inner, Mapping | list | tuple)
        ]
        if not level:
            return False
    return True


def parse_json(data: bytes | str) -> Any:
    """The value of JSON text as the standard has it. Raises ValueError, also for what Python takes beyond that.

    Refused too: keys that occur twice, NaN and numbers out of range, text with half a character (a lone surrogate),
    values nested deeper than 64 or so many that they would fill the memory.
    """
    if isinstance(data, bytes):
        data = data.decode("utf-8")
    if sum(map(data.count, ",:[{")) > _MOST_VALUES:
        raise ValueError("too many values")
    try:
        value = json.loads(data, object_pairs_hook=_once, parse_float=_finite, parse_constant=_finite)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if nested_deeper(value):
        raise ValueError("nested too deeply")
    if _HALF.search(data):
        json.dumps(value, ensure_ascii=False).encode()  # a UnicodeEncodeError is a ValueError
    return value


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise ValueError("a key occurs twice")
    return value


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError("not a finite number")
    return value
