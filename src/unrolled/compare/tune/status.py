"""How far a study is, read from its files alone."""

from typing import Any, NamedTuple

from unrolled.compare.claims import Claims
from unrolled.compare.tune.tuning import TrialFound, Tuning

__all__ = ["Progress", "progress"]


class Progress(NamedTuple):
    """How far a study is.

    Attributes:
        trials: status -> how many. leaders: those that are to be confirmed, the best first. confirmed, to_confirm: runs
            with new seeds that are done, and that are wanted. cpu_hours: spent. running: job -> who works on it.
    """

    trials: dict[str, int]
    leaders: tuple[TrialFound, ...]
    confirmed: int
    to_confirm: int
    cpu_hours: float
    running: dict[str, dict[str, Any]]

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "kind": "unrolled study status", **self._asdict(), "leaders": [one._asdict() for one in self.leaders],
        }  # fmt: skip


def progress(tuning: Tuning) -> Progress:
    """How far a study is; nothing is written but a file for the time of a moment."""
    board, counts = tuning.board, dict[str, int]()
    for one in tuning.trials:
        counts[one.status] = counts.get(one.status, 0) + 1
    known = {one.number: one for one in tuning.trials}
    confirm = board.confirm_jobs()
    return Progress(
        trials=dict(sorted(counts.items())),
        leaders=tuple(known[number] for number in board.leaders()),
        confirmed=sum(board.result(job.id) is not None for job in confirm),
        to_confirm=len(confirm),
        cpu_hours=tuning.cpu_hours,
        running={job: who for job, who in Claims(tuning.folder).living().items() if board.result(job) is None},
    )
