"""What is said of single parameters."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import NamedTuple

from torch import nn

from unrolled.core.errors import UsageError

__all__ = ["ParameterRule", "freeze", "matching_parameters", "rules_of"]


class ParameterRule(NamedTuple):
    """How a parameter is trained and begun, where that differs from the rest.

    decay: whether weight decay acts on it. rate: factor on the learning rate. drawn: whether an initialisation that is
    meant for all matrices (``model.init_std``) may draw it anew. least: below which no step of an optimiser leaves its
    numbers; None where there is no such bound. Updates at test time do not know it.
    """

    decay: bool = True
    rate: float = 1.0
    drawn: bool = True
    least: float | None = None


def rules_of(model: nn.Module) -> dict[nn.Parameter, ParameterRule]:
    """The rules that parts of a model state about their parameters, in a mapping ``parameter_rules`` by name."""
    found: dict[nn.Parameter, ParameterRule] = {}
    for part in model.modules():
        own: Mapping[str, ParameterRule] = getattr(part, "parameter_rules", {})
        found |= {part.get_parameter(name): rule for name, rule in own.items()}
    return found


def matching_parameters(module: nn.Module, patterns: Sequence[str]) -> dict[str, nn.Parameter]:
    """Name -> parameter whose name matches any pattern; a tied one once. Raises UsageError when a pattern has none."""
    named = dict(module.named_parameters())
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in named):
            raise UsageError(f"no parameter matches {pattern!r}; the model has: {', '.join(named)}.")
    return {name: p for name, p in named.items() if any(fnmatchcase(name, pattern) for pattern in patterns)}


def freeze(module: nn.Module, trainable: Sequence[str]) -> None:
    """Let gradients reach those parameters alone whose names match a pattern; what is fixed by its part of the model
    stays so. Raises UsageError for a pattern without any."""
    kept = matching_parameters(module, trainable)
    for name, parameter in module.named_parameters():
        parameter.requires_grad_(parameter.requires_grad and name in kept)
