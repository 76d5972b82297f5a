"""Optimisers by name, from torch."""

from collections.abc import Iterable
from typing import Annotated, Any, ClassVar, Literal

import torch
from pydantic import BeforeValidator, Field, SerializeAsAny
from torch import nn

from unrolled.core.config import Config
from unrolled.core.registry import Registry

__all__ = ["OPTIMIZERS", "AnyOptimizerConfig", "OptimizerConfig", "build_optimizer"]


class OptimizerConfig(Config):
    """What all optimisers share."""

    name: str
    lr: float = Field(gt=0, description="full learning rate, before the schedule")
    weight_decay: float = Field(default=0.0, ge=0, description="weight decay, in the optimiser's own convention")
    decay: Literal["all", "matrices"] = Field(
        default="all", description="what decays: every parameter, or all but vectors (biases, gains)"
    )


class AdamConfig(OptimizerConfig):
    """Adam (Kingma and Ba 2015); weight_decay is added to the gradient."""

    name: Literal["adam"] = "adam"
    lr: float = Field(default=0.003, gt=0, description="full learning rate, before the schedule")
    betas: tuple[float, float] = Field(default=(0.9, 0.99), description="decay of the two moments")
    eps: float = Field(default=1e-8, gt=0, description="added to the denominator")


class AdamWConfig(OptimizerConfig):
    """AdamW (Loshchilov and Hutter 2019); weight_decay shrinks the weights by lr x decay at each step."""

    name: Literal["adamw"] = "adamw"
    lr: float = Field(default=0.003, gt=0, description="full learning rate, before the schedule")
    betas: tuple[float, float] = Field(default=(0.9, 0.99), description="decay of the two moments")
    eps: float = Field(default=1e-8, gt=0, description="added to the denominator")


class SGDConfig(OptimizerConfig):
    """Stochastic gradient descent; weight_decay is added to the gradient."""

    name: Literal["sgd"] = "sgd"
    lr: float = Field(default=1.0, gt=0, description="full learning rate, before the schedule")
    momentum: float = Field(default=0.0, ge=0, lt=1, description="momentum")


class _Row:
    """A row of the table: a config class and torch's class."""

    Config: ClassVar[type[OptimizerConfig]]
    make: ClassVar[Any]


class Adam(_Row):
    Config, make = AdamConfig, torch.optim.Adam


class AdamW(_Row):
    Config, make = AdamWConfig, torch.optim.AdamW


class SGD(_Row):
    Config, make = SGDConfig, torch.optim.SGD


OPTIMIZERS: "Registry[type[_Row]]" = Registry(
    "optimizer",
    {name: f"{__name__}:{cls}" for name, cls in (("adam", "Adam"), ("adamw", "AdamW"), ("sgd", "SGD"))},
    default="adam",
)

AnyOptimizerConfig = Annotated[SerializeAsAny[OptimizerConfig], BeforeValidator(OPTIMIZERS.parse)]
"""A field that takes the config of any optimiser, or its name alone."""


def build_optimizer(config: OptimizerConfig, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
    """torch's optimiser for ``parameters``, with its fused form where the device has one."""
    parameters = [p for p in parameters if p.requires_grad]
    options = config.model_dump(exclude={"name", "decay", "weight_decay"})
    groups: list[dict[str, Any]] = [{"params": parameters, "weight_decay": config.weight_decay}]
    if config.decay == "matrices":
        groups = [
            {"params": [p for p in parameters if p.dim() > 1], "weight_decay": config.weight_decay},
            {"params": [p for p in parameters if p.dim() <= 1], "weight_decay": 0.0},
        ]
    return OPTIMIZERS[config.name].make([g for g in groups if g["params"]], **options, fused=True)
