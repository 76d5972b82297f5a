"""Frozen, described, versioned configurations, and errors about them in one plain sentence."""

import math
import os
import re
import reprlib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, ClassVar, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError, field_validator

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import NESTING, nested_deeper, read_bounded, read_json, write_json
from unrolled.core.notes import note
from unrolled.core.registry import PartError, nearest, shown

__all__ = ["Config", "VersionedConfig", "apply_settings", "parse_setting", "plain_validation_error", "read_toml"]


_LARGEST = 2**53
# keys that say what a part is; its other keys are options of that
_CHOICES = ("name", "pattern")
_LONG_DECIMAL = re.compile(r"\d+\.\d{12,}")
_NO_TEXT = re.compile("[\0\ud800-\udfff]")
_MOST_FILE, _MOST_RECIPE, _MOST_DOTS = 2 << 20, 256 << 10, 1000


class Config(BaseModel):
    """Base of every configuration: frozen, unknown keys refused, every field described."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @field_validator("*", mode="after")
    @classmethod
    def _plain(cls, value: Any) -> Any:
        """Refuse numbers that JSON or 64 bits cannot hold; fields have ranges of their own too."""
        _check_plain(value)
        return value

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """Validate a mapping. Raises UsageError in one sentence (path, fault, nearest known key)."""
        if nested_deeper(value):
            raise UsageError(f"the settings of {cls.__name__} lie in each other too deeply; remove a part.")
        if (odd := _no_text(value)) is not None:
            raise UsageError(f"config key {shown(odd)}: text holds no NUL and nothing that is not Unicode.")
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise plain_validation_error(error, cls, value) from error


def _check_plain(value: Any) -> None:
    """Raises ValueError for an integer beyond 2^53 and for a float that is not finite."""
    if isinstance(value, Mapping | list | tuple):
        for inner in value.values() if isinstance(value, Mapping) else value:
            _check_plain(inner)
    elif isinstance(value, int):
        if abs(value) > _LARGEST:
            raise ValueError(f"integers lie between -2^53 and 2^53 = {_LARGEST}")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("input should be a finite number")


def _no_text(value: Any) -> str | None:
    """The key below which a text holds a NUL or half a character, which neither files nor their names can."""
    pairs = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list | tuple) else ()
    for key, inner in pairs:
        if any(isinstance(text, str) and _NO_TEXT.search(text) for text in (key, inner)):
            return str(key)
        if (found := _no_text(inner)) is not None:
            return f"{key}.{found}"
    return None


class VersionedConfig(Config):
    """A configuration that is saved to disk: carries the version of its format.

    ``migrations[n]`` turns a mapping of version n into one of version n + 1; a file written by a newer
    release than this one is refused.
    """

    kind: ClassVar[str] = "config"
    current_version: ClassVar[int] = 1
    migrations: ClassVar[dict[int, Callable[[dict[str, Any]], dict[str, Any]]]] = {}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write as JSON, complete (defaults included) and with its version."""
        write_json(path, {"kind": self.kind, "version": self.current_version, **self.model_dump(mode="json")})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read what :meth:`save` wrote, migrating older versions.

        Raises:
            UnrolledError: missing, damaged, of another kind, or of a newer version.
        """
        value = read_json(path, _MOST_FILE)
        if not isinstance(value, dict) or value.get("kind") != cls.kind or not isinstance(value.get("version"), int):
            raise UnrolledError(f"{path} is no '{cls.kind}' file: it is damaged, or of another program.")
        value = dict(value)
        del value["kind"]
        version = value.pop("version")
        if version > cls.current_version:
            raise UnrolledError(
                f"{path} was written by a newer release (format {version}, this release reads up to "
                f"{cls.current_version}); upgrade unrolled."
            )
        try:
            for old in range(version, cls.current_version):
                value = cls.migrations[old](value)
        except KeyError as error:
            raise UnrolledError(f"{path} has format {version}, which this release no longer reads.") from error
        return cls.parse(value)


def plain_validation_error(error: ValidationError, cls: type[BaseModel], value: Any) -> UsageError:
    """Turn pydantic's report about ``value`` into one sentence about its most telling fault."""
    return UsageError(_sentence(error, cls, value, (), cls))


