"""The time that a run's steps and validations take, and the plan of a budget in time that follows from it."""

import math

from unrolled.core.group import current
from unrolled.train.budget import REVISIONS, Clock, revise_steps
from unrolled.train.config import PhaseConfig, TrainConfig
from unrolled.train.progress import Progress
from unrolled.train.report import Reporter
from unrolled.train.validation import Validator

__all__ = ["Pace"]

# Steps since the last plan from which their time says something.
_FEWEST = 5


class Pace:
    """Times the steps of a phase and revises its plan.

    Args:
        train: the run's. clock: of the run. validator: None where there is nothing to validate on.
    """

    def __init__(self, train: TrainConfig, clock: Clock, validator: Validator | None, report: Reporter):
        self._train, self._clock, self._validator, self._report = train, clock, validator, report
        # seconds, by the budget's clock, and number of the steps since the last plan
        self._timed, self._steps = 0.0, 0

    def now(self, phase: PhaseConfig) -> float:
        """Seconds on the clock of the budget."""
        return self._clock.cpu() if phase.budget()[0] == "cpu_minutes" else self._clock.wall()

    def stepped(self, seconds: float) -> None:
        """A step took so long."""
        self._timed, self._steps = self._timed + seconds, self._steps + 1

    def forget(self) -> None:
        """A phase or a plan begins."""
        self._timed, self._steps = 0.0, 0

    def spent(self, progress: Progress, cpu: bool) -> float:
        """Seconds since the phase began."""
        return (self._clock.cpu() if cpu else self._clock.wall()) - progress.phase_began[cpu]

    def validations(self, progress: Progress) -> int:
        """Validations of the phase."""
        return progress.validations or max(1, self._train.validations)

    def validation_seconds(self, progress: Progress, candidates: int, cpu: bool, left: float) -> float:
        """Estimate of the seconds that the phase's validations will take, of those that are left."""
        if self._validator is None:
            return 0.0
        wanted = self.validations(progress)
        plan = self._validator.plan(wanted, lambda: self._clock.own()[cpu], left, candidates)
        one, count = current().first(plan)
        progress.check_seconds, progress.validations = one, count
        if count < wanted:
            self._report.note(
                f"{left:.1f} seconds are left, a validation takes {one:.2f}: {count} of {wanted} are made"
            )
        return one * count

    def revise(self, phase: PhaseConfig, progress: Progress) -> bool:
        """Revise the number of steps of a budget in time when it is due; whether it was."""
        kind, amount = phase.budget()
        if not kind.endswith("minutes") or self._steps < _FEWEST:
            return False
        spent = self.spent(progress, kind == "cpu_minutes")
        if sum(share <= spent / (60 * amount) for share in REVISIONS) < len(progress.plans):
            return False
        checks = math.ceil(self.validations(progress) * (1 - progress.phase_step / progress.phase_steps))
        left = 60 * amount - spent - checks * progress.check_seconds
        progress.phase_steps = revise_steps(progress.phase_step, left, self._timed / self._steps)
        progress.plans.append((progress.phase_step, progress.phase_steps))
        self.forget()
        return True
