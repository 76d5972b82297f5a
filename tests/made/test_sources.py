"""Exact predictors of sources against sums over all that can have happened; no model beats them."""

import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled.core.random import RandomStreams
from unrolled.data.made import predictors
from unrolled.data.made.sources import Sources, SourcesConfig
from unrolled.evaluate.in_context import InContextNgram
from unrolled.evaluate.points import measure_points
from unrolled.predict import Prediction, Predictor

HAZARDS = {"constant": lambda n: 0.1, "lad": lambda n: 0.5 / n}


def brute_force(x: list[int], hazard: Any) -> float:
    """The evidence: a sum over all 2^(T-1) patterns of switches."""
    total = 0.0
    for pattern in itertools.product((False, True), repeat=len(x) - 1):
        borders = [0, *(t for t, switch in enumerate(pattern, 1) if switch), len(x)]
        chance = 1.0
        for begin, end in itertools.pairwise(borders):
            chance *= predictors.segment_evidence(x[begin:end], 2)
            chance *= math.prod(1 - hazard(n) for n in range(1, end - begin))
            chance *= hazard(end - begin) if end < len(x) else 1
        total += chance
    return total


@pytest.mark.parametrize("kind", HAZARDS)
def test_run_lengths_are_the_sum_over_all_patterns(kind: str) -> None:
    x = np.random.default_rng(3).integers(0, 2, (2, 10))
    fast = predictors.run_lengths(x, 2, np.array([HAZARDS[kind](n) for n in range(1, 10)]))
    for row, line in enumerate(x.tolist()):
        for t in range(9):
            ones, zeros = (brute_force([*line[:t], symbol], HAZARDS[kind]) for symbol in (1, 0))
            assert abs(fast[row, t, 1] - ones / (ones + zeros)) < 1e-12
        renewal = predictors.renewal_evidence(line, 2, [HAZARDS[kind](n) for n in range(1, 10)])
        assert math.isclose(renewal, brute_force(line, HAZARDS[kind]), rel_tol=1e-12)


def test_one_segment_is_predicted_as_krichevsky_and_trofimov_do() -> None:
    x = np.array([[1, 1, 0, 1]])
    found = predictors.run_lengths(x, 2, np.zeros(3))[0, :, 1]
    np.testing.assert_allclose(found, [1 / 2, 1.5 / 2, 2.5 / 3, 2.5 / 4])


def test_partition_trees_are_their_recursive_definition() -> None:
    x = np.random.default_rng(4).integers(0, 2, (3, 30))
    fast = predictors.partition_tree(x, 2, 5)
    for row, line in enumerate(x.tolist()):
        log = sum(math.log(fast[row, t, symbol]) for t, symbol in enumerate(line))
        assert abs(log - math.log(predictors.partition_evidence(line, 2, 5))) < 1e-10


def test_long_segments_do_not_overflow() -> None:
    """Counts of a published implementation are bytes, so that it is wrong from symbol 255 on."""
    found = predictors.run_lengths(np.ones((1, 300), np.int64), 2, 0.5 / np.arange(1, 300))
    assert found[0, 299, 1] > 0.99


def test_sources_switch_as_they_say() -> None:
    problem = Sources(SourcesConfig(hazard=0.25, length=40))
    ages = problem.batch(RandomStreams(1), "train", 0, 2000).groups["age"][:, 1:]
    assert abs((ages == 0).mean() - 0.25) < 0.01
    problem = Sources(SourcesConfig(kind="ptw", depth=4, length=16))
    ages = problem.batch(RandomStreams(1), "train", 0, 4000).groups["age"]
    assert abs((ages[:, 8] == 0).mean() - 0.5) < 0.03, "the whole is split in one half of the rows"
    assert abs((ages[:, 4] == 0).mean() - 0.25) < 0.03
    assert abs((ages[:, 1] == 0).mean() - 1 / 16) < 0.015


class Exact(Predictor):
    """The exact predictor as one that evaluation reads."""

    def __init__(self, hazard: float):
        self.hazard, self.vocab_size, self.start_id = hazard, 3, 0

    def begin(self, batch: int, first: Tensor | None = None) -> Tensor:
        return torch.zeros(batch, 0, dtype=torch.int64)

    def observe(self, state: Tensor, ids: Tensor) -> Tensor:
        return torch.cat([state, ids.unsqueeze(1) - 1], 1)

    def predict(self, state: Tensor) -> Prediction:
        x = torch.cat([state, torch.zeros(len(state), 1, dtype=torch.int64)], 1)
        probs = predictors.run_lengths(x.numpy(), 2, np.full(x.shape[1] - 1, self.hazard))[:, -1]
        return Prediction(torch.from_numpy(np.log(np.concatenate([np.full((len(x), 1), 1e-300), probs], 1))), None)


def test_nobody_beats_the_exact_predictor() -> None:
    problem = Sources(SourcesConfig(length=24, hazard=0.1))
    exact, wrong, counts = (
        measure_points(predictor, problem, rows=512)[0].figures
        for predictor in (Exact(0.1), Exact(0.6), InContextNgram(3, 0))
    )
    assert exact.excess is not None
    assert wrong.excess is not None
    assert counts.excess is not None
    assert exact.error is not None
    assert wrong.error is not None
    assert abs(exact.excess) < 1e-9
    assert exact.exact is None
    assert exact.legal == (1.0, 1.0, 1.0)
    assert wrong.excess > 3 * wrong.error > 0
    assert counts.excess > 0
