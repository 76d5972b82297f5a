"""The plan of a probe: cells that learn synthetic problems, each with its own learning rate."""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from pydantic import Field

from unrolled.cells import CELLS
from unrolled.core.config import Config, apply_settings, parse_setting
from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.data.made import MADE

__all__ = ["ProbeConfig", "probe_plan"]

_KIND = "unrolled plan"


class ProbeConfig(Config):
    """What a probe compares, and on what."""

    problems: tuple[str, ...] = Field(
        min_length=1,
        description="names of problems, with a label of their own where one is wanted: mqar, copy:selective",
    )
    cells: tuple[str, ...] = Field(
        min_length=1, description="cells by name, as patterns ('qrnn*2, mlp') or tables ({name='mgru', factor=32})"
    )
    points: dict[str, dict[str, tuple[float | int | str, ...]]] = Field(
        default={}, description="label of a problem -> setting -> values at which it is measured"
    )
    settings: tuple[str, ...] = Field(
        default=(), description="settings of problems, LABEL.option=value, and of the recipe, a.b=value"
    )
    recipe: str = Field(default="probe", description="recipe of the task made")
    match: Literal["params", "state", "none"] = Field(
        default="params", description="what is equal: parameters, numbers of state, or the width"
    )
    size: int | None = Field(default=None, ge=1, description="how many of these (absent: 100,000, 2,000, or 64)")
    rates: tuple[float, ...] = Field(default=(0.001, 0.003, 0.01), min_length=1, description="learning rates tried")
    seeds: int = Field(default=3, ge=1, le=900, description="full runs of each cell")
    cpu_minutes: float | None = Field(default=None, gt=0, description="of each full run, in place of steps")
    steps: int | None = Field(default=None, ge=1, description="of each full run (absent, like cpu_minutes: 2,000)")
    rows: int = Field(default=500, ge=1, description="rows measured at each point")


_SIZES = {"params": 100_000, "state": 2_000, "none": 64}
_STEPS, _SEARCH_SHARE, _SEARCH_SEED = 2000, 3, 901
_SAID = {
    "train.steps": "with --steps",
    "train.cpu_minutes": "with --cpu-minutes",
    **{f"train.{name}": "with --steps or --cpu-minutes" for name in ("tokens", "epochs", "minutes", "then")},
    "train.threads": "itself, since a run has one thread (several runs side by side: --workers)",
    "train.optimizer.lr": "with --lr",
    "seed": "with --seeds",
    "model.width": "with --size (of the width itself: --match none)",
    "model.params": "with --size",
    "model.cell": "with --cells or --cell",
    "model.cell.name": "with --cells or --cell",
    "task.problem": "by its arguments, PROBLEM:LABEL, and --set LABEL.option=value",
}
"""What a probe says itself, so that a setting of the recipe would be without effect or break its promise."""


def probe_plan(config: ProbeConfig) -> dict[str, Any]:
    """The plan as values, to be written as a file and registered.

    Raises:
        UsageError: an unknown problem or cell, points of a problem that is not probed; a setting that is
            said otherwise.
    """
    _each_once("--lr", config.rates)
    _each_once("--cells", config.cells)
    labels = [name.partition(":")[::2] for name in config.problems]
    problems = [_problem(name, label or name, config) for name, label in labels]
    known = [problem["label"] for problem in problems]
    for label in config.points:
        if label not in known:
            raise unknown_name("problem to measure at points", label, known)
    if len(set(known)) != len(known):
        raise UsageError("a problem is there twice; give each a label of its own, such as copy:selective.")
    own = [setting for setting in config.settings if setting.split(".", 1)[0].strip() not in known]
    _check_said(own)
    return {
        "kind": _KIND,
        "title": f"What can {len(config.cells)} cells learn of {', '.join(known)}?",
        "recipe": config.recipe,
        "settings": own,
        "seeds": list(range(1, config.seeds + 1)),
        "match": _match(config),
        "search": _search(config),
        "system": [_system(cell, config) for cell in config.cells],
        "problem": problems,
    }


def _check_said(settings: Iterable[str]) -> None:
    for setting in settings:
        path = ".".join(parse_setting(setting)[0])
        for said, how in _SAID.items():
            if path == said or (said == "task.problem" and path.startswith(f"{said}.")):
                raise UsageError(f"a probe says {said} {how}; leave it out of --set.")


def _each_once(option: str, values: Sequence[Any]) -> None:
    for value in values:
        if list(values).count(value) > 1:
            raise UsageError(f"{option} has {value} twice; keep one of them.")


def _problem(name: str, label: str, config: ProbeConfig) -> dict[str, Any]:
    if name not in MADE:
        raise unknown_name("problem", name, MADE)
    settings = [s.split(".", 1)[1] for s in config.settings if s.split(".", 1)[0].strip() == label]
    values = apply_settings({"name": name}, settings)
    points = config.points.get(label)
    if points is None:  # what the problem itself thinks worth measuring, of its first setting
        made = MADE[name](MADE.parse(values))
        sweep = made.sweep()
        first = next(iter(sweep), None)
        points = {} if first is None else {first: sweep[first]}
    return {"label": label, "problem": values, "points": {k: list(v) for k, v in points.items()}, "rows": config.rows}


def _match(config: ProbeConfig) -> dict[str, Any]:
    if config.cpu_minutes is not None and config.steps is not None:
        raise UsageError("a probe has a budget in CPU minutes or in steps; give one of them.")
    size = config.size or _SIZES[config.match]
    found: dict[str, Any] = {"parameters": size} if config.match == "params" else {}
    found |= {"state": size} if config.match == "state" else {}
    found |= {"tolerance": 0.2} if config.match != "none" else {}
    if config.cpu_minutes is not None:
        return {**found, "budget": {"cpu_seconds": 60.0 * config.cpu_minutes}}
    return {**found, "budget": {"steps": config.steps or _STEPS}}


def _search(config: ProbeConfig) -> dict[str, Any] | None:
    if len(config.rates) == 1:
        return None
    return {
        "setting": "train.optimizer.lr",
        "values": list(config.rates),
        "budget": {"steps": max(1, (config.steps or _STEPS) // _SEARCH_SHARE)},
        "seeds": [_SEARCH_SEED],
        "edge": "report",
    }


def _system(cell: str, config: ProbeConfig) -> dict[str, Any]:
    name, settings = _slug(cell), [f"model.cell.name={cell}" if cell in CELLS else f"model.cell={cell}"]
    if config.match == "none":
        settings.append(f"model.width={config.size or _SIZES['none']}")
    if len(config.rates) == 1:
        settings.append(f"train.optimizer.lr={config.rates[0]}")
    return {"name": name, "set": settings}


def _slug(text: str) -> str:
    """As the name of a system may be."""
    return "".join(sign if sign.isalnum() or sign in " ._+=-" else "-" for sign in text).strip(" -.")[:60]
