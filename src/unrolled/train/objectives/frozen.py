"""Finished runs that an objective looks at: loaded once, checked, never trained."""

from typing import Any

from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel
from unrolled.runs import Run
from unrolled.task import StepsTask

__all__ = ["frozen_model"]


def frozen_model(path: str, task: StepsTask, like: LanguageModel, what: str, objective: str) -> LanguageModel:
    """The model of a finished run in evaluation mode, on the device and in the type of another, if its ids mean what
    the task's do.

    Args:
        path: the run's folder, from the working directory. what: what the run is to the objective, with an article.
    Raises:
        UsageError: a task without text, no run, a run without neural weights, or one of another vocabulary.
    """
    own: Any = task.tokenizer
    if own is None:
        raise UsageError(f"{task.noun} reads no text; leave the objective {objective} out of train.extra.")
    run = Run(path, str(like.device))
    run.check_language()
    other = run.tokenizer
    if (other.symbols_checksum(), other.start_id) != (own.symbols_checksum(), own.start_id):
        differ = sum(a != b for a, b in zip(other.pieces, own.pieces, strict=False))
        raise UsageError(
            f"{what} {path} is for another vocabulary: of {other.vocab_size:,} ids and {own.vocab_size:,} here, "
            f"{differ:,} mean other symbols; name {what.split(maxsplit=1)[1]}s that were trained with this run's "
            "tokenizer."
        )
    return run.model.to(like.device, like.dtype).requires_grad_(False)