def _sentence(
    error: ValidationError, cls: type[BaseModel], value: Any, prefix: tuple[str, ...], top: type[BaseModel]
) -> str:
    # A field that takes one part or a list of them reports both attempts; the one that got further counts.
    faults = [(fault, _path(fault, value)) for fault in error.errors(include_url=False)]
    fault, location = max(faults, key=lambda found: (_part(found[0]) is not None, len(found[1])))
    part = _part(fault)
    if part is not None:
        return _sentence(part.cause, part.cls, part.value, (*prefix, *location, *part.path), top)
    path = ".".join((*prefix, *location))
    if fault["type"] == "extra_forbidden" and location:
        return f"unknown config key {shown(path)}; {_remedy(location[-1], _config_at(cls, location[:-1]), top)}"
    if fault["type"] == "missing":
        return f"config key {shown(path)} is required and missing."
    message = fault["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + _LONG_DECIMAL.sub(lambda found: f"{float(found[0]):g}", message[1:])
    where = f"config key {shown(path)}: " if path else ""
    got = "" if isinstance(fault["input"], Mapping | BaseModel) else f" (got {_short(fault['input'])})"
    return f"{where}{message.rstrip('.')}{got}."


def _short(value: Any) -> str:
    # An integer of thousands of digits has no decimal form in Python.
    return "a long integer" if isinstance(value, int) and abs(value) >= 10**40 else reprlib.repr(value)


def _part(fault: Any) -> PartError | None:
    cause = fault.get("ctx", {}).get("error")
    return cause if isinstance(cause, PartError) else None


def _path(fault: Any, value: Any) -> tuple[str, ...]:
    """The keys of a fault's place: those that lead through ``value``. Other parts of pydantic's location are the names
    that it gives to the members of a union."""
    keys: list[str] = []
    for number, part in enumerate(fault["loc"], 1):
        if isinstance(value, Mapping):
            leads = part in value
        else:
            leads = isinstance(value, list | tuple) and isinstance(part, int) and part < len(value)
        if leads:
            value = value[part]
        if leads or (fault["type"] == "missing" and number == len(fault["loc"])):
            keys.append(str(part))
    return tuple(keys)


def _remedy(key: str, cls: type[BaseModel] | None, top: type[BaseModel]) -> str:
    known = list(cls.model_fields) if cls is not None else []
    hint = nearest(key, known)
    elsewhere = list(_places(top, key, ()))
    if hint is None and elsewhere:
        hint = elsewhere[0]
    return f"did you mean {hint!r}?" if hint else f"known: {', '.join(sorted(known)) or 'none'}."


def _places(cls: type[BaseModel], key: str, prefix: tuple[str, ...]) -> Iterator[str]:
    """The dotted paths at which ``key`` is known, nearest the top first."""
    for name in cls.model_fields:
        if name == key and prefix:
            yield ".".join((*prefix, key))
    for name, field in cls.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _places(field.annotation, key, (*prefix, name))


def _config_at(cls: type[BaseModel], location: Iterable[str]) -> type[BaseModel] | None:
    """The config nested at ``location``, as far as the annotations tell."""
    for part in location:
        field = cls.model_fields.get(part)
        if part.isdigit():
            continue
        inner = field.annotation if field else None
        if get_origin(inner) is tuple:
            inner = get_args(inner)[0]
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return None
        cls = inner
    return cls


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a TOML file. Raises UsageError in one sentence when it is missing or not TOML."""
    try:
        data = read_bounded(path, _MOST_RECIPE)
    except UnrolledError as error:
        raise UsageError(str(error)) from error
    try:
        return _toml(data.decode("utf-8"))
    except ValueError as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from error


def _toml(text: str) -> dict[str, Any]:
    """The value of TOML text. Raises ValueError, which a TOMLDecodeError is, also for what is too much of it."""
    # Python takes a time that grows with the square of the parts of a dotted key.
    if max(line.count(".") for line in text.split("\n")) > _MOST_DOTS:
        raise ValueError("a line has too many dots")
    try:
        value = tomllib.loads(text)
    except RecursionError as error:
        raise ValueError("its values lie in each other too deeply") from error
    except tomllib.TOMLDecodeError:
        raise
    except ValueError as error:  # Python's own limit on the digits of an integer
        raise ValueError("an integer has too many digits") from error
    if nested_deeper(value):
        raise ValueError("its values lie in each other too deeply")
    return value


def parse_setting(text: str) -> tuple[list[str], Any]:
    """Split ``a.b=value``; the value is TOML where it parses as TOML (3, 0.5, true, [1, 2]), None for ``null``, else a
    string."""
    path, sign, raw = text.partition("=")
    key = path.strip()
    if not sign or not key:
        raise UsageError(f"--set needs the form key=value or a.b=value (got {shown(text)}).")
    if "[" in key or "]" in key:
        raise UsageError(
            f"unknown config key {shown(key)}; a list is given as a whole, such as model.cell=[{{name='lstm'}}]."
        )
    keys = key.split(".")
    if len(keys) > NESTING:
        raise UsageError(f"unknown config key {shown(key)}; no key has so many parts.")
    if raw.strip() == "null":
        return keys, None
    try:
        parsed = _toml(f"value = {raw}")
        value = parsed["value"] if len(parsed) == 1 else raw.strip()  # text of several lines is no second setting
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    except ValueError as error:
        raise UsageError(f"the value of config key {shown(key)} cannot be read: {error}.") from error
    return keys, value


def apply_settings(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """A copy of a nested mapping with every ``a.b=value`` applied in order.

    Setting the ``name`` of a part (``cell.name=gru``), or its ``pattern``, drops its other keys, which belong to the
    old one.
    """
    if nested_deeper(values):
        raise UsageError("the settings lie in each other too deeply; remove a part.")
    result: dict[str, Any] = _copy(values)
    for setting in settings:
        path, value = parse_setting(setting)
        node: dict[str, Any] = result
        for part in path[:-1]:
            inner = node.get(part)
            if isinstance(inner, str):
                inner = {"name": inner}
            if not isinstance(inner, dict):
                inner = {}
            node[part] = inner
            node = inner
        if path[-1] in _CHOICES and (old := node.get("name", node.get("pattern", value))) != value:
            if others := [key for key in node if key not in _CHOICES]:
                place = ".".join(path[:-1])
                note(f"{place}: {value} takes the place of {old}, whose {', '.join(others)} are left out")
            node.clear()
        node[path[-1]] = value
    return result


def _copy(value: Any) -> Any:
    return {key: _copy(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value
