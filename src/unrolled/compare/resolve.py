"""From a plan to the configurations of its systems, with the parameters matched and the tokens counted."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from unrolled.compare.plan import PlanConfig, SystemConfig
from unrolled.core.config import apply_settings
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data import corpus_named
from unrolled.model import LanguageModel, ModelConfig
from unrolled.task import TASKS
from unrolled.tasks.lm_size import facts_of
from unrolled.train import ExperimentConfig
from unrolled.train.recipes import load_experiment

__all__ = ["Resolved", "Text", "resolve", "with_value"]

_OPENED = ("train", "valid")
_BOTH_PASSES = 3
_MOST_FIT = 1 << 20
_STEPS = 100  # of a fitted number that is not whole, to one


class Text(NamedTuple):
    """A corpus as a plan's systems read it. characters: whether its tokens are characters."""

    name: str
    vocabulary: int
    training_tokens: int
    validation_tokens: int
    characters: bool


class Resolved(NamedTuple):
    """A system on a corpus.

    Attributes:
        config: the whole configuration but for seed and budget, which are those of its runs.
        tokens: of a full run; None where a timing job is to say. search_tokens: of a run of the search; None without.
    """

    system: str
    corpus: str
    config: ExperimentConfig
    parameters: int
    width: int
    flops_per_token: int
    tokens_per_step: int
    tokens: int | None
    search_tokens: int | None
    text: Text


def resolve(plan: PlanConfig) -> list[Resolved]:
    """Every system of a plan on every corpus, in the order of the plan.

    Raises:
        UsageError: whatever is wrong with a recipe, a setting, a text or a size, in one sentence; a system that cannot
            be matched; two systems that are the same.
    """
    texts: dict[str, Text] = {}
    found: list[Resolved] = []
    seen: dict[str, str] = {}
    for corpus in plan.corpora or (None,):
        for system in plan.system:
            with _named(system):
                config = _config(plan, system, corpus)
            name = corpus or config.corpus.label
            if name not in texts:
                texts[name] = _text(name, config)
            with _named(system):
                one = _resolved(plan, system, config, texts[name])
            key = json.dumps([one.corpus, one.config.model_dump(mode="json", exclude={"title"})], sort_keys=True)
            if key in seen:
                raise UsageError(
                    f"systems {seen[key]!r} and {system.name!r} are the same configuration; remove one of them."
                )
            seen[key] = system.name
            found.append(one)
    return found


def with_value(config: dict[str, Any], setting: str, value: float | int | str) -> dict[str, Any]:
    """A configuration with another value of a setting."""
    return apply_settings(config, [f"{setting}={value}"])


@contextlib.contextmanager
def _named(system: SystemConfig) -> Iterator[None]:
    """A fault of a system names it."""
    try:
        yield
    except UsageError as error:
        raise UsageError(f"system {system.name!r}: {error}") from error


def _resolved(plan: PlanConfig, system: SystemConfig, config: ExperimentConfig, text: Text) -> Resolved:
    config = _settled(config, text)
    if plan.match.parameters is not None:
        config = _matched(plan, system, config, text.vocabulary)
    for value in plan.values_of(system.name):  # one that is refused is told now, not after hours
        ExperimentConfig.parse(with_value(config.model_dump(mode="json"), plan.search.setting, value))  # type: ignore[union-attr]
    facts = facts_of(config, text.vocabulary)
    if plan.match.parameters is not None:
        _check_size(plan, system, facts["parameters"], config)
    per_step = config.stream.columns * config.stream.window * config.train.accumulate
    flops, budget = facts["flops_per_token"], plan.match.budget
    tokens = {
        "tokens": budget.tokens if plan.match.reference is None else None,
        "steps": None if budget.steps is None else budget.steps * per_step,
        "flops": None if budget.flops is None else int(budget.flops / (_BOTH_PASSES * flops)),
        "cpu_seconds": None,
    }[budget.kind]
    return Resolved(
        system.name,
        text.name,
        config,
        facts["parameters"], facts["widths"][0], flops, per_step, tokens,
        _search_tokens(plan, per_step, flops), text,
    )  # fmt: skip


def _search_tokens(plan: PlanConfig, per_step: int, flops: int) -> int | None:
    if plan.search is None:
        return None
    budget = plan.search.budget
    if budget.steps is not None:
        return budget.steps * per_step
    return budget.tokens if budget.flops is None else int(budget.flops / (_BOTH_PASSES * flops))


