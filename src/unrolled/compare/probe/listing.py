"""The problems that there are, and what is said of them on a command line."""

import re
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from unrolled.core.config import parse_setting
from unrolled.core.errors import UsageError
from unrolled.data.made import MADE

__all__ = ["Listed", "list_problems", "read_probe_points"]

_CITED = re.compile(r" \([A-Z][^()]*\d{4}[^()]*\)")


class Listed(NamedTuple):
    """A problem with its settings' defaults. sweep: setting -> values worth measuring at."""

    name: str
    summary: str
    symbols: int
    sweep: dict[str, tuple[Any, ...]]

    def cells(self) -> list[str]:
        """As a row of a table."""
        sweep = "; ".join(f"{key}={','.join(map(str, values))}" for key, values in self.sweep.items())
        return [self.name, self.summary, str(self.symbols), sweep]


def list_problems() -> list[Listed]:
    """All of the table, in its order."""
    found = []
    for name in MADE:
        cls = MADE[name]
        problem = cls(MADE.parse(name))
        text = " ".join((cls.__doc__ or "").split())
        found.append(
            Listed(name, _CITED.sub("", text).split(". ")[0].rstrip(".") + ".", len(problem.symbols), problem.sweep())
        )
    return found


def read_probe_points(texts: Iterable[str], problems: Sequence[str]) -> dict[str, dict[str, tuple[Any, ...]]]:
    """Label -> setting -> values, from ``name=value,value,...`` for all problems or ``LABEL.name=...`` for one.

    Raises:
        UsageError: another form.
    """
    labels = [name.partition(":")[2] or name for name in problems]
    found: dict[str, dict[str, tuple[Any, ...]]] = {}
    for text in texts:
        name, sign, values = text.partition("=")
        label, dot, setting = name.strip().partition(".")
        if not sign or not label or not all(value.strip() for value in values.split(",")):
            raise UsageError(f"--points needs the form name=value,value,... (got {text[:80]!r}).")
        row = tuple(parse_setting(f"x={value.strip()}")[1] for value in values.split(","))
        for one in [label] if dot else labels:
            found.setdefault(one, {})[setting if dot else label] = row
    return found
