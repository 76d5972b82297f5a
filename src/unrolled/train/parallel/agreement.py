"""What the processes of a run decide together: the time, and whether a signal ends it."""

from collections.abc import Sequence

from unrolled.core.group import current
from unrolled.train.budget import Clock
from unrolled.train.signals import StopRequest

__all__ = ["Agreement"]


class Agreement:
    """No process leaves the loop, saves or revises its plan alone: all go by sums that they have just exchanged.

    Args:
        clock, stop: of this process.

    Attributes:
        signal: number of the signal that some process has received; 0 while there is none.
    """

    def __init__(self, clock: Clock, stop: StopRequest):
        self._clock, self._stop, self.signal = clock, stop, 0
        self.meet()

    def tell(self) -> tuple[float, float, float, float]:
        """Wall seconds, those of process 0; CPU seconds; signals received, and the sum of their numbers."""
        wall, cpu = self._clock.own()
        return wall if current().main else 0.0, cpu, float(bool(self._stop)), float(self._stop.number)

    def hear(self, told: Sequence[float]) -> None:
        """Go by the group's sums of :meth:`tell`."""
        if current().world > 1:
            self._clock.agree(told[0], told[1])
        self.signal = round(told[3] / told[2]) if told[2] else 0

    def meet(self) -> None:
        """Exchange and go by it, between steps."""
        self.hear(current().sums(self.tell()))
