"""From a plan to the configurations of its systems, with the parameters matched and the tokens counted."""

import contextlib
import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch

from unrolled.compare.held import check_held
from unrolled.compare.matched import check_corpora, check_figures, check_size, check_tokens, check_value
from unrolled.compare.plan import BudgetConfig, PlanConfig, SystemConfig
from unrolled.compare.problems import PlanProblem, with_problem
from unrolled.compare.texts import OPENED, Opened, Text, is_compared, read_frames, read_problem, read_text
from unrolled.core.config import apply_settings
from unrolled.core.errors import UsageError
from unrolled.data import corpus_named
from unrolled.model import ModelConfig
from unrolled.model.fit import largest, widest
from unrolled.tasks.lm_size import Build, facts_of, lm_of
from unrolled.train import ExperimentConfig
from unrolled.train.recipes import load_experiment

__all__ = [
    "Resolved", "Sized", "resolve", "settled", "sized", "tokens_of", "value_at", "with_value",
]  # fmt: skip

_BOTH_PASSES = 3
_NO_TEXT = "a plan of frames has no corpora, no [[measure]] and no per_token; leave them out."
_MOST_FIT = 1 << 20
_STEPS = 100  # of a fitted number that is not whole, to one


class Resolved(NamedTuple):
    """A system on a corpus.

    Attributes:
        config: the whole configuration but for seed and budget, which are those of its runs.
        state: numbers that its layers carry from step to step.
        tokens: of a full run; None where a timing job is to say. search_tokens: of a run of the search; None without.
        steps, search_steps: of them, where the budget is in steps.
    """

    system: str
    corpus: str
    config: ExperimentConfig
    parameters: int
    width: int
    state: int
    flops_per_token: int
    tokens_per_step: int
    tokens: int | None
    search_tokens: int | None
    steps: int | None
    search_steps: int | None
    text: Text


def resolve(plan: PlanConfig) -> list[Resolved]:
    """Every system of a plan on every corpus, in the order of the plan.

    Raises:
        UsageError: whatever is wrong with a recipe, a setting, a text or a size, in one sentence; a system that cannot
            be matched; two systems that are the same.
    """
    texts: dict[str, Opened] = {}
    found: list[Resolved] = []
    seen: dict[str, str] = {}
    for corpus, problem in _grounds(plan):
        first: ExperimentConfig | None = None
        name = problem.label if problem is not None else corpus
        for system in plan.system:
            with _named(system):
                config = _config(plan, system, corpus, problem)
                first, name = first or config, name or config.corpus.label
                check_held(plan.match.free, first, config)
            opened = _opened(texts, name, config, problem)
            with _named(system):
                check_figures(plan, opened.figures)
                check_tokens(opened.text, (one.text for one in texts.values()), opened.text.name)
                one = _resolved(plan, system, config, opened)
            key = json.dumps([one.corpus, one.config.model_dump(mode="json", exclude={"title"})], sort_keys=True)
            if key in seen:
                raise UsageError(
                    f"systems {seen[key]!r} and {system.name!r} are the same configuration; remove one of them."
                )
            seen[key] = system.name
            found.append(one)
    check_corpora(plan, [one.text.name for one in texts.values()])
    return found


def _opened(texts: dict[str, Opened], name: str, config: ExperimentConfig, problem: PlanProblem | None) -> Opened:
    """A corpus, frames or a problem as a configuration reads them; each way of reading is opened once."""
    key = json.dumps([name, config.model_dump(mode="json", exclude={"model", "train", "title"})], sort_keys=True)
    if key not in texts:
        if problem is None and config.task.name != "lm":
            texts[key] = read_frames(config)
        else:
            text = read_text(name, config) if problem is None else read_problem(problem, config)
            texts[key] = Opened(text, lm_of(text.vocabulary))
    return texts[key]


def _grounds(plan: PlanConfig) -> list[tuple[str | None, PlanProblem | None]]:
    """Corpus or problem of each column of the table; of neither, the recipe's own corpus."""
    return [(None, one) for one in plan.problem] or [(corpus, None) for corpus in plan.corpora] or [(None, None)]


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


def _resolved(plan: PlanConfig, system: SystemConfig, config: ExperimentConfig, opened: Opened) -> Resolved:
    text, build = opened.text, opened.build
    config = settled(config, text)
    if plan.match.state is not None:
        config = _of_state(config, build, plan.match.state)
    size = sized(config, build, plan.match.parameters, system.fit, text.targets)
    for value in plan.values_of(system.name):  # one that is refused is told now, not after hours
        made = ExperimentConfig.parse(with_value(size.config.model_dump(mode="json"), plan.search.setting, value))  # type: ignore[union-attr]
        check_value(plan, made, value, build, size.parameters, size.state)
    if plan.match.parameters is not None:
        check_size(plan, system, size.parameters)
    tokens = None if plan.match.reference is not None else tokens_of(plan.match.budget, size)
    searched = None if plan.search is None else tokens_of(plan.search.budget, size)
    return Resolved(
        system.name, text.name, size.config, size.parameters, size.width, size.state, size.flops_per_token,
        size.tokens_per_step, tokens, searched, plan.match.budget.steps,
        None if plan.search is None else plan.search.budget.steps, text,
    )  # fmt: skip


