"""Scoring the validation split during and after training."""

from collections.abc import Callable

from unrolled.data.walk import Progress
from unrolled.evaluate import EvalConfig, EvalResult, evaluate_predictor
from unrolled.predict import NeuralPredictor
from unrolled.train.config import TrainConfig
from unrolled.train.setup import Parts

__all__ = ["Validator"]

# A column shorter than this is mostly warm-up.
_SHORTEST_COLUMN, _WINDOW = 100, 100
_TRIAL_SHARE = 20
# Greatest share of a budget in time that goes to validations.
_CHECKING = 0.25


class Validator:
    """Scores the validation split of a run, which has one.

    Args:
        parts: the run's. train: its configuration of training.
    """

    def __init__(self, parts: Parts, train: TrainConfig):
        self._parts = parts
        self._split = parts.splits["valid"]
        self._total = min(train.valid_tokens or len(self._split), len(self._split))
        self._limit = self._total if self._total < len(self._split) else None
        self._columns = min(train.valid_columns, max(1, self._total // _SHORTEST_COLUMN))

    def quick(self, step: int) -> EvalResult:
        """The figure that training watches: several columns, ``valid_tokens`` tokens."""
        return self._score(self._config(self._columns, self._limit), step, None)

    def exact(self, step: int, progress: Progress) -> EvalResult:
        """One column, every token once, as far as ``valid_tokens`` reaches."""
        return self._score(EvalConfig.parse({"split": "valid", "limit": self._limit}), step, progress)

    def seconds(self, clock: Callable[[], float]) -> float:
        """Estimate of the time of one :meth:`quick`, from a small part of it.

        Args:
            clock: wall or CPU seconds.
        """
        part = max(self._total // _TRIAL_SHARE, min(self._total, self._columns * _WINDOW))
        start = clock()
        self._score(self._config(self._columns, part), 0, None)
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

    def _config(self, columns: int, limit: int | None) -> EvalConfig:
        return EvalConfig.parse({"split": "valid", "columns": columns, "limit": limit, "window": _WINDOW})

    def _score(self, config: EvalConfig, step: int, progress: Progress | None) -> EvalResult:
        parts = self._parts
        provenance = {
            "corpus": parts.corpus.name,
            "tokenizer": parts.tokenizer.fingerprint(),
            "parameters": parts.model.num_params(),
            "step": step,
        }
        predictor = NeuralPredictor(parts.model, parts.tokenizer.start_id)
        try:
            return evaluate_predictor(predictor, self._split, config, progress, provenance)
        finally:
            parts.model.train()
