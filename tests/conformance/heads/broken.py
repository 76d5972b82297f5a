"""A new head that is sound, and heads that are broken on purpose; each must fail the check that it is for."""

from typing import Any, Literal

import torch
from torch import Tensor

from unrolled.model.heads import Head
from unrolled.model.heads.pointer import PointerConfig, PointerHead
from unrolled.model.heads.softmax import SoftmaxConfig, SoftmaxHead

__all__ = ["BROKEN", "Sound"]


class _Config(SoftmaxConfig):
    name: Literal["sound"] = "sound"  # type: ignore[assignment]


class _PointerConfig(PointerConfig):
    name: Literal["pointed"] = "pointed"  # type: ignore[assignment]


class Sound(SoftmaxHead):
    """A softmax under a name of its own."""

    Config = _Config
    EXAMPLES = (_Config(project=5),)


class Pointed(PointerHead):
    """A pointer mixture under a name of its own."""

    Config = _PointerConfig
    EXAMPLES = (_PointerConfig(length=4),)


class TooLikely(Sound):
    def log_prob(self, h: Any, state: Any = None, masks: Any = None) -> Any:
        return super().log_prob(h, state, masks)[0] + 1e-6, None


class OffWhenTied(Sound):
    def log_prob(self, h: Any, state: Any = None, masks: Any = None) -> Any:
        return super().log_prob(h, state, masks)[0] + (0.0 if self._own_matrix else 1e-6), None


class OtherLoss(Sound):
    def loss(self, h: Any, *others: Any, **more: Any) -> Any:
        return super().loss(h * 1.0001, *others, **more)


class OtherGradient(Sound):
    def loss(self, h: Any, *others: Any, **more: Any) -> Any:
        total, nll, state = super().loss(h, *others, **more)
        wrong = 1e-6 * self.weight.sum()
        return total + wrong - wrong.detach(), nll, state


class FirstBlockOnly(Sound):
    def loss(self, h: Any, *others: Any, **more: Any) -> Any:
        total, nll, state = super().loss(h, *others, **more)
        return (total if self.config.block > 100 else total - total.detach() * 1e-6), nll, state


class WeighsNothing(Sound):
    def loss(self, h: Any, targets: Any, weight: Any = None, *others: Any, **more: Any) -> Any:
        return super().loss(h, targets, None, *others, **more)


class Decays(Sound):
    def loss(self, h: Any, *others: Any, **more: Any) -> Any:
        total, nll, state = super().loss(h, *others, **more)
        decay = 1e-3 * self.weight.square().sum()
        return total + decay - decay.detach(), nll, state


class NoMask(Sound):
    def loss(self, h: Any, targets: Any, weight: Any = None, state: Any = None, reset: Any = None, masks: Any = None):
        return super().loss(h, targets, weight, state, reset, None)


class MaskOfTheWindow(Sound):
    def draw_masks(self, batch: int, time: int, rate: float, per_step: bool, streams: Any, window: int) -> Any:
        return super().draw_masks(batch, time, rate, False, streams, window)


class OneMask(Sound):
    def draw_masks(self, batch: int, time: int, rate: float, per_step: bool, streams: Any, window: int) -> Any:
        return super().draw_masks(batch, time, rate, per_step, streams, 0)


class Forgets(Pointed):
    def loss(self, h: Any, targets: Any, weight: Any = None, state: Any = None, reset: Any = None, masks: Any = None):
        return super().loss(h, targets, weight, None, reset, masks)


class NeverResets(Pointed):
    def loss(self, h: Any, targets: Any, weight: Any = None, state: Any = None, reset: Any = None, masks: Any = None):
        return super().loss(h, targets, weight, state, None, masks)


class AlwaysResets(Pointed):
    def loss(self, h: Any, targets: Any, weight: Any = None, state: Any = None, reset: Any = None, masks: Any = None):
        return super().loss(h, targets, weight, state, torch.ones_like(targets, dtype=torch.bool), masks)


class Cold(Sound):
    def scaled(self, value: Tensor) -> Tensor:
        return value


class ColdLoss(Sound):
    def loss(self, h: Any, *others: Any, **more: Any) -> Any:
        scale, self.logit_scale = self.logit_scale, 1.0
        try:
            return super().loss(h, *others, **more)
        finally:
            self.logit_scale = scale


class WarmsItself(Sound):
    def tempered(self, temperature: float) -> Any:
        self.logit_scale = 1 / temperature
        return self


class CountsMore(Sound):
    def extra_flops(self) -> int:
        return super().extra_flops() + 1000


class NeverLow(Sound):
    @property
    def low(self) -> bool:
        return False

    def linear(self, v: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
        return torch.nn.functional.linear(v, matrix, bias)


class FarOff(Sound):
    def project(self, h: Tensor, mask: Tensor | None = None, scaled: bool = True) -> Tensor:
        return super().project(h, mask, scaled) * (2.0 if self.low else 1.0)


class NeverLearns(Sound):
    def loss(self, h: Any, *others: Any, **more: Any) -> Any:
        total, nll, state = super().loss(h, *others, **more)
        return total.detach() + 0 * total, nll, state


class ReadsTheWindow(Sound):
    def loss(self, h: Any, *others: Any, **more: Any) -> Any:
        return super().loss(h - 1e-3 * h.mean(1, keepdim=True), *others, **more)


BROKEN: dict[str, tuple[type[Head], ...]] = {
    "probabilities": (TooLikely, OffWhenTied),
    "loss": (OtherLoss, OtherGradient, FirstBlockOnly),
    "weights": (WeighsNothing, Decays),
    "masks": (NoMask, MaskOfTheWindow, OneMask),
    "pieces": (Forgets, NeverResets, AlwaysResets, ReadsTheWindow),
    "temperature": (Cold, ColdLoss, WarmsItself),
    "flops": (CountsMore,),
    "bf16": (NeverLow, FarOff),
    "life": (NeverLearns, ReadsTheWindow),
}