class Sized(NamedTuple):
    """A configuration whose model has its size. width: of its first layer. state: numbers carried from step to step."""

    config: ExperimentConfig
    parameters: int
    width: int
    state: int
    flops_per_token: int
    tokens_per_step: int


def sized(
    config: ExperimentConfig,
    build: Build,
    parameters: int | None,
    fit: str | None = None,
    targets: int | None = None,
) -> Sized:
    """A configuration with the largest width, or the largest value of another setting, within so many parameters.

    Args:
        build: makes a model. parameters: None: the model stays as it is. fit: the setting. targets: of a batch of a
            problem or of frames; None for a text, whose windows are full.
    Raises:
        UsageError: the smallest model is too large already; a setting that is none of the model.
    """
    if parameters is not None:
        config = _matched(config, build, parameters, fit)
    facts = facts_of(config, build)
    per_step = (targets or config.stream.columns * config.stream.window) * config.train.accumulate
    return Sized(
        config, facts["parameters"], facts["widths"][0], facts["state_numbers"], facts["flops_per_token"], per_step
    )


def tokens_of(budget: BudgetConfig, size: Sized) -> int | None:
    """Training tokens that a budget comes to; None for CPU seconds, which a timing job is to turn into tokens."""
    if budget.steps is not None:
        return budget.steps * size.tokens_per_step
    if budget.flops is not None:
        tokens = int(budget.flops / (_BOTH_PASSES * size.flops_per_token))
        if tokens < 1:
            raise UsageError(
                f"the budget of {budget.flops:g} operations is less than one token takes, "
                f"{_BOTH_PASSES * size.flops_per_token:,}; raise it."
            )
        return tokens
    return budget.tokens


def _config(
    plan: PlanConfig, system: SystemConfig, corpus: str | None, problem: PlanProblem | None
) -> ExperimentConfig:
    """The system's configuration before anything is matched; its budget is a placeholder."""
    settings = [*plan.settings, *system.set, f"train.threads={plan.threads}", "train.steps=1"]
    chosen = None if corpus is None else corpus_named(corpus)
    recipe = system.recipe or plan.recipe
    try:
        config = load_experiment(recipe, settings, chosen)
    except UsageError:
        if chosen is not None and load_experiment(recipe, settings).task.name != "lm":
            raise UsageError(_NO_TEXT) from None
        raise
    if config.train.then:
        raise UsageError("the runs of a comparison have one phase, whose length is match.budget; leave out train.then.")
    if problem is not None:
        return with_problem(config, problem)
    if not is_compared(config):
        raise UsageError("a comparison is of models of texts or frames; take a recipe whose task is lm or frames.")
    if config.task.name != "lm" and (plan.corpora or plan.measure or plan.per_token):
        raise UsageError(_NO_TEXT)
    return config


def settled(config: ExperimentConfig, text: Text) -> ExperimentConfig:
    """With what holds for every run of a comparison or a search: what is opened, and that its score is made apart."""
    train = config.train.model_copy(update={"final_eval": False})
    if text.targets is not None:
        return config.model_copy(update={"train": train, "published": ()})
    config.check_vocabulary(text.name, text.vocabulary)
    corpus = config.corpus.model_copy(update={"splits": OPENED}).based()
    return config.model_copy(update={"corpus": corpus, "train": train, "published": ()})


def _of_state(config: ExperimentConfig, build: Build, most: int) -> ExperimentConfig:
    """With the largest width whose layers carry at most so many numbers."""

    def numbers(model: ModelConfig) -> int:
        return facts_of(config.model_copy(update={"model": model}), build)["state_numbers"]

    return config.model_copy(update={"model": widest(config.model, most, numbers, "numbers of state")})


def _matched(config: ExperimentConfig, build: Build, parameters: int, fit: str | None) -> ExperimentConfig:
    """With the largest width, or the largest value of ``fit``, within the parameters."""
    if fit is None:

        def count(model: ModelConfig) -> int:
            return _count(config.model_copy(update={"model": model}), build)

        return config.model_copy(update={"model": widest(config.model, parameters, count, "parameters")})
    free = config.model.model_copy(update={"params": None}).model_dump(mode="json")
    field = fit.removeprefix("model.")
    if field == fit:
        raise UsageError(f"fit = {fit!r} is no setting of the model; name one such as model.cell.factor.")

    whole = not isinstance(value_at(free, field), float)

    def made(value: int) -> ExperimentConfig:
        written = value if whole else value / _STEPS
        model = ModelConfig.parse(apply_settings(free, [f"{field}={written}"]))
        return config.model_copy(update={"model": model})

    return made(_largest(lambda value: _count(made(value), build), parameters, fit))


def value_at(values: Any, path: str) -> Any:
    """What stands at a dotted path; None where nothing does."""
    for key in path.split("."):
        values = values.get(key) if isinstance(values, dict) else None
    return values


def _count(config: ExperimentConfig, build: Build) -> int:
    with torch.device("meta"):
        return build(config.model).num_params()


def _largest(size: Callable[[int], int], most: int, field: str) -> int:
    """The largest whole number whose size is at most ``most``."""
    if size(1) > most:
        raise UsageError(
            f"the smallest {field} already has {size(1):,} parameters, above {most:,}; raise match.parameters."
        )
    found = largest(size, most, _MOST_FIT)
    if found is None:
        raise UsageError(f"fit = {field!r} does not change the number of parameters; name another setting.")
    return found
