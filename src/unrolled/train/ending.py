"""What ends a phase before its budget is spent."""

from unrolled.optim.averaging import worse_than_before
from unrolled.train.config import PhaseConfig, TrainConfig
from unrolled.train.progress import Progress
from unrolled.train.step import StepResult

__all__ = ["hear_loss", "why_it_ends"]


def hear_loss(phase: PhaseConfig, progress: Progress, step: StepResult, per_epoch: int) -> None:
    """Add a step to the sums of an epoch's worth of tokens, and compare their mean with ``until_loss`` when it is full.

    Args:
        per_epoch: targets of an epoch.
    """
    progress.epoch_nats, progress.epoch_tokens = progress.epoch_nats + step.nats, progress.epoch_tokens + step.tokens
    if progress.epoch_tokens >= per_epoch:
        mean = progress.epoch_nats / progress.epoch_tokens
        progress.reached = phase.until_loss is not None and mean <= phase.until_loss
        progress.epoch_nats, progress.epoch_tokens = 0.0, 0


def why_it_ends(train: TrainConfig, phase: PhaseConfig, progress: Progress) -> str | None:
    """Why a phase ends now, in words; None where it goes on."""
    if progress.reached:
        return f"the training loss of an epoch is at most {phase.until_loss:g}"
    stop, history = phase.nonmonotone_stop, progress.history or [0.0]
    late = train.patience is not None and progress.stale >= train.patience
    if late or (stop is not None and worse_than_before(history[:-1], history[-1], stop)):
        return f"no better validation in the last {progress.stale}"
    return None
