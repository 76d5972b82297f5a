"""Models on problems: figures, pieces, free running."""

import json
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data.made import MADE, Problem
from unrolled.evaluate import points
from unrolled.evaluate.points import PointResult, measure_points, middle_gap
from unrolled.evaluate.text.pairs import wilson
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import Prediction, Predictor


def problem_of(value: dict[str, Any]) -> Problem:
    return MADE[value["name"]](MADE.parse(value))


def a_model(problem: Problem, cell: str = "lstm") -> LanguageModel:
    torch.manual_seed(3)
    return LanguageModel(ModelConfig.parse({"width": 16, "cell": cell}), len(problem.symbols)).double()


class Knowing(Predictor):
    """Knows which symbol each prefix asks for, but for some answers of every so manieth row."""

    def __init__(self, problem: Problem, batch: Any, wrong: int = 7):
        self.vocab_size, self.start_id, self.answers = len(problem.symbols), problem.start_id, {}
        for row, (ids, targets) in enumerate(zip(batch.inputs.tolist(), batch.targets.tolist(), strict=True)):
            for t, target in enumerate(targets):
                miss = row % wrong == 0 and t % 3 == 2
                self.answers[tuple(ids[: t + 1])] = (target + miss) % self.vocab_size

    def begin(self, batch: int, first: Tensor | None = None) -> Tensor:
        return torch.full((batch, 1), self.start_id)

    def observe(self, state: Tensor, ids: Tensor) -> Tensor:
        return torch.cat([state, ids.unsqueeze(1)], 1)

    def predict(self, state: Tensor) -> Prediction:
        found = torch.full((len(state), self.vocab_size), 0.1 / (self.vocab_size - 1), dtype=torch.float64)
        for row, ids in enumerate(state.tolist()):
            found[row, self.answers.get(tuple(ids), 0)] = 0.9
        return Prediction(found.log(), None)


def test_figures_by_hand() -> None:
    problem = problem_of({"name": "copy", "vocab": 4, "length": 6})
    batch = problem.batch(RandomStreams(1), "test", 0, 50)
    result = measure_points(Knowing(problem, batch), problem, rows=50)[0]
    wrong = np.arange(50) % 7 == 0
    assert result.right_rows.tolist() == (~wrong).tolist()
    share = float((~wrong).mean())
    assert result.figures.exact == (share, *wilson(share, 50))
    # of 6 answers, at 7 to 12, two are missed
    missed = sum(t % 3 == 2 for t in range(7, 13))
    right = 1 - wrong.sum() * missed / 300
    assert math.isclose(result.figures.accuracy.value, right)
    assert result.figures.accuracy.low < right < result.figures.accuracy.high
    nats = right * math.log(0.9) + (1 - right) * math.log(0.1 / (len(problem.symbols) - 1))
    assert math.isclose(result.figures.nats, -nats)
    assert {value: figures.accuracy.value == 1 for value, figures in result.groups["index"].items()} == {
        index: (7 + index) % 3 != 2 for index in range(6)
    }
    assert result.figures.positions == 300
    assert json.loads(json.dumps(result.to_json()))["groups"]["index"]["0"]["rows"] == 50


FED = [
    {"name": "copy", "vocab": 2, "length": 2},
    {"name": "recall", "vocab": 4, "length": 12},
    {"name": "lookup", "vocab": 4, "length": 7, "ngram": 2, "answer": 2},
    {"name": "flipflop", "length": 10, "read": 0.4},
    {"name": "passkey", "length": 10, "digits": 1},
]


@pytest.mark.parametrize("value", FED, ids=lambda value: value["name"])
def test_exact_rows_are_the_same_in_free_running(value: dict[str, Any]) -> None:
    """Both fail at the first wrong symbol."""
    problem = problem_of(value)
    model = a_model(problem)
    forced, free = (measure_points(model, problem, rows=150, free=free)[0] for free in (False, True))
    assert forced.right_rows.tolist() == free.right_rows.tolist()
    knowing = Knowing(problem, problem.batch(RandomStreams(1), "test", 0, 60), 2)
    forced, free = (measure_points(knowing, problem, rows=60, free=free)[0] for free in (False, True))
    assert forced.right_rows.tolist() == free.right_rows.tolist()
    assert forced.right_rows.mean() > 0


