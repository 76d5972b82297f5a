"""Search under a budget: a space of settings, trials that are stopped early, the best of them trained on new seeds."""

from unrolled.compare.tune.board import Board, Limit
from unrolled.compare.tune.lock import Study, begin, begun, open_study
from unrolled.compare.tune.space import SpaceConfig, find_space, list_spaces, read_space
from unrolled.compare.tune.tuning import Confirmed, TrialFound, Tuning
from unrolled.compare.tune.worker import Outcome, work

__all__ = [
    "Board",
    "Confirmed",
    "Limit",
    "Outcome",
    "SpaceConfig",
    "Study",
    "TrialFound",
    "Tuning",
    "begin",
    "begun",
    "find_space",
    "list_spaces",
    "open_study",
    "read_space",
    "work",
]
