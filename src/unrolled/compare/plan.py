"""The plan of a comparison: what is compared, what is held equal, what is asked."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from unrolled.compare.contrast import ContrastConfig, RuleConfig
from unrolled.compare.held import check_given, check_settings, is_held
from unrolled.compare.problems import PlanProblem, figure_name
from unrolled.compare.shipped import find_shipped, list_shipped
from unrolled.core.config import Config, apply_settings, parse_setting, read_toml
from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name

__all__ = [
    "BudgetConfig", "MatchConfig", "MeasureConfig", "PlanConfig", "SearchConfig", "SystemConfig", "find_plan",
    "list_plans", "read_plan",
]  # fmt: skip

KIND = "unrolled plan"
_NAME = r"^[A-Za-z0-9][A-Za-z0-9 ._+=-]*$"
OF_FRAMES = ("mse", "mse_future")
"""Figures of frames that contrasts may ask of."""
_LESS_IS_BETTER = ("nats", "excess")
"""Figures of problems at a point that contrasts may ask of; the others are shares, of which more is better."""


class BudgetConfig(Config):
    """How long each run trains; one of these."""

    tokens: int | None = Field(default=None, ge=1, le=10**15, description="training tokens")
    steps: int | None = Field(default=None, ge=1, le=10**12, description="optimiser steps")
    flops: float | None = Field(default=None, gt=0, description="operations of matrix products, forward and backward")
    cpu_seconds: float | None = Field(
        default=None, gt=0, le=1e9, description="CPU seconds of training, turned into tokens by one timing job"
    )

    @model_validator(mode="after")
    def _one(self) -> "BudgetConfig":
        given = [name for name in type(self).model_fields if getattr(self, name) is not None]
        if len(given) != 1:
            raise UsageError(
                f"a budget is one of tokens, steps, flops or cpu_seconds, not {' and '.join(given) or 'none'}."
            )
        return self

    @property
    def kind(self) -> str:
        """Which of them it is."""
        return next(name for name in type(self).model_fields if getattr(self, name) is not None)

    @property
    def amount(self) -> float:
        """How much of that."""
        return getattr(self, self.kind)


class MatchConfig(Config):
    """What is held equal over all systems."""

    parameters: int | None = Field(
        default=None, ge=1, description="the most parameters; each system takes its largest width that fits"
    )
    state: int | None = Field(
        default=None, ge=1, description="in place of them, the most numbers that the layers carry from step to step"
    )
    tolerance: float = Field(
        default=0.005, ge=0, lt=1, description="share of the parameters that a system may fall short of them"
    )
    budget: BudgetConfig = Field(description="of each full run")
    reference: str | None = Field(
        default=None,
        description="with a budget in tokens: the system whose tokens these are; the others get its CPU seconds",
    )
    free: tuple[str, ...] = Field(
        default=(), description="parts that systems may change although they are held equal otherwise, such as stream"
    )

    @model_validator(mode="after")
    def _reference(self) -> "MatchConfig":
        if self.state is not None and self.parameters is not None:
            raise UsageError("match has parameters and state, which decide the width both; keep one of them.")
        if self.reference is not None and self.budget.tokens is None:
            raise UsageError("match.reference goes with a budget in tokens, which are those of that system.")
        return self


class SearchConfig(Config):
    """The search of one setting, for each system by itself, on the validation split."""

    setting: str = Field(min_length=1, description="what is searched, such as train.optimizer.lr")
    values: tuple[float | int | str, ...] = Field(min_length=2, description="what is tried")
    budget: BudgetConfig = Field(description="of each run of the search")
    seeds: tuple[int, ...] = Field(min_length=1, description="of these runs; none of the plan's own")
    edge: Literal["extend", "report", "refuse"] = Field(
        default="extend",
        description="where the best value is the least or largest: extend the list by geometric steps, at most two; "
        "report it; or refuse to go on",
    )

    @model_validator(mode="after")
    def _sound(self) -> "SearchConfig":
        self.check_values("search.values", self.values)
        if self.budget.cpu_seconds is not None:
            raise UsageError("the budget of a search is in tokens, steps or flops, not in cpu_seconds.")
        return self

    def check_values(self, what: str, values: Sequence[float | int | str]) -> None:
        """Raises UsageError for values that could not be searched. what: their name, for the sentence."""
        if len(set(values)) != len(values):
            raise UsageError(f"{what} has a value twice; keep one of them.")
        numbers = [isinstance(value, float | int) and not isinstance(value, bool) for value in values]
        if self.edge == "extend" and not (all(numbers) and min(values) > 0):  # type: ignore[type-var]
            raise UsageError(
                f'search.edge = extend needs values above zero, and {what} has others; say search.edge = "report".'
            )


class MeasureConfig(Config):
    """A measurement of each final model beside its validation loss; its figures may be asked of in contrasts."""

    name: Literal["recovery"] = Field(
        description="recovery: excess loss after a wrong input (see inspect recovery), as recovery_bits in all and "
        "recovery_first_bits at the next token",
    )
    places: int = Field(default=300, ge=10, description="places in the validation text that are corrupted")
    lags: int = Field(default=100, ge=1, description="tokens after the corruption that are summed over")
    columns: int = Field(default=20, ge=1, description="parallel columns in which the text is read")


class SystemConfig(Config):
    """One of what is compared."""

    name: str = Field(pattern=_NAME, max_length=60, description="what tables call it")
    set: tuple[str, ...] = Field(default=(), description="settings on top of the plan's, such as model.cell.name=gru")
    recipe: str | None = Field(default=None, description="in place of the plan's")
    fit: str | None = Field(
        default=None,
        description="the number that is chosen for the parameters in place of the width, such as model.cell.factor; "
        "one that need not be whole, such as model.stack.mlp, in hundredths",
    )
    values: tuple[float | int | str, ...] | None = Field(
        default=None, min_length=1, description="what is searched, in place of search.values"
    )


class PlanConfig(Config):
    """A plan; see docs/comparing.md."""

    kind: Literal["unrolled plan"] = Field(default=KIND, description="what the file is")
    title: str = Field(min_length=1, description="the question, in one line")
    recipe: str = Field(description="name or path of the recipe that everything else is taken from")
    settings: tuple[str, ...] = Field(default=(), description="settings on top of the recipe, for all systems")
    seeds: tuple[int, ...] = Field(min_length=1, description="of the full runs, the same for every system")
    corpora: tuple[str, ...] = Field(
        default=(), description="names or paths; everything is done on each (absent: the recipe's)"
    )
    threads: int = Field(default=1, ge=1, le=1024, description="CPU threads of a run: part of its result to the bit")
    per_token: bool = Field(default=False, description="keep the log-probability of every validation token of each run")
    match: MatchConfig = Field(description="what is held equal")
    search: SearchConfig | None = Field(default=None, description="what is searched for each system")
    system: tuple[SystemConfig, ...] = Field(min_length=1, description="what is compared")
    contrast: tuple[ContrastConfig, ...] = Field(default=(), description="what is asked")
    rule: tuple[RuleConfig, ...] = Field(default=(), description="how verdicts become the answer, first row first")
    measure: tuple[MeasureConfig, ...] = Field(default=(), description="further measurements of each final model")
    problem: tuple[PlanProblem, ...] = Field(
        default=(), description="synthetic problems in the place of corpora; the recipe is of the task made"
    )

    @model_validator(mode="after")
    def _sound(self) -> "PlanConfig":
        _each_once("seeds", self.seeds)
        _each_once("corpora", self.corpora)
        _each_once("system", [one.name for one in self.system])
        _each_once("contrast", [one.name for one in self.contrast])
        _each_once("problem", [one.label for one in self.problem])
        if self.problem and (self.corpora or self.measure or self.per_token):
            raise UsageError("a plan of problems has no corpora, no [[measure]] and no per_token; leave them out.")
        self._seeds_apart()
        check_settings(self.settings)
        for system in self.system:
            self._may_set(system)
        self._searched()
        self._names()
        self._figures()
        return self

    def _seeds_apart(self) -> None:
        for seed in self.search.seeds if self.search else ():
            if seed in self.seeds:
                raise UsageError(f"seed {seed} is both a seed and a search seed; keep them apart.")

    def _may_set(self, system: SystemConfig) -> None:
        for setting in system.set:
            keys, _ = parse_setting(setting)
            path = ".".join(keys)
            if is_held(path, self.match.free):
                raise UsageError(
                    f"system {system.name!r} sets {path}, which is held equal over all systems; set it for all in "
                    f'settings, or say match.free = ["{path}"] and the report will say so.'
                )
            if self.search is not None and path == self.search.setting:
                raise UsageError(f"system {system.name!r} sets {path}, which is searched; give it values = [...].")

        if system.fit is not None and self.match.parameters is None:
            raise UsageError(
                f"system {system.name!r} has fit, and match has no parameters to fit it to; give match.parameters, or "
                "leave fit out."
            )

    def _searched(self) -> None:
        if self.search is not None and is_held(self.search.setting, self.match.free):
            raise UsageError(
                f"search.setting is {self.search.setting}, which is held equal over all systems; search another one."
            )
        for system in self.system:
            if system.values is not None and self.search is None:
                raise UsageError(f"system {system.name!r} has values, and the plan has no [search]; add one.")
            if system.values is not None and self.search is not None:
                self.search.check_values(f"values of system {system.name!r}", system.values)

    def _figures(self) -> None:
        """In every figure of a contrast less is better."""
        known = ["nats_per_token", "train_nats"]
        known += ["recovery_bits", "recovery_first_bits"] if self.measure else []
        known += OF_FRAMES if not (self.problem or self.corpora) else ()
        points = [point for one in self.problem for point in one.named_points()]
        known += [figure_name(kind, point) for kind in _LESS_IS_BETTER for point in dict.fromkeys(points)]
        for contrast in self.contrast:
            if contrast.figure not in known:
                raise UsageError(f"contrast {contrast.name!r}: {unknown_name('figure', contrast.figure, known)}")

    def _names(self) -> None:
        names = [one.name for one in self.system]
        asked = {contrast.name: (contrast.one, contrast.than) for contrast in self.contrast}
        for contrast, pair in asked.items():
            for name in pair:
                if name not in names:
                    raise UsageError(f"contrast {contrast!r}: {unknown_name('system', name, names)}")
            if pair[0] == pair[1]:
                raise UsageError(f"contrast {contrast!r} compares {pair[0]!r} with itself; name two systems.")
        if self.match.reference is not None and self.match.reference not in names:
            raise UsageError(f"match.reference: {unknown_name('system', self.match.reference, names)}")
        for rule in self.rule:
            for name in rule.when:
                if name not in asked:
                    raise UsageError(f"rule {rule.say!r}: {unknown_name('contrast', name, asked)}")

    def values_of(self, system: str) -> tuple[float | int | str, ...]:
        """What is searched for a system; empty without a search."""
        if self.search is None:
            return ()
        own = next(one.values for one in self.system if one.name == system)
        return self.search.values if own is None else own


def _each_once(what: str, values: Sequence[Any]) -> None:
    for value in values:
        if list(values).count(value) > 1:
            raise UsageError(f"{what} has {value!r} twice; keep one of them.")


def list_plans() -> dict[str, str]:
    """Name -> title of every shipped plan."""
    return list_shipped("plans")


def find_plan(name: str) -> Path:
    """The file of a shipped plan, or of one given by its path.

    Raises:
        UsageError: neither; names the nearest plan.
    """
    return find_shipped("plan", "plans", name)


def read_plan(path: Path, settings: Iterable[str] = ()) -> PlanConfig:
    """Read a plan with ``a.b=value`` settings applied.

    Raises:
        UsageError: no plan, or a wrong one, in one sentence.
    """
    value = read_toml(path)
    if value.get("kind") != KIND:
        raise UsageError(f'{path} is no plan: it does not say kind = "{KIND}".')
    try:
        check_given(settings := tuple(settings), PlanConfig.model_fields, "a plan", "match.budget, seeds or threads")
        return PlanConfig.parse(apply_settings(value, settings))
    except UsageError as error:
        raise UsageError(f"{path}: {error}") from error
