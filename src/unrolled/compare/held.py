"""What is held equal over the systems of a plan, whether a setting, a recipe or a search would change it."""

import json
from collections.abc import Container, Iterable, Sequence
from typing import Any

from unrolled.compare.sealed import difference
from unrolled.core.config import parse_setting
from unrolled.core.errors import UsageError
from unrolled.train import ExperimentConfig

__all__ = ["check_given", "check_held", "check_settings", "is_held"]

_HELD = ("stream", "tokenizer", "seed", "corpus", "vocabulary", "task")
"""Parts of a config that a system may not change: what is compared would not be the systems."""
_BUDGETS = ("steps", "tokens", "epochs", "minutes", "cpu_minutes")
_OF_THE_PLAN = (*_BUDGETS, "then", "threads")
"""Parts of training that the plan says itself."""
_HELD_OF_TRAIN = (*_OF_THE_PLAN, "validations", "valid_tokens", "valid_columns", "patience")


def is_held(path: str, free: tuple[str, ...]) -> bool:
    """Whether a setting, such as ``stream.window``, is of what is held equal and was not freed."""
    keys = path.split(".")
    held = keys[0] in _HELD or (keys[0] == "train" and len(keys) > 1 and keys[1] in _HELD_OF_TRAIN)
    return held and not any(path == one or path.startswith(f"{one}.") for one in free)


def _said_elsewhere(keys: Sequence[str]) -> bool:
    return keys[0] == "seed" or (keys[0] == "train" and len(keys) > 1 and keys[1] in _OF_THE_PLAN)


def check_settings(settings: Iterable[str], who: str = "a plan", by: str = "match.budget, seeds or threads") -> None:
    """Raises UsageError for a setting of all systems that the file says elsewhere, and that would not hold.

    Args:
        who, by: the file, and the keys that say it.
    """
    for setting in settings:
        keys, _ = parse_setting(setting)
        if _said_elsewhere(keys):
            raise UsageError(f"settings has {'.'.join(keys)}, which {who} says by {by}; remove it there.")


def check_given(given: Iterable[str], own: Container[str], who: str, by: str) -> None:
    """Raises UsageError where a key of the recipe was given for one of the file that names the recipe.

    Args:
        given: settings of the file. own: its keys. who, by: as in :func:`check_settings`.
    """
    for setting in given:
        keys, _ = parse_setting(setting)
        if keys[0] in own or keys[0] not in ExperimentConfig.model_fields:
            continue
        path = ".".join(keys)
        remedy = f"{who} says that by {by}" if _said_elsewhere(keys) else f"write it into the settings of {who}"
        raise UsageError(f"{path} is of the recipe, and --set is of {who}; {remedy}.")


def check_held(free: tuple[str, ...], first: ExperimentConfig, other: ExperimentConfig) -> None:
    """Compare what two systems read and are given, whatever settings or recipes they have it from.

    Args:
        free: see ``match.free`` of a plan.
    Raises:
        UsageError: a part that is held equal differs, and ``match.free`` does not name it.
    """
    left = difference(_parts(first, free), _parts(other, free))
    if left:
        raise UsageError(
            f"its {left} is not that of the first system, and is held equal over all; set it for all in settings, or "
            f'say match.free = ["{left}"] and the report will say so.'
        )


def _parts(config: ExperimentConfig, free: tuple[str, ...]) -> dict[str, Any]:
    """The parts that are held equal, without those that are free. Which splits are opened and what a vocabulary is said
    to be are no difference: all open the same, and the tokens themselves are compared; nor is a recipe's seed, in whose
    place the plan's stand."""
    corpus = config.corpus.model_copy(update={"splits": None}).based()
    value = json.loads(config.model_copy(update={"corpus": corpus}).model_dump_json())
    train = {key: inner for key, inner in value["train"].items() if key in _HELD_OF_TRAIN}
    held = {**{key: value.get(key) for key in _HELD if key not in ("vocabulary", "seed")}, "train": train}
    for path in free:
        *heads, last = path.split(".")
        inside: Any = held
        for key in heads:
            inside = inside.get(key) if isinstance(inside, dict) else None
        if isinstance(inside, dict):
            inside.pop(last, None)
    return held
