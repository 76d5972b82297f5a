"""Adapters broken on purpose, one or more for each check: what each check must notice."""

import math
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.predict import Adapter, AdapterConfig, NeuralPredictor, Prediction, Predictor, Scores, WrappedPredictor
from unrolled.predict.adapter import MEMORY, READING

__all__ = ["BROKEN", "Sound"]


class BrokenConfig(AdapterConfig):
    """Options of an adapter that does little."""

    short: ClassVar[str | None] = "share"

    name: Literal["broken"] = "broken"
    share: float = Field(default=0.3, gt=0, lt=1, description="of a uniform distribution in the mixture")


class Uniform(WrappedPredictor):
    """Mixes with the uniform distribution; sound as it is, and each broken predictor changes one thing."""

    adds = "uniform"

    def __init__(self, inner: Predictor, config: BrokenConfig):
        super().__init__(inner)
        self.config, self.count = config, 0

    @property
    def options(self) -> dict[str, Any]:
        return {**self.inner.options, "broken": {"share": self.config.share}}

    def begin(self, batch: int, first: Tensor | None = None) -> Any:
        return self.inner.begin(batch, first)

    def predict(self, state: Any) -> Prediction:
        log_prob, hidden = self.inner.predict(state)
        even = math.log(self.config.share / self.vocab_size)
        return Prediction(
            torch.logaddexp(log_prob + math.log1p(-self.config.share), torch.full_like(log_prob, even)), hidden
        )

    def observe(self, state: Any, ids: Tensor) -> Any:
        return self.inner.observe(state, ids)

    def restarted(self, state: Any, rows: Tensor) -> Any:
        return self.inner.restarted(state, rows)


class _Sound(Adapter):
    """A mixture with the uniform distribution."""

    Config = BrokenConfig
    EXAMPLES = (BrokenConfig(),)
    title = "a broken adapter"
    place = MEMORY
    made: ClassVar[type[Uniform]] = Uniform

    @classmethod
    def apply(cls, inner: Predictor, config: Any, source: Any) -> Predictor:
        return cls.made(inner, config)


Sound = _Sound


def adapter(made: type[Uniform], **attributes: Any) -> type[Adapter]:
    """The sound adapter around a broken predictor, or with other attributes."""
    return type(made.__name__, (_Sound,), {"__doc__": made.__doc__, "made": made, **attributes})


class IgnoresResetsInWindows(Uniform):
    """A window of its own that leaves resets out."""

    def window(self, state: Any, ids: Tensor, reset: Tensor | None = None) -> Scores:
        return super().window(state, ids, None)


class ShiftedWindow(Uniform):
    """Its windows end one token early."""

    def window(self, state: Any, ids: Tensor, reset: Tensor | None = None) -> Scores:
        scores = super().window(state, ids, reset)
        return scores._replace(state=state) if ids.shape[1] > 1 else scores


class ForgetsWhatItConsumed(Uniform):
    """Text that is not scored leaves no trace."""

    def consume(self, state: Any, ids: Tensor) -> Any:
        return state


class TooMuch(Uniform):
    """Probabilities that sum to more than one."""

    def predict(self, state: Any) -> Prediction:
        log_prob, hidden = super().predict(state)
        return Prediction(log_prob + 0.01, hidden)


class MixesRows(Uniform):
    """Every row is predicted from the mean of all."""

    def predict(self, state: Any) -> Prediction:
        log_prob, hidden = super().predict(state)
        return Prediction((log_prob + log_prob.mean(0)) / 2, hidden)


class ChangesItsState(Uniform):
    """The state is written to in place."""

    def observe(self, state: Any, ids: Tensor) -> Any:
        state.hidden.mul_(0.5)
        return super().observe(state, ids)


class Counts(Uniform):
    """A hidden count of what was predicted changes predictions."""

    def predict(self, state: Any) -> Prediction:
        self.count += 1
        log_prob, hidden = super().predict(state)
        return Prediction(torch.log_softmax(log_prob * (1 + 0.01 * self.count), 1), hidden)


class RestartsAllRows(Uniform):
    """One reset is a reset of every row."""

    def restarted(self, state: Any, rows: Tensor) -> Any:
        return super().restarted(state, torch.ones_like(rows))


class NeverRestarts(Uniform):
    """A reset is passed over."""

    def restarted(self, state: Any, rows: Tensor) -> Any:
        return state


class LearnsForGood(Uniform):
    """The model's parameters stay changed."""

    def observe(self, state: Any, ids: Tensor) -> Any:
        with torch.no_grad():
            next(self.model.parameters()).mul_(1.001)
        return super().observe(state, ids)


class KeepsQuiet(Uniform):
    """Records do not say what was done."""

    @property
    def options(self) -> dict[str, Any]:
        return self.inner.options


class SaysAnother(Uniform):
    """Records say another share than was mixed in."""

    @property
    def options(self) -> dict[str, Any]:
        return {"broken": {"share": 0.5}}


class NeedsTheModel(_Sound):
    """Reads the model itself and does not say so."""

    place = READING + 5

    @classmethod
    def apply(cls, inner: Predictor, config: Any, source: Any) -> Predictor:
        if type(inner) is not NeuralPredictor:
            raise UsageError("this one needs the model itself; leave out what is broken.")
        return super().apply(inner, config, source)


class RefusesWithoutRemedy(_Sound):
    """Says of a count model only that it is none of its own."""

    @classmethod
    def apply(cls, inner: Predictor, config: Any, source: Any) -> Predictor:
        if inner.model is None or not hasattr(inner.model, "stack"):
            raise UsageError("this is no model for me.")
        return super().apply(inner, config, source)


class KeepsAPart(Uniform):
    """What is shared of its state lacks the last output."""

    def shared_form(self, state: Any) -> Any:
        return state._replace(hidden=torch.zeros_like(state.hidden))


class HidesHidden(Uniform):
    """Its predictions have no hidden states, which it does not say."""

    def predict(self, state: Any) -> Prediction:
        return super().predict(state)._replace(hidden=None)


BROKEN: dict[str, tuple[type[Adapter], ...]] = {
    "window_equals_steps": (adapter(IgnoresResetsInWindows), adapter(ShiftedWindow)),
    "distributions_and_consume": (adapter(ForgetsWhatItConsumed), adapter(ShiftedWindow)),
    "probabilities": (adapter(TooMuch),),
    "rows_are_independent": (adapter(MixesRows),),
    "state_is_a_value": (adapter(ChangesItsState), adapter(Counts)),
    "observe_is_pure": (adapter(Counts),),
    "reset_begins_anew": (adapter(RestartsAllRows), adapter(NeverRestarts)),
    "restores": (adapter(LearnsForGood),),
    "record": (adapter(KeepsQuiet), adapter(SaysAnother)),
    "pairs": (NeedsTheModel, adapter(IgnoresResetsInWindows)),
    "count_models": (RefusesWithoutRemedy, adapter(TooMuch)),
    "state_travels": (adapter(KeepsAPart),),
    "what_it_says_of_itself": (adapter(HidesHidden), adapter(Uniform, gives_hidden=False)),
}
