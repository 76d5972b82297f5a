"""Stopping the worst trials early: asynchronous successive halving.

Li, Jamieson, Rostamizadeh, Gonina, Ben-tzur, Hardt, Recht and Talwalkar 2020 ("A System for Massively Parallel
Hyperparameter Tuning"), in the form in which a trial is judged once at each rung, by all that have come there so far,
and goes on or ends for good. Trials are compared at the same share of an equal schedule, so that none is annealed more.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from unrolled.compare.running import Guard
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import make_folder, read_json, write_json

__all__ = ["Decision", "Halving", "PrunedError", "Rungs", "place_rungs", "survives"]

_FOLDER = "rungs"
_OFF, _MOST = 0.01, 50


class PrunedError(UnrolledError):
    """A trial was stopped at a rung. Its training state is that of the rung, and could be gone on with."""


def place_rungs(shares: Sequence[float]) -> tuple[tuple[int, ...], int]:
    """Rungs fall on validations, which lie evenly over a run: the fewest that come within 0.01 of every share.

    Returns:
        number of the validation of each rung, and of all validations.
    """
    for count in range(2, _MOST + 1):
        numbers = [round(share * count) for share in shares]
        near = all(abs(number / count - share) <= _OFF for number, share in zip(numbers, shares, strict=True))
        if near and len(set(numbers)) == len(numbers) and all(0 < number < count for number in numbers):
            return tuple(numbers), count
    raise UsageError("rungs lie too close to each other, or to the ends of a trial; set them apart.")


def survives(value: float, others: Sequence[float], keep: float) -> bool:
    """Whether a trial goes on at a rung: it is among the best share, or the best of all; ties go on.

    Args:
        value: its loss. others: those of all trials that came there so far, its own among them.
    """
    return sum(other < value for other in others) < max(1, math.floor(keep * len(others)))


class Decision(NamedTuple):
    """What was decided over a trial at a rung. value: nats per token of its validation there."""

    check: int
    value: float
    step: int
    goes_on: bool


class Rungs:
    """The rungs of a study, as files: what each trial that came there had, and what was decided over it.

    Args:
        folder: of the study. checks: number of the validation of each rung. keep: share that goes on.
    """

    def __init__(self, folder: Path, checks: Sequence[int], keep: float):
        self.folder, self.checks, self.keep = folder / _FOLDER, tuple(checks), keep

    def _path(self, check: int, number: int) -> Path:
        return self.folder / f"{check}" / f"{number:04d}.json"

    def decide(self, check: int, number: int, value: float, step: int) -> Decision:
        """Note what a trial has at a rung, and decide; what was decided before stays."""
        path = self._path(check, number)
        make_folder(path.parent)
        known = self._read(path)
        if known is not None and known["goes_on"] is not None:
            return Decision(check, known["value"], known["step"], known["goes_on"])
        noted = {"number": number, "value": value, "step": step}
        write_json(path, {**noted, "goes_on": None})  # before it looks, so that of two at once each sees the other
        others = [found["value"] for one in sorted(path.parent.glob("*.json")) if (found := self._read(one))]
        decision = Decision(check, value, step, survives(value, others, self.keep))
        write_json(path, {**noted, "goes_on": decision.goes_on})
        return decision

    def _read(self, path: Path) -> dict[str, Any] | None:
        value = read_json(path) if path.exists() else None
        if value is not None and not (isinstance(value, dict) and {"value", "step", "goes_on"} <= set(value)):
            raise UnrolledError(f"{path} is damaged; delete it, and run on.")
        return value

    def stopped(self, number: int) -> Decision | None:
        """Where a trial was stopped; None where it was not."""
        for check in self.checks:
            known = self._read(self._path(check, number))
            if known is not None and known["goes_on"] is False:
                return Decision(check, known["value"], known["step"], False)
        return None


class Halving(Guard):
    """Ends a run at a rung, one step after its training state there was saved.

    Args:
        check, tell: see :class:`Guard`. rungs: of the study. number: of the trial.
    """

    def __init__(self, check: Callable[[], None], tell: Callable[[str], None], rungs: Rungs, number: int):
        super().__init__(check, tell)
        self._rungs, self._number, self._stopped = rungs, number, False

    def valid(self, progress: Any, result: Any, told: str) -> None:
        """See :class:`Reporter`."""
        if progress.checks in self._rungs.checks:
            self._check()
            decision = self._rungs.decide(progress.checks, self._number, progress.history[-1], progress.step)
            self._stopped = not decision.goes_on

    def step(self, progress: Any, nats: float, lr: float) -> None:
        """See :class:`Reporter`."""
        if self._stopped:
            raise PrunedError("this trial was stopped at a rung.")
        super().step(progress, nats, lr)
