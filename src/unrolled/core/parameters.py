"""What is said of single parameters."""

from collections.abc import Mapping
from typing import NamedTuple

from torch import nn

__all__ = ["ParameterRule", "rules_of"]


class ParameterRule(NamedTuple):
    """How a parameter is trained and begun, where that differs from the rest.

    decay: whether weight decay acts on it. rate: factor on the learning rate. drawn: whether an initialisation that is
    meant for all matrices (``model.init_std``) may draw it anew.
    """

    decay: bool = True
    rate: float = 1.0
    drawn: bool = True


def rules_of(model: nn.Module) -> dict[nn.Parameter, ParameterRule]:
    """The rules that parts of a model state about their parameters, in a mapping ``parameter_rules`` by name."""
    found: dict[nn.Parameter, ParameterRule] = {}
    for part in model.modules():
        own: Mapping[str, ParameterRule] = getattr(part, "parameter_rules", {})
        found |= {part.get_parameter(name): rule for name, rule in own.items()}
    return found
