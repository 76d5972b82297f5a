"""Temperature: the model's logits divided by a number."""

from collections.abc import Iterator
from typing import Any, ClassVar, Literal

from pydantic import Field

from unrolled.predict.adapter import HEAD, Adapter, AdapterConfig, Search, Source
from unrolled.predict.base import Predictor
from unrolled.predict.static import NeuralPredictor

__all__ = ["Temperature", "TemperatureConfig"]


class TemperatureConfig(AdapterConfig):
    """Options of the temperature."""

    short: ClassVar[str | None] = "value"

    name: Literal["temperature"] = "temperature"
    value: float = Field(
        default=1.0,
        gt=0,
        description="divides the logits; below 1 sharper (the code of Melis et al. has the inverse)",
    )


def _grid(config: TemperatureConfig) -> Iterator[tuple[dict[str, float], AdapterConfig]]:
    """Factors on the logits from 1.06 downwards, as in the code of Melis et al."""
    for scale in (round(1.06 - 0.02 * i, 2) for i in range(14)):
        yield {"temperature": 1 / scale}, TemperatureConfig(value=1 / scale)


class Temperature(Adapter):
    """Divides the logits; in a mixture those of each component, see :meth:`Head.tempered`."""

    Config = TemperatureConfig
    EXAMPLES = (TemperatureConfig(value=0.7), TemperatureConfig(value=1.5))
    title = "a temperature"
    place = HEAD
    neutral = TemperatureConfig()
    search = Search(_grid, tokens=50_000, patience=2)

    @classmethod
    def apply(cls, inner: Predictor, config: Any, source: Source | None) -> Predictor:
        """See :meth:`Adapter.apply`."""
        model = cls.plain(inner)
        return NeuralPredictor(model.model, model.start_id, config.value)
