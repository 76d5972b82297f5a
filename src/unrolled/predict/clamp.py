"""Units of a model's carried state held at a value while it reads and writes."""

import contextlib
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
from unrolled.model import LanguageModel
from unrolled.predict.adapter import READING, Adapter, AdapterConfig, Source
from unrolled.predict.base import Prediction, Predictor
from unrolled.predict.static import NeuralPredictor, NeuralState
from unrolled.predict.wrapped import WrappedPredictor

__all__ = ["Clamp", "ClampConfig", "ClampedPredictor", "Clamping"]

_FORM = re.compile(r"(\d+)\.([A-Za-z_]\w*)\.(\d+)=(.+)", re.ASCII)


class Clamp(NamedTuple):
    """layer: from 0. name: field of the layer's state, such as c. unit: from 0. value: what it is held at."""

    layer: int
    name: str
    unit: int
    value: float

    @classmethod
    def parse(cls, text: str) -> "Clamp":
        """Read ``LAYER.NAME.UNIT=VALUE``. Raises UsageError for any other form."""
        found = _FORM.fullmatch(text.strip())
        with contextlib.suppress(ValueError):
            if found and math.isfinite(value := float(found[4])):
                return cls(int(found[1]), found[2], int(found[3]), value)
        raise UsageError(f"{text!r} is not of the form LAYER.NAME.UNIT=VALUE; write, for instance, 0.c.17=1.5.")

    def __str__(self) -> str:
        return f"{self.layer}.{self.name}.{self.unit}={self.value!r}"

    def check(self, model: LanguageModel) -> None:
        """Raises UsageError where the model has no such layer, field of the state, or unit."""
        states = model.initial_state(1).cells
        if self.layer >= len(states):
            raise UsageError(f"the model has no layer {self.layer}; its layers are 0 to {len(states) - 1}.")
        state = states[self.layer]
        if self.name not in state._fields:
            raise unknown_name(f"state of layer {self.layer}:", self.name, state._fields)
        value = getattr(state, self.name)
        if value.dim() != 2:
            raise UsageError(
                f"{self.name} of layer {self.layer} is no vector of units; clamp another part of the state."
            )
        if self.unit >= value.shape[1]:
            raise UsageError(
                f"{self.name} of layer {self.layer} has no unit {self.unit}; its units are 0 to {value.shape[1] - 1}."
            )


class ClampConfig(AdapterConfig):
    """Options of clamping."""

    short: ClassVar[str | None] = "units"

    name: Literal["clamp"] = "clamp"
    units: tuple[str, ...] = Field(
        default=(), description="LAYER.NAME.UNIT=VALUE each, layers and units from 0, such as 0.c.17=1.5"
    )


class ClampedPredictor(WrappedPredictor):
    """A neural model some of whose units are overwritten after every step, from the start symbol and the prompt on.

    What carries over to the next step has the values. Where a cell's output is its h, a clamped h is also what the
    layer above and the head read in the same step; a clamped c acts from the next step on. This is how Radford et al.
    (2017) fix the sentiment unit. Reads step by step, since every step must be overwritten before the next.

    Args:
        inner: the model. clamps: of two for one unit the last one counts.
    Raises:
        UsageError: a clamp that does not fit the model.
    """

    adds = "clamped"

    def __init__(self, inner: NeuralPredictor, clamps: Sequence[Clamp]):
        for clamp in clamps:
            clamp.check(inner.model)
        super().__init__(inner)
        self.clamps = tuple(clamps)

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        return {**self.inner.options, "clamp": {"units": [str(clamp) for clamp in self.clamps]}}

    def begin(self, batch: int, first: Tensor | None = None) -> NeuralState:
        """See :meth:`Predictor.begin`."""
        with self._clamping():
            return self.inner.begin(batch, first)

    def predict(self, state: NeuralState) -> Prediction:
        """See :meth:`Predictor.predict`."""
        return self.inner.predict(state)

    def observe(self, state: NeuralState, ids: Tensor) -> NeuralState:
        """See :meth:`Predictor.observe`."""
        with self._clamping():
            return self.inner.observe(state, ids)

    @contextlib.contextmanager
    def _clamping(self) -> Iterator[None]:
        """Every layer's step ends with the clamps inside; nothing stays on the model."""
        cells = self.model.stack.cells()
        hooks = [cells[layer].register_forward_hook(self._hook(layer)) for layer in {c.layer for c in self.clamps}]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _hook(self, layer: int) -> Any:
        def overwrite(cell: Any, given: Any, made: tuple[Tensor, Any]) -> tuple[Tensor, Any]:
            y, state = made
            changed = {name: getattr(state, name).clone() for name in {c.name for c in self.clamps if c.layer == layer}}
            for clamp in self.clamps:
                if clamp.layer == layer:
                    changed[clamp.name][:, clamp.unit] = clamp.value
            # one step: an output that equals h is h, for every cell of the table
            h = getattr(state, "h", None)
            if "h" in changed and h is not None and torch.equal(y[:, 0], h):
                y = changed["h"].unsqueeze(1)
            return y, state._replace(**changed)

        return overwrite


class Clamping(Adapter):
    """Units held at values."""

    Config = ClampConfig
    EXAMPLES = (ClampConfig(units=("0.h.1=0.5",)), ClampConfig(units=("0.c.2=-1.5", "1.h.0=1")))
    title = "clamped units"
    place = READING
    reads_model = True
    neutral = ClampConfig()

    @classmethod
    def apply(cls, inner: Predictor, config: Any, source: Source | None) -> Predictor:
        """See :meth:`Adapter.apply`."""
        return ClampedPredictor(cls.plain(inner), [Clamp.parse(text) for text in config.units])
