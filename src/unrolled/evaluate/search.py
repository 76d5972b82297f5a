"""Choosing settings of test time on validation text."""

from collections.abc import Callable
from typing import NamedTuple

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.registry import unknown_name
from unrolled.predict import ADAPTERS, AdapterConfig, PredictorConfig, Search

__all__ = ["Tried", "search", "start_of_search"]

Measure = Callable[[PredictorConfig], float]
"""Nats per token of the validation text under some settings."""


class Tried(NamedTuple):
    """settings: the values that were tried, by dotted name. nats_per_token: infinite where the model diverged."""

    settings: dict[str, float]
    nats_per_token: float


def start_of_search(part: str, config: PredictorConfig) -> tuple[Search, AdapterConfig]:
    """How the options of an adapter are searched, and those that the search begins from.

    Raises:
        UsageError: there is no such adapter, none of its options are searched, or it is not switched on.
    """
    known = [name for name in ADAPTERS if ADAPTERS[name].search is not None]
    if part not in known:
        raise unknown_name("search", part, known)
    adapter = ADAPTERS[part]
    begin = config.get(part) or adapter.neutral
    if begin is None:
        raise UsageError(f"there is no {part} to search the settings of; switch it on as well.")
    assert adapter.search is not None
    return adapter.search, begin


def search(part: str, config: PredictorConfig, measure: Measure) -> tuple[PredictorConfig, list[Tried]]:
    """The best settings of one part, and all that were tried.

    Args:
        part: name of an adapter, see :func:`start_of_search`.
        measure: on validation text; a model that diverges counts as infinitely bad.
    """
    how, begin = start_of_search(part, config)
    tried: list[Tried] = []
    best, lowest, since = config, float("inf"), 0
    for values, options in how.grid(begin):
        candidate = config.having(options)
        try:
            nats = measure(candidate)
        except UsageError:
            raise
        except UnrolledError:
            nats = float("inf")
        tried.append(Tried(values, nats))
        since += 1
        if nats < lowest:
            best, lowest, since = candidate, nats, 0
        if how.patience is not None and since >= how.patience:
            break
    if lowest == float("inf"):
        raise UnrolledError(f"every setting of {part} that was tried diverged; lower its learning rate or weight.")
    return best, tried
