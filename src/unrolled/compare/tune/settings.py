"""Settings of trials: what the recipe has, what is in force where, and whether a space fits a recipe."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from unrolled.compare.resolve import value_at, with_value
from unrolled.compare.tune.condition import parse_condition
from unrolled.compare.tune.space import DimensionConfig, SpaceConfig, Value
from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.train import ExperimentConfig

__all__ = ["Settings", "active", "changed", "check_space", "in_order", "own_settings", "own_start", "paths"]

Settings = dict[str, Value]
_CHOICES = (".name", ".pattern")
"""Settings that drop those beside them, which belong to another part."""


def paths(values: Any, prefix: str = "") -> Iterator[str]:
    """The dotted paths of all settings of a configuration, those of whole tables too."""
    for key, inner in values.items():
        yield prefix + key
        if isinstance(inner, Mapping):
            yield from paths(inner, f"{prefix}{key}.")


def changed(config: Mapping[str, Any], settings: Mapping[str, Value]) -> dict[str, Any]:
    """A configuration with other settings; those that choose a part come first."""
    result = dict(config)
    for name in sorted(settings, key=lambda name: not name.endswith(_CHOICES)):
        value = settings[name]
        result = with_value(result, name, str(value).lower() if isinstance(value, bool) else value)
    return result


def in_order(space: Mapping[str, DimensionConfig]) -> list[str]:
    """The settings, each after the one that its condition asks for.

    Raises:
        UsageError: conditions that ask for each other.
    """
    ordered: list[str] = []
    while len(ordered) < len(space):
        ready = [name for name in space if name not in ordered and _asked(space, name) in (None, *ordered)]
        if not ready:
            left = [name for name in space if name not in ordered]
            raise UsageError(f"the conditions of {' and '.join(left)} ask for each other; take one when away.")
        ordered += ready
    return ordered


def _asked(space: Mapping[str, DimensionConfig], name: str) -> str | None:
    """The searched setting that the condition of another asks for."""
    when = space[name].when
    asked = None if when is None else parse_condition(when).setting
    return asked if asked in space else None


def active(space: Mapping[str, DimensionConfig], name: str, config: Mapping[str, Any], given: Settings) -> bool:
    """Whether a setting is searched beside others. given: the settings before it, in the order of :func:`in_order`."""
    when = space[name].when
    if when is None:
        return True
    condition = parse_condition(when)
    asked = condition.setting
    return condition.holds(given[asked] if asked in given else value_at(config, asked))


def own_settings(space: SpaceConfig, config: Mapping[str, Any]) -> Settings:
    """What the recipe has for each setting that is searched beside its other ones: trial 0.

    Raises:
        UsageError: a value outside of what is tried.
    """
    return _placed(space, config, {}, "the recipe's")


def own_start(space: SpaceConfig, config: Mapping[str, Any], given: Mapping[str, Value]) -> Settings:
    """A start: what is given, and the recipe's values for all else.

    Raises:
        UsageError: a setting that is not searched, or a value outside of what is tried.
    """
    for name in given:
        if name not in space.space:
            raise UsageError(f"start: {unknown_name('setting', name, space.space)}")
    return _placed(space, config, given, "the start's")


def _placed(space: SpaceConfig, config: Mapping[str, Any], given: Mapping[str, Value], whose: str) -> Settings:
    found: Settings = {}
    for name in in_order(space.space):
        if not active(space.space, name, config, found):
            continue
        value = given[name] if name in given else value_at(config, name)
        if value is None or isinstance(value, Mapping | list):
            raise UsageError(
                f"the recipe leaves {name} open, so that trial 0 has no value of it; set it, such as settings = "
                f'["{name}=..."].'
            )
        if not space.space[name].holds(value):
            who = whose if name in given else "the recipe's"
            raise UsageError(
                f"{who} {name} = {value} is not among what is tried ({space.space[name]}); widen that, or change the "
                "value in settings."
            )
        found[name] = value
    return found


def check_space(space: SpaceConfig, config: Mapping[str, Any]) -> None:
    """Raises UsageError where a recipe lacks a setting of a space, or a condition can never hold."""
    in_order(space.space)
    known = set(_known(space.space, config))
    for name, dimension in space.space.items():
        if name not in known:
            raise UsageError(f"space: the recipe lacks it: {unknown_name('setting', name, known)}")
        if dimension.when is not None:
            _check_condition(space.space, name, config, known)
            continue
        for value in dimension.examples():  # one that is refused is told now, not after hours
            try:
                ExperimentConfig.parse(changed(config, {name: value}))
            except UsageError as error:
                raise UsageError(f"space {name}: {value} is refused: {error}") from error


def _known(space: Mapping[str, DimensionConfig], config: Mapping[str, Any]) -> Iterator[str]:
    """Settings of the recipe, and of the parts that a space may put in the place of its own."""
    yield from paths(config)
    for name, dimension in space.items():
        if name.endswith(_CHOICES):
            for value in dimension.values or ():
                other = ExperimentConfig.parse(changed(config, {name: value}))
                yield from paths(other.model_dump(mode="json"))


def _check_condition(
    space: Mapping[str, DimensionConfig], name: str, config: Mapping[str, Any], known: Iterable[str]
) -> None:
    when = space[name].when
    assert when is not None
    condition = parse_condition(when)
    if condition.setting not in known:
        raise UsageError(f"space {name}: when = {when!r}: {unknown_name('setting', condition.setting, known)}")
    dimension = space.get(condition.setting)
    if dimension is None:
        tried: list[Any] = [value_at(config, condition.setting)]
    elif dimension.values is not None:
        tried = list(dimension.values)
    else:  # of an open range the ends say whether an order can hold; a value within may be equal
        tried = [dimension.low, dimension.high, *([condition.value] if dimension.holds(condition.value) else [])]
    if not any(condition.holds(value) for value in tried):
        what = dimension if dimension is not None else tried[0]
        raise UsageError(
            f"space {name}: when = {when!r} never holds, since {condition.setting} is {what}; change it, or take "
            f"{name} away."
        )
