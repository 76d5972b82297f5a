"""Registries: one explicit table of name -> "module:Class", each row loaded when it is first asked for."""

import difflib
import importlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Generic, TypeVar

from pydantic import BaseModel, ValidationError

from unrolled.core.errors import UsageError

__all__ = ["PartError", "Registry", "cut", "nearest", "shown", "unknown_name"]

T = TypeVar("T")

_LONGEST = 200


def cut(text: str, longest: int = _LONGEST) -> str:
    """The beginning of a text, as much as a sentence bears, on one line."""
    plain = "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text[:longest])
    return plain if len(text) <= longest else f"{plain}..."


def shown(name: str) -> str:
    """A name in quotes, as far as it is fit to be read."""
    return repr(name) if len(name) <= _LONGEST else f"{name[:_LONGEST]!r}..."


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name closest to ``name``, or None when nothing is close."""
    if len(name) > _LONGEST:  # the time to compare grows with the square of the length
        return None
    found = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return found[0] if found else None


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UsageError:
    """The error for a name that is not in a table: says the nearest known one, or lists them all."""
    known = sorted(known)
    hint = nearest(name, known)
    remedy = f"did you mean {hint!r}?" if hint else f"known: {cut(', '.join(known), 5 * _LONGEST)}."
    return UsageError(f"unknown {kind} {shown(name)}; {remedy}")


def _a(noun: str) -> str:
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


class PartError(ValueError):
    """The config of a part is wrong: carries pydantic's report to the config around it, which knows the path."""

    def __init__(self, cause: ValidationError, cls: type[BaseModel], value: Any, path: tuple[str, ...] = ()):
        """path: where the part lies in the config around it, if that is not where pydantic found the fault."""
        super().__init__(cls.__name__)  # pydantic's report is long, and would be copied into that of every part around
        self.cause, self.cls, self.value, self.path = cause, cls, value, path


class Registry(Generic[T]):
    """A table of classes by name, loaded lazily.

    Args:
        kind: what a row is, for messages ("cell", "head").
        rows: name -> "module:Class".
        default: the row that a table of options without ``name`` means; None where a name must be given.
        beside: another table, whose rows are found here by name too, but are none of those that this one lists.
    """

    def __init__(
        self, kind: str, rows: Mapping[str, str], default: str | None = None, beside: "Registry[T] | None" = None
    ):
        self.kind, self.default, self.beside = kind, default, beside
        self._rows: dict[str, str | T] = dict(rows)

    def __iter__(self) -> Iterator[str]:
        return iter(self._rows)

    def __contains__(self, name: object) -> bool:
        return name in self._rows or (self.beside is not None and name in self.beside)

    def __getitem__(self, name: str) -> T:
        """The class registered under ``name``. Raises UsageError with the nearest name if there is none."""
        if self.beside is not None and name in self.beside:
            return self.beside[name]
        if name not in self._rows:
            raise unknown_name(self.kind, name, [*self._rows, *(self.beside or ())])
        row = self._rows[name]
        if isinstance(row, str):
            module, _, attribute = row.partition(":")
            row = self._rows[name] = getattr(importlib.import_module(module), attribute)
        return row  # type: ignore[return-value]

    def add(self, name: str, row: "str | T") -> None:
        """Register a class, or its "module:Class", from a program. Names are never taken over silently."""
        if name in self:
            raise UsageError(f"{self.kind} {name!r} is already registered; choose another name.")
        self._rows[name] = row

    def remove(self, name: str) -> None:
        """Undo :meth:`add`."""
        self._rows.pop(name, None)

    def parse(self, value: Any) -> Any:
        """A config of this table from a name, a mapping with the key ``name``, or a config object.

        Used as the validator of a pydantic field, so that ``cell = {name = "mlstm", ...}`` is checked by
        the config class of the cell it names.
        """
        if isinstance(value, str):
            value = {"name": value}
        if isinstance(value, BaseModel | list | tuple):  # a config object, or one part a layer
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"give the name of {_a(self.kind)}, or a table with its 'name' and options")
        if "name" not in value and self.default is not None:
            value = {**value, "name": self.default}
        if "name" not in value:
            raise UsageError(
                f"{_a(self.kind)} needs the key 'name', one of: {', '.join(sorted([*self, *(self.beside or ())]))}."
            )
        cls: type[BaseModel] = self[str(value["name"])].Config  # type: ignore[attr-defined]
        try:
            return cls.model_validate(dict(value))
        except ValidationError as error:
            raise PartError(error, cls, value) from error
