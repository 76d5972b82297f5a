"""Choosing settings of test time on validation text."""

import itertools
from collections.abc import Callable, Iterator
from typing import NamedTuple

from unrolled.core.errors import UnrolledError
from unrolled.predict import PredictorConfig

__all__ = ["SEARCHES", "Tried", "search"]

Measure = Callable[[PredictorConfig], float]
"""Nats per token of the validation text under some settings."""


class Tried(NamedTuple):
    """settings: the values that were tried, by dotted name. nats_per_token: infinite where the model diverged."""

    settings: dict[str, float]
    nats_per_token: float


# factors on the logits, tried in this order, as in the code of Melis et al.
_SCALES = tuple(round(1.06 - 0.02 * i, 2) for i in range(14))
_PATIENCE = 2
# benkrause/dynamic-evaluation, its defaults being 5e-5 and 2e-3
_LR_FACTORS, _DECAY_FACTORS = (0.6, 0.8, 1.0, 1.2, 1.4, 2.0), (0.5, 1.0, 1.5, 2.5)
# wider, because the plain rules have no published scale
_SGD_FACTORS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_THETAS, _WEIGHTS = (0.1, 0.3, 0.6, 1.0), (0.05, 0.1, 0.2, 0.3)


def _dynamic(config: PredictorConfig) -> Iterator[tuple[dict[str, float], PredictorConfig]]:
    rule = config.dynamic
    assert rule is not None
    # the published grid is given for segments of 5 tokens and scales with their length
    scale = rule.segment / 5 if rule.rule == "rms" else 1.0
    decays = (1.0,) if rule.rule == "sgd" else _DECAY_FACTORS
    for decay, lr in itertools.product(decays, _LR_FACTORS if rule.rule == "rms" else _SGD_FACTORS):
        values = {"lr": rule.lr * lr * scale, "decay": rule.decay * decay * scale}
        changed = config.model_copy(update={"dynamic": rule.model_copy(update=values)})
        yield {f"dynamic.{name}": value for name, value in values.items()}, changed


def _cache(config: PredictorConfig) -> Iterator[tuple[dict[str, float], PredictorConfig]]:
    assert config.cache is not None
    for theta, weight in itertools.product(_THETAS, _WEIGHTS):
        values = {"theta": theta, "weight": weight}
        changed = config.model_copy(update={"cache": config.cache.model_copy(update=values)})
        yield {f"cache.{name}": value for name, value in values.items()}, changed


def _temperature(config: PredictorConfig) -> Iterator[tuple[dict[str, float], PredictorConfig]]:
    for scale in _SCALES:
        yield {"temperature": 1 / scale}, config.model_copy(update={"temperature": 1 / scale})


SEARCHES = {"temperature": _temperature, "dynamic": _dynamic, "cache": _cache}
"""What can be searched: factors on the logits from 1.06 downwards until two steps bring nothing; learning rate and
decay of dynamic evaluation; theta and weight of the cache."""


def search(part: str, config: PredictorConfig, measure: Measure) -> tuple[PredictorConfig, list[Tried]]:
    """The best settings of one part, and all that were tried.

    Args:
        part: a key of :data:`SEARCHES`; the config has that part.
        measure: on validation text; a model that diverges counts as infinitely bad.
    """
    tried: list[Tried] = []
    best, lowest, since = config, float("inf"), 0
    for values, candidate in SEARCHES[part](config):
        try:
            nats = measure(candidate)
        except UnrolledError:
            nats = float("inf")
        tried.append(Tried(values, nats))
        since += 1
        if nats < lowest:
            best, lowest, since = candidate, nats, 0
        if part == "temperature" and since >= _PATIENCE:
            break
    if lowest == float("inf"):
        raise UnrolledError(f"every setting of {part} that was tried diverged; lower its learning rate or weight.")
    return best, tried
