"""Evaluation of a run by its own task."""

from typing import Any

from unrolled.core.errors import UsageError
from unrolled.core.registry import unknown_name
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
    """Measure a run of any task on text, or on what its examples are.

    Args:
        corpus: its config, a known name, or the path of your own text; absent: the run's own.
        limit: only the beginning of the split, in what its length counts. advance: hears how far it is.
    Returns:
        what the task gives, a :class:`unrolled.task.TaskResult` unless it is a language model.
    Raises:
        UsageError: unknown corpus or split. UnrolledError: damaged files.
    """
    if run.task_class.reads_text:
        name, examples, _ = run.to_measure(split, corpus)
        provenance = {"corpus": name, **run.provenance(), "split": split, "text_sha256": examples.checksum}
    else:
        examples = _own(run, corpus, split)
        provenance = {**run.provenance(), "split": split, "examples_sha256": examples.checksum}
    return run.task.evaluate(run.trained, examples, Evaluation(split, limit, None, provenance), advance)


def _own(run: Run, corpus: Any, split: str) -> Any:
    """A split of a run that learned from no text. Raises UsageError for a corpus, and for an unknown split."""
    if corpus is not None:
        raise UsageError(f"{run.path} is {run.task_class.noun}, which reads no corpus; leave out --corpus.")
    if split not in run.task.splits:
        raise unknown_name("split", split, run.task.splits)
    return run.task.splits[split]
