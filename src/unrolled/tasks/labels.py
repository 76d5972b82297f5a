"""What tasks of labels have in common: names of the labels, figures, sentences."""

import math
from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from unrolled.core.errors import UnrolledError
from unrolled.task import Evaluation, Goal, StepsTask, TaskConfig, TaskResult

__all__ = ["Labels", "grouped"]


def grouped(name: str, values: np.ndarray) -> dict[str, np.ndarray]:
    """Where each of some values (labels,) stands, by name and value."""
    return {f"{name}_{value}": values == value for value in np.unique(values)}


class Labels(StepsTask):
    """A task whose targets are labels; its config has ``classes``, the names of these, and ``data``."""

    reads_text = False
    goal = Goal("accuracy", "max")
    examples: ClassVar[str]
    """What its examples are, for sentences and counts."""
    unit = "labels"

    @property
    def _settings(self) -> Any:
        assert isinstance(self.config.task, TaskConfig)
        return self.config.task

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the labels. Raises UnrolledError where a run's config does not say them."""
        if self._settings.classes is None:
            raise UnrolledError("the config of this run does not say its classes: it is damaged; train anew.")
        return self._settings.classes

    def label(self, model: Any, texts: Sequence[str]) -> list[tuple[str, float]]:
        """The likeliest label of each text, and its probability."""
        found = dict(self.text_log_probs(model, texts))
        best = [(int(found[place].argmax()), float(np.exp(found[place].max()))) for place in range(len(texts))]
        return [(self.classes[number], chance) for number, chance in best]

    @abstractmethod
    def text_log_probs(self, model: Any, texts: Sequence[str]) -> Iterator[tuple[int, np.ndarray]]:
        """Numbers of texts, in any order, and float64 log-probabilities of their labels, the last axis (classes,)."""

    def chance(self) -> float:
        """Of uniform guessing."""
        return math.log(len(self.classes))

    def measured(
        self, nats: np.ndarray, right: np.ndarray, groups: Mapping[str, np.ndarray], examples: int, how: Evaluation
    ) -> TaskResult:
        """A result of the labels' nats and of whether they are right, (labels,) each. Each of ``groups``, boolean
        (labels,), gets an accuracy of its own."""
        figures = {"accuracy": float(right.mean()), "nats": float(nats.mean())}
        figures |= {f"accuracy_{name}": float(right[group].mean()) for name, group in groups.items()}
        return TaskResult(
            task=self._settings.name,
            figures=figures,
            counts={self.examples: examples, "labels": len(nats), "right": int(right.sum())},
            protocol={"data": self._settings.data.name, "split": how.split},
            provenance={**self.provenance(), **how.provenance},
        )

    @classmethod
    def told(cls, result: TaskResult) -> str:
        """See :meth:`Task.told`."""
        return f"accuracy {result.figures['accuracy']:.4f}, nats {result.figures['nats']:.4f}"

    def logged(self, result: TaskResult) -> dict[str, Any]:
        """Accuracy and nats."""
        return {name: result.figures[name] for name in ("accuracy", "nats")}

    def changed(self, split: str, run: Any) -> str:
        """See :meth:`Task.changed`."""
        return (
            f"the {split} {self.examples} are not those that {run} was begun with; bring these back, or train anew "
            "with another --out."
        )
