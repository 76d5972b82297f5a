"""From settings to a predictor: what is done to a model at test time, in one place for every verb."""

from collections.abc import Mapping
from typing import Any

from pydantic import Field, model_validator
from torch import Tensor

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel
from unrolled.optim.dynamic import DynamicConfig, dynamic_preset
from unrolled.predict.base import Predictor
from unrolled.predict.cache import CacheConfig, CachePredictor
from unrolled.predict.dynamic import DynamicPredictor
from unrolled.predict.monte_carlo import MonteCarloConfig, MonteCarloPredictor
from unrolled.predict.packed import PackedPredictor, Quantize, why_not_packed
from unrolled.predict.static import NeuralPredictor

__all__ = ["PredictorConfig", "make_predictor"]


class PredictorConfig(Config):
    """What is done to a model at test time; nothing by default."""

    temperature: float = Field(
        default=1.0,
        gt=0,
        description="divides the logits; below 1 sharper (the code of Melis et al. has the inverse)",
    )
    dropout: MonteCarloConfig | None = Field(default=None, description="Monte-Carlo dropout")
    dynamic: DynamicConfig | None = Field(
        default=None,
        description="dynamic evaluation: settings, or the name of a preset, or settings with the key preset (krause, "
        "mos, lamb, sgd, sgd_decay)",
    )
    cache: CacheConfig | None = Field(default=None, description="continuous cache")
    quantize: Quantize | None = Field(
        default=None,
        description="weights in fewer bits: bf16 (rounded to it, arithmetic in float32) or int8 (8-bit integers with a "
        "scale for each row of a matrix; so are the vectors that they multiply); on a CPU with the native library",
    )

    @model_validator(mode="before")
    @classmethod
    def _presets(cls, value: Any) -> Any:
        if not isinstance(value, Mapping) or "dynamic" not in value:
            return value
        given = value["dynamic"]
        given = {"preset": given} if isinstance(given, str) else given
        if not isinstance(given, Mapping) or "preset" not in given:
            return value
        changes = {key: inner for key, inner in given.items() if key != "preset"}
        return {**value, "dynamic": {**dynamic_preset(given["preset"]).model_dump(), **changes}}

    @model_validator(mode="after")
    def _consistent(self) -> "PredictorConfig":
        if self.dropout is not None and (self.dynamic is not None or self.cache is not None):
            raise UsageError(
                "Monte-Carlo dropout is not combined with dynamic evaluation or a cache; choose one of them."
            )
        if self.quantize is not None and (self.dropout is not None or self.dynamic is not None):
            raise UsageError(
                "quantised weights do not change, so that they go with neither Monte-Carlo dropout nor dynamic "
                "evaluation; leave out quantize."
            )
        return self


def make_predictor(
    model: LanguageModel,
    start_id: int,
    config: PredictorConfig,
    statistics: Mapping[str, Tensor] | None = None,
    stepwise: bool = False,
) -> Predictor:
    """The predictor that the settings describe.

    Args:
        statistics: of gradients, for dynamic evaluation by the rule ``rms``.
        stepwise: the text is going to be read token by token; the weights are prepared for that where they can be.
    """
    if config.dropout is not None:
        return MonteCarloPredictor(model, start_id, config.dropout, config.temperature)
    base: Predictor
    if config.quantize is not None or (stepwise and config.dynamic is None and why_not_packed(model) is None):
        base = PackedPredictor(model, start_id, config.temperature, config.quantize)
    else:
        base = NeuralPredictor(model, start_id, config.temperature)
    if config.dynamic is not None:
        base = DynamicPredictor(model, start_id, config.dynamic, statistics, config.temperature)
    return base if config.cache is None else CachePredictor(base, config.cache)
