"""Conditions under which a setting is searched, such as ``model.cell.rounds > 0``."""

import operator
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from unrolled.core.config import parse_setting
from unrolled.core.errors import UsageError

__all__ = ["Condition", "parse_condition"]

_SIGNS: dict[str, Callable[[Any, Any], bool]] = {
    "==": operator.eq, "!=": operator.ne, ">=": operator.ge, "<=": operator.le, ">": operator.gt, "<": operator.lt,
}  # fmt: skip
_FORM = re.compile(r"\s*([\w.-]+)\s*(==|!=|>=|<=|>|<)\s*(.+?)\s*")


class Condition(NamedTuple):
    """A setting compared with a value. sign: ``==``, ``!=``, ``>``, ``>=``, ``<`` or ``<=``."""

    setting: str
    sign: str
    value: Any

    def holds(self, value: Any) -> bool:
        """Whether it holds where the setting has this value; of what cannot be ordered, ``==`` and ``!=`` alone may."""
        try:
            return bool(_SIGNS[self.sign](value, self.value))
        except TypeError:
            return False


def parse_condition(text: str) -> Condition:
    """Read ``a.b > 0``; the value as in ``--set``.

    Raises:
        UsageError: another form.
    """
    found = _FORM.fullmatch(text)
    if found is None:
        raise UsageError(
            f"when = {text!r} is no condition; write a setting, one of == != > >= < <=, and a value, such as "
            "model.cell.rounds > 0."
        )
    return Condition(found[1], found[2], parse_setting(f"value={found[3]}")[1])
