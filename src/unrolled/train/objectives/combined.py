"""All that a phase minimises, as one."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.task import Seen, StepsTask
from unrolled.train.objectives import OBJECTIVES, Extra, ExtraConfig, Given, ObjectiveConfig, divisor, objective

__all__ = ["Objectives"]


class Objectives:
    """The objective of a phase and the further ones; those of weight 0 are not there.

    Args:
        main, extra: the phase's settings. task, model: the run's.

    Attributes:
        sides: the further objectives' own modules by name, on the model's device.
        values: of the further objectives on the last batch, by name.
    Raises:
        UsageError: an objective that the task or the model does not take.
    """

    def __init__(self, main: ObjectiveConfig, extra: Sequence[ExtraConfig], task: StepsTask, model: nn.Module):
        self.main, self.sides, self._position = main, nn.ModuleDict(), 0
        self.values: dict[str, Tensor] = {}
        self._extras: list[tuple[Extra, nn.Module | None]] = []
        for config in (one for one in extra if one.weight):
            if task.objectives is not None and config.name not in task.objectives:
                raise UsageError(f"{task.noun} does not take the objective {config.name}; leave it out of train.extra.")
            one = OBJECTIVES[config.name](config, task.streams, model)
            one.join(task)
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(task.streams.key(f"objective.{config.name}"))
                side = one.side(model)
            if side is not None:
                like = next(model.parameters())
                self.sides[config.name] = side.to(like.device, like.dtype)
            self._extras.append((one, side))

    def prepare(self, batch: Any, position: int) -> Any:
        """A batch as the further objectives want it."""
        self._position = position
        for one, _ in self._extras:
            batch = one.prepare(batch, position)
        return batch

    def __call__(self, seen: Seen) -> Tensor:
        """The value of the batch last prepared."""
        value = objective(self.main, seen)
        for one, side in self._extras:
            name = one.config.name
            term = one.value(Given(seen, side, divisor(self.main, seen), self._position))
            self.values[name] = term.detach()
            value = value + one.config.weight * term
        return value

    def parameters(self) -> list[nn.Parameter]:
        """Those of the sides."""
        return list(self.sides.parameters())

    def exported(self) -> dict[str, dict[str, Tensor]]:
        """Parameters of the sides that are of use at test time, by the names of their files."""
        return {
            one.exported: dict(side.named_parameters())
            for one, side in self._extras
            if one.exported is not None and side is not None
        }

    def weights(self) -> dict[str, Tensor]:
        """The same by name, as a training state keeps them."""
        return dict(self.sides.named_parameters())
