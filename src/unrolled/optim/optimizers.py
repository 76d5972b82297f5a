"""Optimisers by name, nearly all from torch."""

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny, model_validator
from torch import nn

from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.core.parameters import ParameterRule
from unrolled.core.registry import Registry
from unrolled.core.spread import is_spread, local
from unrolled.optim.normed_rmsprop import NormedRMSprop

__all__ = ["OPTIMIZERS", "AnyOptimizerConfig", "OptimizerConfig", "build_optimizer", "set_rate"]

_NO_RULE = ParameterRule()


Share = Annotated[float, Field(ge=0, lt=1)]
# What float32 can hold with room to spare: a smaller eps would be 0 there, and 0 / 0 would spoil unused weights.
_LEAST, _MOST = 1e-30, 1e6


class OptimizerConfig(Config):
    """What all optimisers share."""

    name: str
    lr: float = Field(gt=0, le=_MOST, description="full learning rate, before the schedule")
    weight_decay: float = Field(
        default=0.0, ge=0, le=_MOST, description="weight decay, in the optimiser's own convention"
    )
    decay: Literal["all", "matrices"] = Field(
        default="all", description="what decays: every parameter, or all but vectors (biases, gains)"
    )


class AdamConfig(OptimizerConfig):
    """Adam (Kingma and Ba 2015); weight_decay is added to the gradient."""

    name: Literal["adam"] = "adam"
    lr: float = Field(default=0.003, gt=0, le=_MOST, description="full learning rate, before the schedule")
    betas: tuple[Share, Share] = Field(default=(0.9, 0.99), description="decay of the two moments")
    eps: float = Field(default=1e-8, ge=_LEAST, le=_MOST, description="added to the denominator")


class AdamWConfig(OptimizerConfig):
    """AdamW (Loshchilov and Hutter 2019); weight_decay shrinks the weights by lr x decay at each step."""

    name: Literal["adamw"] = "adamw"
    lr: float = Field(default=0.003, gt=0, le=_MOST, description="full learning rate, before the schedule")
    betas: tuple[Share, Share] = Field(default=(0.9, 0.99), description="decay of the two moments")
    eps: float = Field(default=1e-8, ge=_LEAST, le=_MOST, description="added to the denominator")


class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent; weight_decay is added to the gradient."""

    name: Literal["sgd"] = "sgd"
    lr: float = Field(default=1.0, gt=0, le=_MOST, description="full learning rate, before the schedule")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="momentum")
    nesterov: bool = Field(default=False, description="look ahead by the momentum (Nesterov, as Sutskever et al. 2013)")

    @model_validator(mode="after")
    def _looks_ahead(self) -> "SGDConfig":
        if self.nesterov and not self.momentum:
            raise UsageError("optimizer.nesterov looks ahead by a momentum; set optimizer.momentum, or leave it out.")
        return self


class NormedRMSpropConfig(OptimizerConfig):
    """RMSprop's direction at a fixed length (the first multiplicative LSTMs); weight_decay is added to the gradient."""

    name: Literal["normed_rmsprop"] = "normed_rmsprop"
    lr: float = Field(
        default=1.0, gt=0, le=_MOST, description="length of a step over all parameters, before the schedule"
    )
    rho: float = Field(default=0.9, ge=0, lt=1, description="decay of the mean square")
    eps: float = Field(default=1e-6, ge=_LEAST, le=_MOST, description="added to the denominator")


class _Row:
    """A row of the table: a config class, the optimiser's class, and whether torch has a fused form of it, one of
    parameters that are spread over processes too."""

    Config: ClassVar[type[OptimizerConfig]]
    make: ClassVar[Any]
    fused: ClassVar[bool] = True
    fused_spread: ClassVar[bool] = True


class Adam(_Row):
    Config, make = AdamConfig, torch.optim.Adam


class AdamW(_Row):
    Config, make = AdamWConfig, torch.optim.AdamW


class SGD(_Row):
    Config, make, fused_spread = SGDConfig, torch.optim.SGD, False


class NormedRMSpropRow(_Row):
    Config, make, fused = NormedRMSpropConfig, NormedRMSprop, False


OPTIMIZERS: "Registry[type[_Row]]" = Registry(
    "optimizer",
    {
        name: f"{__name__}:{cls}"
        for name, cls in (
            ("adam", "Adam"),
            ("adamw", "AdamW"),
            ("sgd", "SGD"),
            ("normed_rmsprop", "NormedRMSpropRow"),
        )
    },
    default="adam",
)

AnyOptimizerConfig = Annotated[SerializeAsAny[OptimizerConfig], BeforeValidator(OPTIMIZERS.parse)]
"""A field that takes the config of any optimiser, or its name alone."""


def build_optimizer(
    config: OptimizerConfig,
    parameters: Iterable[nn.Parameter],
    rules: Mapping[nn.Parameter, ParameterRule] | None = None,
) -> torch.optim.Optimizer:
    """The optimiser for ``parameters``, in torch's fused form where there is one.

    Args:
        rules: of parameters that are trained in a way of their own. Every group has the key ``rate``, the factor on the
            learning rate of its parameters (see :func:`set_rate`).
    """
    rules = rules or {}
    options = config.model_dump(exclude={"name", "decay", "weight_decay"})
    kinds: dict[tuple[bool, float], list[nn.Parameter]] = {(True, 1.0): [], (False, 1.0): []}
    for p in parameters:
        if p.requires_grad:
            rule = rules.get(p, _NO_RULE)
            decays = rule.decay and (config.decay == "all" or p.dim() > 1)
            kinds.setdefault((decays, rule.rate), []).append(p)
    groups: list[dict[str, Any]] = [
        {"params": found, "weight_decay": config.weight_decay if decays else 0.0, "rate": rate}
        for (decays, rate), found in kinds.items()
        if found
    ]
    row = OPTIMIZERS[config.name]
    if row.fused and (row.fused_spread or not any(is_spread(p) for group in groups for p in group["params"])):
        options["fused"] = True
    optimizer = row.make(groups, **options)
    bounds = {p: rule.least for p, rule in rules.items() if rule.least is not None and p.requires_grad}
    if bounds:
        optimizer.register_step_post_hook(lambda *_: _keep_above(bounds))
    return optimizer


@torch.no_grad()
def _keep_above(bounds: Mapping[nn.Parameter, float]) -> None:
    """Put numbers that an update took below their bound back to it."""
    for parameter, least in bounds.items():
        local(parameter).clamp_(min=least)


def set_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step; parameters with a factor of their own get that times ``lr``."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("rate", 1.0)
