"""The file of a search: which settings, over what, for how long, and what decides."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from unrolled.compare.held import check_given, check_settings
from unrolled.compare.plan import BudgetConfig
from unrolled.compare.shipped import find_shipped, list_shipped
from unrolled.compare.tune.condition import parse_condition
from unrolled.core.config import Config, apply_settings, parse_setting, read_toml
from unrolled.core.errors import UsageError

__all__ = ["ConfirmConfig", "DimensionConfig", "SpaceConfig", "Value", "find_space", "list_spaces", "read_space"]

KIND = "unrolled space"
Value = bool | int | float | str
_HELD = ("seed", "corpus", "tokenizer", "vocabulary", "task", "published", "weights", "title")
"""Parts of a config that no trial may change: their losses would not compare."""
_HELD_OF_TRAIN = (
    "steps", "tokens", "epochs", "minutes", "cpu_minutes", "then", "threads", "validations", "valid_tokens",
    "valid_columns", "final_eval", "patience",
)  # fmt: skip
_SAYS = "a space", "trial, seed or threads"


class DimensionConfig(Config):
    """What is tried of one setting: a range, or values."""

    low: float | None = Field(default=None, description="least value")
    high: float | None = Field(default=None, description="largest value")
    log: bool = Field(default=False, description="equal ratios are equally likely, not equal differences")
    integer: bool = Field(default=False, description="whole numbers alone")
    values: tuple[Value, ...] | None = Field(default=None, description="in place of a range, in no order")
    when: str | None = Field(
        default=None,
        description="searched only where this holds, such as model.cell.rounds > 0; elsewhere the recipe's value stays",
    )

    @model_validator(mode="after")
    def _sound(self) -> "DimensionConfig":
        if self.values is not None:
            if self.low is not None or self.high is not None or self.log or self.integer:
                raise UsageError("give values, or low and high with log and integer; not both.")
            if len(self.values) < 2 or len(set(self.values)) != len(self.values):
                raise UsageError("values are two or more, each once.")
        elif self.low is None or self.high is None:
            raise UsageError("give low and high, or values.")
        elif self.low >= self.high:
            raise UsageError(f"low = {self.low:g} is not below high = {self.high:g}; set them apart.")
        elif self.log and self.low <= 0:
            raise UsageError(f"log = true needs low above zero, not {self.low:g}.")
        elif self.integer and not (self.low.is_integer() and self.high.is_integer()):
            raise UsageError("integer = true needs whole numbers as low and high.")
        if self.when is not None:
            parse_condition(self.when)
        return self

    def holds(self, value: Any) -> bool:
        """Whether a value is one of those that are tried."""
        if self.values is not None:
            return any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in self.values)
        assert self.low is not None
        assert self.high is not None
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return self.low <= value <= self.high and not (self.integer and value != int(value))

    def examples(self) -> tuple[Value, ...]:
        """The ends and something between them, or all values."""
        if self.values is not None:
            return self.values
        assert self.low is not None
        assert self.high is not None
        if self.integer:
            return int(self.low), int(self.high)
        return self.low, self.low + 0.37 * (self.high - self.low), self.high

    def __str__(self) -> str:
        if self.values is not None:
            return ", ".join(map(str, self.values))
        kind = (" by ratios" if self.log else "") + (", whole" if self.integer else "")
        return f"{self.low:g} to {self.high:g}{kind}"


class ConfirmConfig(Config):
    """What decides at the end: the best settings, trained anew with other seeds."""

    best: int = Field(default=3, ge=1, le=100, description="how many of the best trials are confirmed")
    seeds: tuple[int, ...] = Field(default=(11, 12, 13), min_length=1, description="none of them the trials' own")


class SpaceConfig(Config):
    """A space; see docs/tuning.md."""

    kind: Literal["unrolled space"] = Field(default=KIND, description="what the file is")
    title: str = Field(default="", description="one line about the search")
    recipe: str = Field(description="name or path of the recipe whose settings are searched; it is trial 0")
    settings: tuple[str, ...] = Field(default=(), description="settings on top of the recipe, for all trials")
    seed: int = Field(default=1, ge=0, description="of every trial, and with its number of what it is given")
    threads: int = Field(default=1, ge=1, le=1024, description="CPU threads of a run: part of its result to the bit")
    parameters: int | None = Field(
        default=None, ge=1, description="the most parameters; every trial takes its largest width that fits"
    )
    trial: BudgetConfig = Field(description="of a trial that is not stopped, and of each run that confirms")
    rungs: tuple[float, ...] = Field(
        default=(0.11, 0.33), description="shares of a trial at which the worst are stopped (empty: none is)"
    )
    keep: float = Field(default=0.34, gt=0, lt=1, description="share of the trials so far that goes on at a rung")
    sampler: Literal["tpe", "random"] = Field(
        default="tpe", description="tree-structured Parzen estimator, or every trial at random"
    )
    random: int = Field(default=15, ge=1, le=10**6, description="trials at random before the sampler learns from them")
    confirm: ConfirmConfig = Field(default=ConfirmConfig(), description="what decides at the end")
    start: tuple[dict[str, Value] | str, ...] = Field(
        default=(),
        description='trials after the recipe: tables of settings, or "study:DIR" for the best five of another study',
    )
    space: dict[str, DimensionConfig] = Field(min_length=1, description="setting -> what is tried of it")

    @model_validator(mode="after")
    def _sound(self) -> "SpaceConfig":
        if self.seed in self.confirm.seeds or len(set(self.confirm.seeds)) != len(self.confirm.seeds):
            raise UsageError(f"confirm.seeds are new ones, each once, and none is the trials' seed {self.seed}.")
        if any(not 0 < rung < 1 for rung in self.rungs) or list(self.rungs) != sorted(set(self.rungs)):
            raise UsageError("rungs are shares of a trial above 0 and below 1, in rising order.")
        check_settings(self.settings, *_SAYS)
        if self.rungs and any(parse_setting(one)[0] == ["train", "validations"] for one in self.settings):
            raise UsageError("settings has train.validations, which the rungs decide; remove it there, or the rungs.")
        for name in self.space:
            keys = name.split(".")
            if keys[0] in _HELD or (keys[0] == "train" and len(keys) > 1 and keys[1] in _HELD_OF_TRAIN):
                raise UsageError(
                    f"{name} cannot be searched, since the losses of trials would not compare; set it for all in "
                    "settings."
                )
            if self.parameters is not None and name in ("model.width", "model.params"):
                raise UsageError(f"{name} is fitted to the parameters in every trial; take it, or parameters, away.")
        for one in self.start:
            if isinstance(one, str) and not one.startswith("study:"):
                raise UsageError(f'start = {one!r} is neither a table of settings nor "study:DIR".')
        return self


def list_spaces() -> dict[str, str]:
    """Name -> title of every shipped space."""
    return list_shipped("spaces")


def find_space(name: str) -> Path:
    """The file of a shipped space, or of one given by its path.

    Raises:
        UsageError: neither; names the nearest space.
    """
    return find_shipped("space", "spaces", name)


def read_space(path: Path, settings: Iterable[str] = ()) -> SpaceConfig:
    """Read a space with ``a.b=value`` settings applied.

    Raises:
        UsageError: no space, or a wrong one, in one sentence.
    """
    value = read_toml(path)
    if value.get("kind") != KIND:
        raise UsageError(f'{path} is no space: it does not say kind = "{KIND}".')
    try:
        check_given(settings := tuple(settings), SpaceConfig.model_fields, *_SAYS)
        return SpaceConfig.parse(apply_settings({**value, "space": flat(value.get("space", {}))}, settings))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error


def flat(space: Any) -> Any:
    """A space whose settings may be written without quotes, as tables in tables, with dotted names."""
    if not isinstance(space, Mapping):
        return space
    found: dict[str, Any] = {}
    for name, inner in space.items():
        nested = isinstance(inner, Mapping) and not (set(inner) & set(DimensionConfig.model_fields))
        if nested and inner:
            found |= {f"{name}.{key}": value for key, value in flat(inner).items()}
        else:
            found[name] = inner
    return found
