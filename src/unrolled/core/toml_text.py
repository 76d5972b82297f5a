"""Values as TOML text, to be read again by :mod:`tomllib`."""

import json
import math
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["toml_text"]

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def toml_text(value: Mapping[str, Any]) -> str:
    """A mapping as TOML: plain values first, then one table for each mapping and for each row of a list of mappings.
    What is None is left out, as TOML has no such thing.

    Raises:
        ValueError: a value that TOML does not have.
    """
    plain, tables = [], []
    for key, inner in value.items():
        if isinstance(inner, Mapping):
            tables.append(_section(f"[{_key(key)}]", inner))
        elif isinstance(inner, list | tuple) and inner and all(isinstance(row, Mapping) for row in inner):
            tables += [_section(f"[[{_key(key)}]]", row) for row in inner]
        elif inner is not None:
            plain.append(f"{_key(key)} = {_inline(inner)}\n")
    return "\n".join(["".join(plain), *tables])


def _section(head: str, rows: Mapping[str, Any]) -> str:
    return f"{head}\n" + "".join(f"{_key(key)} = {_inline(row)}\n" for key, row in rows.items() if row is not None)


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _string(name)


def _string(text: str) -> str:
    # TOML's basic strings are those of JSON, but for the sign that JSON lets stand
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")


def _inline(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        if not math.isfinite(value):
            return "nan" if math.isnan(value) else "inf" if value > 0 else "-inf"
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(_inline, value))}]"
    if isinstance(value, Mapping):
        return (
            "{ "
            + ", ".join(f"{_key(key)} = {_inline(inner)}" for key, inner in value.items() if inner is not None)
            + " }"
        )
    raise ValueError(f"TOML has no {type(value).__name__}")
