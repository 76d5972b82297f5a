"""What a trial is given: the tree-structured Parzen estimator, or chance, seeded by the study and the trial's number.

The estimator is that of Bergstra, Bardenet, Bengio and Kegl 2011 ("Algorithms for Hyper-Parameter Optimization"), of
all settings together (Falkner, Klein and Hutter 2018), in groups of settings that are searched together, with the
trials under way counted as bad ones ("constant liar"), so that workers at one time try different things.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from unrolled.core.random import RandomStreams

__all__ = ["NumberedSampler"]


class NumberedSampler(BaseSampler):
    """Draws that depend on seed, number of the trial and name of the setting, so that whoever asks gets the same.

    Args:
        seed: of the study. first: number of the first trial that is not at random; None: all are. learns: trials that
            must have ended before it learns from them. known: what a trial was given already, by its number; empty.
    """

    def __init__(self, seed: int, first: int | None, learns: int, known: Callable[[int], Mapping[str, Any]]) -> None:
        self._streams, self._first, self._learns, self._known = RandomStreams(seed), first, learns, known
        self._tpe: tuple[int, TPESampler] | None = None

    def _seed(self, *keys: Any) -> int:
        return self._streams.key(".".join(["tune", *map(str, keys)])) % 2**32

    def _estimator(self, number: int) -> TPESampler | None:
        """Of a trial; None for one at random."""
        if self._first is None or number < self._first or self._known(number):
            return None
        if self._tpe is None or self._tpe[0] != number:
            with warnings.catch_warnings():  # that groups are experimental, in every process anew
                warnings.simplefilter("ignore")
                self._tpe = number, TPESampler(
                    n_startup_trials=self._learns, multivariate=True, group=True, constant_liar=True,
                    seed=self._seed(number),
                )  # fmt: skip
        return self._tpe[1]

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """The settings that are drawn together."""
        estimator = self._estimator(trial.number)
        return {} if estimator is None else estimator.infer_relative_search_space(study, trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Their values."""
        estimator = self._estimator(trial.number)
        return {} if estimator is None else estimator.sample_relative(study, trial, search_space)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """The value of a setting that is drawn by itself."""
        known = self._known(trial.number)
        if param_name in known:
            return known[param_name]
        estimator = self._estimator(trial.number)
        if estimator is None:
            estimator = RandomSampler(self._seed(trial.number, param_name))
        return estimator.sample_independent(study, trial, param_name, param_distribution)