def test_free_running_reads_its_own_answers() -> None:
    problem = problem_of({"name": "copy", "vocab": 4, "length": 5})
    model = a_model(problem)
    forced, free = (measure_points(model, problem, rows=50, free=free)[0] for free in (False, True))
    assert forced.figures.nats != free.figures.nats


@pytest.mark.parametrize("cell", ["lstm", "mingru", "retnet"])
def test_long_rows_are_read_in_pieces(cell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = problem_of({"name": "group", "kind": "S3", "length": 33})
    model = a_model(problem, cell)
    whole = measure_points(model, problem, rows=9)[0]
    monkeypatch.setattr(points, "_MOST_PIECE", 5)
    pieces = measure_points(model, problem, rows=9)[0]
    assert math.isclose(whole.figures.nats, pieces.figures.nats, rel_tol=1e-12)
    assert whole.figures.accuracy == pieces.figures.accuracy
    late = problem_of({"name": "kv_position", "vocab": 32, "pairs": 16})
    model = a_model(late, cell)
    pieces = measure_points(model, late, rows=9)[0]
    monkeypatch.undo()
    assert math.isclose(measure_points(model, late, rows=9)[0].figures.nats, pieces.figures.nats, rel_tol=1e-12)


def test_points_and_what_they_hear() -> None:
    problem = problem_of({"name": "group", "kind": "Z2", "length": 4})
    heard: list[tuple[int, int]] = []
    results = measure_points(
        a_model(problem), problem, [{"length": 3}, {"length": 70}], 100, heard=lambda *at: heard.append(at)
    )
    assert [result.point for result in results] == [{"length": 3}, {"length": 70}]
    assert [result.figures.positions for result in results] == [300, 7000]
    assert sorted(results[1].groups["position"]) == [0, 1, 2, 3, 4]
    assert heard == [(0, 64), (0, 100), (1, 64), (1, 100)]
    with pytest.raises(UsageError, match="has no setting"):
        measure_points(a_model(problem), problem, [{"lenght": 3}])


def test_the_gap_between_ends_and_middle() -> None:
    problem = problem_of({"name": "kv_position", "vocab": 20, "pairs": 10})
    found = measure_points(a_model(problem), problem, [{"position": place} for place in range(10)], 40)

    def with_shares(shares: list[float]) -> list[PointResult]:
        return [one._replace(right_rows=np.arange(40) < 40 * share) for one, share in zip(found, shares, strict=True)]

    gap = middle_gap(with_shares([0.9, 0.7, 0.5, 0.5, 0.2, 0.2, 0.5, 0.5, 0.7, 0.9]))
    assert math.isclose(gap.value, 0.6)
    assert 0.4 < gap.low < gap.value < gap.high < 0.8
    flat = middle_gap(with_shares([0.5] * 10))
    assert flat.value == 0
    assert flat.low < 0 < flat.high


def test_intervals_of_groups() -> None:
    """Positions of one row that hang together count as fewer."""
    problem = problem_of({"name": "group", "kind": "Z2", "length": 16})
    batch, tally = problem.batch(RandomStreams(1), "test", 0, 100), points.Tally()
    right = np.arange(100)[:, None] < 60  # whole rows
    tally.add(batch, np.where(right, batch.targets, 0), np.zeros(batch.inputs.shape))
    low, high = wilson(0.6, 99)
    share = tally.groups()["position"][0].accuracy
    assert share.value == tally.figures().accuracy.value == 0.6
    np.testing.assert_allclose(share[1:], (low, high))
    np.testing.assert_allclose(tally.figures().accuracy[1:], (low, high), atol=0.02)
    tally = points.Tally()
    tally.add(batch, batch.targets, np.zeros(batch.inputs.shape))
    assert tally.groups()["position"][0].accuracy == (1.0, *wilson(1.0, 100))
