"""Frozen, described, versioned configurations, and errors about them in one plain sentence."""

import os
import re
import reprlib
import tomllib
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, get_args, get_origin

from pydantic import BaseModel, ConfigDict, ValidationError

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import read_json, write_json
from unrolled.core.registry import PartError, nearest

__all__ = ["Config", "VersionedConfig", "apply_settings", "parse_setting", "plain_validation_error", "read_toml"]


class Config(BaseModel):
    """Base of every configuration: frozen, unknown keys refused, every field described."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, validate_default=True)

    @classmethod
    def parse(cls, value: Mapping[str, Any]) -> Self:
        """Validate a mapping. Raises UsageError in one sentence (path, fault, nearest known key)."""
        try:
            return cls.model_validate(value)
        except ValidationError as error:
            raise plain_validation_error(error, cls) from error


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
        value = read_json(path)
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


def plain_validation_error(error: ValidationError, cls: type[BaseModel]) -> UsageError:
    """Turn pydantic's report into one sentence about its most telling fault."""
    return UsageError(_sentence(error, cls, (), cls))


def _sentence(error: ValidationError, cls: type[BaseModel], prefix: tuple[str, ...], top: type[BaseModel]) -> str:
    # A field that takes one part or a list of them reports both attempts; the one that got further counts.
    faults = error.errors()
    fault = max(faults, key=lambda fault: (_part(fault) is not None, len(_path(fault["loc"]))))
    location, part = _path(fault["loc"]), _part(fault)
    if part is not None:
        return _sentence(part.cause, part.cls, (*prefix, *location), top)
    path = ".".join((*prefix, *location))
    if fault["type"] == "extra_forbidden":
        return f"unknown config key {path!r}; {_remedy(location[-1], _config_at(cls, location[:-1]), top)}"
    if fault["type"] == "missing":
        return f"config key {path!r} is required and missing."
    message = fault["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    where = f"config key {path!r}: " if path else ""
    got = "" if isinstance(fault["input"], Mapping | BaseModel) else f" (got {reprlib.repr(fault['input'])})"
    return f"{where}{message.rstrip('.')}{got}."


def _part(fault: Any) -> PartError | None:
    cause = fault.get("ctx", {}).get("error")
    return cause if isinstance(cause, PartError) else None


def _path(location: tuple[int | str, ...]) -> tuple[str, ...]:
    """The keys of a location, without the names that pydantic gives to the members of a union."""
    return tuple(str(part) for part in location if not (isinstance(part, str) and re.search(r"[\[(]", part)))


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
    path = Path(path)
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UsageError(f"{path} does not exist.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}.") from error
    except OSError as error:
        raise UsageError(f"cannot read {path}: {error.strerror or error}.") from error


def parse_setting(text: str) -> tuple[list[str], Any]:
    """Split ``a.b=value``; the value is TOML where it parses as TOML (3, 0.5, true, [1, 2]), else a string."""
    path, sign, raw = text.partition("=")
    if not sign or not path.strip():
        raise UsageError(f"--set needs the form key=value or a.b=value (got {text!r}).")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    return path.strip().split("."), value


def apply_settings(values: Mapping[str, Any], settings: Iterable[str]) -> dict[str, Any]:
    """A copy of a nested mapping with every ``a.b=value`` applied in order.

    Setting the ``name`` of a part (``cell.name=gru``) drops its other keys, which belong to the old one.
    """
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
        if path[-1] == "name" and node.get("name", value) != value:
            node.clear()
        node[path[-1]] = value
    return result


def _copy(value: Any) -> Any:
    return {key: _copy(inner) for key, inner in value.items()} if isinstance(value, Mapping) else value
