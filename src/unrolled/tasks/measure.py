"""Evaluation of a run by its own task."""

from typing import Any

from unrolled.data import CorpusConfig
from unrolled.data.walk import Progress
from unrolled.runs import Run
from unrolled.task import Evaluation

__all__ = ["evaluate_task"]


def evaluate_task(
    run: Run,
    corpus: CorpusConfig | str | None = None,
    split: str = "test",
    limit: int | None = None,
    advance: Progress | None = None,
) -> Any:
    """Measure a run of any task on text.

    Args:
        corpus: its config, a known name, or the path of your own text; absent: the run's own.
        limit: only the beginning of the split, in what its length counts. advance: hears how far it is.
    Returns:
        what the task gives, a :class:`unrolled.task.TaskResult` unless it is a language model.
    Raises:
        UsageError: unknown corpus or split. UnrolledError: damaged files.
    """
    name, examples, _ = run.to_measure(split, corpus)
    provenance = {"corpus": name, **run.provenance(), "split": split, "text_sha256": examples.checksum}
    return run.task.evaluate(run.trained, examples, Evaluation(split, limit, None, provenance), advance)