def _config(plan: PlanConfig, system: SystemConfig, corpus: str | None) -> ExperimentConfig:
    """The system's configuration before anything is matched; its budget is a placeholder."""
    settings = [*plan.settings, *system.set, "train.steps=1"]
    chosen = None if corpus is None else corpus_named(corpus)
    config = load_experiment(system.recipe or plan.recipe, settings, chosen)
    if config.task.name != "lm":
        raise UsageError("a comparison is of language models; take a recipe whose task is lm.")
    return config


def _settled(config: ExperimentConfig, text: Text) -> ExperimentConfig:
    """With what holds for every run of a comparison: what is opened, and that its score is made apart."""
    config.check_vocabulary(text.name, text.vocabulary)
    corpus = config.corpus.model_copy(update={"splits": _OPENED}).based()
    train = config.train.model_copy(update={"final_eval": False})
    return config.model_copy(update={"corpus": corpus, "train": train, "published": ()})


def _text(name: str, config: ExperimentConfig) -> Text:
    corpus = config.corpus.model_copy(update={"splits": _OPENED})
    opened: Any = TASKS["lm"](config.model_copy(update={"corpus": corpus}), RandomStreams(0))
    splits = opened.splits
    if "valid" not in splits:
        raise UsageError(f"corpus {name} has no validation split, which a comparison measures on; give it one.")
    size = opened.tokenizer.vocab_size
    units = splits["valid"].units(0, len(splits["valid"]))
    return Text(name, size, len(splits["train"]), len(splits["valid"]), units.characters == units.tokens)


def _matched(plan: PlanConfig, system: SystemConfig, config: ExperimentConfig, vocabulary: int) -> ExperimentConfig:
    """With the largest width, or the largest value of the system's own ``fit``, within the parameters."""
    assert plan.match.parameters is not None
    if system.fit is None:
        model = config.model.model_copy(update={"params": plan.match.parameters})
        with torch.device("meta"):
            return config.model_copy(update={"model": LanguageModel(model, vocabulary).config})
    free = config.model.model_copy(update={"params": None}).model_dump(mode="json")
    field = system.fit.removeprefix("model.")
    if field == system.fit:
        raise UsageError(f"fit = {system.fit!r} is no setting of the model; name one such as model.cell.factor.")

    whole = not isinstance(_at(free, field), float)

    def sized(value: int) -> ExperimentConfig:
        written = value if whole else value / _STEPS
        model = ModelConfig.parse(apply_settings(free, [f"{field}={written}"]))
        return config.model_copy(update={"model": model})

    return sized(_largest(lambda value: _count(sized(value), vocabulary), plan.match.parameters, system.fit))


def _at(values: Any, path: str) -> Any:
    """What stands at a dotted path; None where nothing does."""
    for key in path.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _count(config: ExperimentConfig, vocabulary: int) -> int:
    with torch.device("meta"):
        return LanguageModel(config.model, vocabulary).num_params()


def _largest(size: Callable[[int], int], most: int, field: str) -> int:
    """The largest whole number whose size is at most ``most``."""
    if size(1) > most:
        raise UsageError(
            f"the smallest {field} already has {size(1):,} parameters, above {most:,}; raise match.parameters."
        )
    low, high = 1, 2
    while size(high) <= most:
        low, high = high, 2 * high
        if high > _MOST_FIT:
            raise UsageError(f"fit = {field!r} does not change the number of parameters; name another setting.")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if size(middle) <= most else (low, middle)
    return low


def _check_size(plan: PlanConfig, system: SystemConfig, parameters: int, config: ExperimentConfig) -> None:
    wanted = plan.match.parameters
    assert wanted is not None
    off = abs(parameters - wanted) / wanted
    if off > plan.match.tolerance:
        side = "above" if parameters > wanted else "below"
        field = system.fit or "width"
        raise UsageError(
            f"it has {parameters:,} parameters, {off:.1%} {side} the match of {wanted:,}, and no {field} fits better: "
            f'name another setting to fit, such as fit = "model.cell.factor", in its [[system]], or say '
            f"match.tolerance = {_round_up(off)}."
        )


def _round_up(share: float) -> str:
    return f"{(int(share * 1000) + 1) / 1000:g}"
