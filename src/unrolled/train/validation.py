"""Scoring the validation split during and after training."""

from collections.abc import Callable
from typing import Any

from torch import nn

from unrolled.core.group import Group, current
from unrolled.task import Evaluation, StepsTask
from unrolled.task.values import Advance
from unrolled.train.config import TrainConfig
from unrolled.train.parallel.window import Window

__all__ = ["Validator"]

# Of the split, what is looked at to know the time of a validation: a share, and at least so much of a column.
_TRIAL_SHARE, _TRIAL_COLUMN = 20, 100
# Greatest share of a budget in time that goes to validations.
_CHECKING = 0.25


class Validator:
    """Scores the validation split of a run, which has one.

    Args:
        task: the run's. window: of its model. train: its configuration of training.
    """

    def __init__(self, task: StepsTask, window: Window, train: TrainConfig):
        self._task, self._window = task, window
        self._split = task.splits["valid"]
        self._total = min(train.valid_tokens or len(self._split), len(self._split))
        self._limit = self._total if self._total < len(self._split) else None
        self._columns = train.valid_columns

    def quick(self, step: int) -> Any:
        """The figure that training watches: several columns, ``valid_tokens`` tokens."""
        with self._window.whole() as model:
            return self._score(model, self._limit, self._columns, step, None, current())

    def exact(self, model: nn.Module, step: int, advance: Advance) -> Any:
        """As it is published: every token once, as far as ``valid_tokens`` reaches. By this process alone.

        Args:
            model: the run's, with the weights to score.
        """
        return self._score(model, self._limit, None, step, advance)

    def seconds(self, clock: Callable[[], float]) -> float:
        """Estimate of the time of one :meth:`quick`, from a small part of it.

        Args:
            clock: wall or CPU seconds.
        """
        part = max(self._total // _TRIAL_SHARE, min(self._total, self._columns * _TRIAL_COLUMN))
        start = clock()
        with self._window.whole() as model:
            self._score(model, part, self._columns, 0, None, current())
        return (clock() - start) * self._total / part

    def plan(self, wanted: int, clock: Callable[[], float], left: float, each: int) -> tuple[float, int]:
        """How many validations to make in what is left of a phase's time: at most a quarter of it is theirs, and one is
        made in any case.

        Args:
            wanted: as many as the settings say. left: seconds by the clock. each: scores that one validation makes.
        Returns:
            seconds of one validation, number of validations.
        """
        begun = clock()
        one = each * self.seconds(clock)
        left -= clock() - begun
        return one, max(1, min(wanted, int(_CHECKING * left / max(one, 1e-9))))

    def _score(
        self, model: nn.Module, limit: int | None, columns: int | None, step: int, advance: Advance | None,
        group: Group | None = None,
    ) -> Any:  # fmt: skip
        how = Evaluation("valid", limit, columns, {"step": step}, group)
        try:
            return self._task.evaluate(model, self._split, how, advance)
        finally:
            model.train()
