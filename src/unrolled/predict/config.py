"""From settings to a predictor: what is done to a model at test time, in one place for every verb."""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any, Self

from pydantic import Field, SerializeAsAny, ValidationError, model_validator

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.registry import PartError
from unrolled.predict.adapter import MEMORY, AdapterConfig, Source
from unrolled.predict.adapters import ADAPTERS
from unrolled.predict.base import Predictor
from unrolled.predict.packed import in_steps

__all__ = ["PredictorConfig", "adapt", "as_table"]


class PredictorConfig(Config):
    """What is done to a model at test time; nothing by default.

    Read from a list of tables with ``name`` and options, or from a table by name, in which a bare value stands for
    the option that is most often given: ``{"temperature": 0.9, "dynamic": "krause", "cache": {"length": 500}}``. Each
    adapter occurs once, and the order is that in which they are applied, whatever order they were given in.
    """

    adapters: tuple[SerializeAsAny[AdapterConfig], ...] = Field(
        default=(), description="names and options of what is done, in the order in which it is done"
    )

    @model_validator(mode="before")
    @classmethod
    def _ordered(cls, value: Any) -> Any:
        if not isinstance(value, Mapping):
            return value
        found = [one for one in _configs(value) if one != ADAPTERS[one.name].neutral]
        found.sort(key=lambda one: (ADAPTERS[one.name].place, one.name))
        return {"adapters": tuple(found)}

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        for first, second in itertools.combinations(self.adapters, 2):
            _check_pair(first.name, second.name)
        return self

    def get(self, name: str) -> Any:
        """The options of an adapter; None where it is not among these."""
        return next((one for one in self.adapters if one.name == name), None)

    def having(self, config: AdapterConfig) -> Self:
        """These with the options of one adapter put in, in place of those that it had."""
        return type(self)(adapters=(*(one for one in self.adapters if one.name != config.name), config))


def adapt(
    predictor: Predictor, config: PredictorConfig, source: Source | None = None, stepwise: bool = False
) -> Predictor:
    """The predictor that the settings describe.

    Args:
        predictor: a model as it is.
        source: the run that it comes from, for adapters that need more than the model.
        stepwise: the text is going to be read token by token; the weights are packed for that where they can be.
    Raises:
        UsageError: the model cannot serve a setting.
    """
    for one in config.adapters:
        adapter = ADAPTERS[one.name]
        if stepwise and adapter.place >= MEMORY:
            predictor, stepwise = in_steps(predictor), False
        if adapter.needs_hidden and not predictor.gives_hidden:
            raise UsageError(
                f"{adapter.title} needs hidden states, which this model does not give; leave out {one.name}."
            )
        predictor = adapter.apply(predictor, one, source)
    return in_steps(predictor) if stepwise else predictor


def _configs(value: Mapping[str, Any]) -> Iterator[AdapterConfig]:
    """Options checked by the class of each adapter. Raises UsageError for an unknown name, and for one given twice."""
    listed = value.get("adapters", ())
    if not isinstance(listed, list | tuple):
        raise UsageError("the adapters are a list of tables, each with a name and options.")
    given: list[tuple[str, Any]] = [(_name(one), {} if isinstance(one, str) else one) for one in listed]
    # what is switched off is left out, as it always was in these tables
    given += [(name, one) for name, one in value.items() if name != "adapters" and one is not None]
    names: set[str] = set()
    for name, one in given:
        if name in names:
            raise UsageError(f"{name} is given twice; give it once, with all of its options.")
        names.add(name)
        yield one if isinstance(one, AdapterConfig) and one.name == name else _config(name, one)


def _name(one: Any) -> str:
    name = one.get("name") if isinstance(one, Mapping) else getattr(one, "name", one)
    if not isinstance(name, str):
        raise UsageError(f"a setting at test time needs the key 'name', one of: {', '.join(sorted(ADAPTERS))}.")
    return name


def as_table(name: str, given: Any) -> Mapping[str, Any]:
    """Options of an adapter as a table: a bare value sets the main one. Raises UsageError where there is none."""
    if isinstance(given, Mapping):
        return given
    short = ADAPTERS[name].Config.short
    if short is None:
        raise UsageError(f"{name} has no main option that a bare value would set; give a table of options.")
    return {short: given}


def _config(name: str, given: Any) -> AdapterConfig:
    cls = ADAPTERS[name].Config
    try:
        return cls.model_validate({"name": name, **as_table(name, given)})
    except ValidationError as error:
        raise PartError(error, cls, given, (name,)) from error


def _check_pair(first: str, second: str) -> None:
    """Raises UsageError for adapters that do not go together; the first comes before the second in the chain."""
    below, above = ADAPTERS[first], ADAPTERS[second]
    if below.reads_model and above.reads_model:
        raise UsageError(
            f"{below.title} and {above.title} are not combined, since each reads the model in a way of its own; leave "
            f"out {first} or {second}."
        )
    if above.needs_hidden and not below.gives_hidden:
        raise UsageError(
            f"{above.title} is not combined with {below.title}, which gives no hidden states; leave out {first} or "
            f"{second}."
        )
