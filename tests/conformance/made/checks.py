"""The checks: each takes a problem and fails by an assertion."""

import math
from typing import Any

import numpy as np

from unrolled.core.random import RandomStreams
from unrolled.data.made import Batch, Problem, shared_rows

__all__ = [
    "answers_by_another_road",
    "batches_by_number",
    "groups_are_all_there",
    "lengths_as_stated",
    "probs_are_a_distribution",
    "splits_share_nothing",
    "symbols_in_range",
]

_ROWS, _SEED = 200, 11


def a_batch(problem: Problem, rows: int = _ROWS, split: str = "train", number: int = 3) -> Batch:
    return problem.batch(RandomStreams(_SEED), split, number, rows)


def answers_by_another_road(problem: Problem) -> None:
    """Targets, weights and distributions are those that plain Python finds."""
    batch = a_batch(problem)
    found = problem.answers(batch)
    np.testing.assert_array_equal(found.weight, batch.weight)
    asked = batch.weight > 0
    assert asked.any(1).all(), "a row asks for nothing"
    np.testing.assert_array_equal(found.targets[asked], batch.targets[asked])
    assert (found.probs is None) == (batch.probs is None)
    if batch.probs is not None and found.probs is not None:
        np.testing.assert_allclose(found.probs[asked], batch.probs[asked], rtol=0, atol=1e-9)


def same(first: Batch, second: Batch) -> bool:
    arrays = [[batch.inputs, batch.targets, batch.weight, *batch.groups.values()] for batch in (first, second)]
    probs = [batch.probs for batch in (first, second) if batch.probs is not None]
    return all(np.array_equal(a, b) for a, b in zip(*arrays, strict=True)) and (
        not probs or np.array_equal(probs[0], probs[1])
    )


def batches_by_number(problem: Problem) -> None:
    """A batch depends on seed, split and number alone: on no batch before it, and on no global generator."""
    streams = RandomStreams(_SEED)
    np.random.seed(1)
    alone = problem.batch(streams, "train", 7, 6)
    np.random.seed(2)
    one_by_one = [type(problem)(problem.config).batch(streams, "train", number, 6) for number in range(8)]
    assert same(alone, one_by_one[-1])
    assert not any(same(alone, other) for other in one_by_one[:-1])
    assert not same(alone, problem.batch(streams, "valid", 7, 6))
    assert not same(alone, problem.batch(RandomStreams(_SEED + 1), "train", 7, 6))


def symbols_in_range(problem: Problem) -> None:
    """Ids are those of symbols with names of their own; every row begins with the start symbol; shapes and types."""
    batch, names = a_batch(problem), problem.symbols
    assert len(set(names)) == len(names)
    assert not any(name.split() != [name] for name in names)
    for ids in (batch.inputs, batch.targets):
        assert ids.dtype == np.int64
        assert ids.min() >= 0
        assert ids.max() < len(names)
    assert batch.inputs.shape == batch.targets.shape == batch.weight.shape
    assert batch.weight.dtype == np.float32
    assert (batch.inputs[:, 0] == problem.start_id).all()
    fed = batch.inputs[:, 1:] == batch.targets[:, :-1]
    asked = batch.weight[:, :-1] > 0
    if problem.fed:
        assert fed[asked].all(), "an answer is not the next input"
    elif asked.any():
        assert not fed[asked].all(), "answers are the next inputs, which `fed` should say"


def groups_are_all_there(problem: Problem) -> None:
    """Every value that a group is said to have appears where something is asked, and no other one."""
    wanted = {name: set(values) for name, values in problem.group_values().items()}
    seen: dict[str, set[int]] = {name: set() for name in wanted}
    for number in range(40):
        batch = a_batch(problem, number=number)
        asked = batch.weight > 0
        assert set(wanted) <= set(batch.groups)
        for name, value in batch.groups.items():
            assert value.shape == batch.inputs.shape
            assert (value[asked] >= 0).all(), name
            seen.setdefault(name, set()).update(np.unique(value[asked]).tolist())
        if number > 3 and all(seen[name] == wanted[name] for name in wanted):
            break
    assert {name: seen[name] for name in wanted} == wanted


def lengths_as_stated(problem: Problem) -> None:
    """Rows are as long as the problem says, at each end of its ranges and at its sweep's points."""
    points: list[dict[str, Any]] = [{name: value} for name, values in problem.sweep().items() for value in values]
    for one in (problem.shortest(), problem.longest(), *(problem.at(**point) for point in points)):
        for part in (one.shortest(), one.longest()):
            batch = part.make(np.random.default_rng(1), 2)
            assert batch.inputs.shape == (2, part.time())
    assert 0 < problem.chance() <= 1


def probs_are_a_distribution(problem: Problem) -> None:
    """Where there are exact distributions they sum to 1, give the drawn symbols mass, and the draws follow them."""
    batch = a_batch(problem)
    if batch.probs is None:
        return
    asked = batch.weight > 0
    probs, targets = batch.probs[asked], batch.targets[asked]
    assert batch.probs.shape == (*batch.inputs.shape, len(problem.symbols))
    assert probs.dtype == np.float64
    assert (probs >= 0).all()
    np.testing.assert_allclose(probs.sum(1), 1, rtol=0, atol=1e-12)
    given = probs[np.arange(len(targets)), targets]
    assert (given > 0).all()
    # the nats of the draws less those expected are a sum of steps without drift
    log = np.log(np.where(probs > 0, probs, 1))
    drift = log[np.arange(len(targets)), targets] - (probs * log).sum(1)
    spread = math.sqrt(float(((probs * log**2).sum(1) - (probs * log).sum(1) ** 2).sum()))
    assert abs(float(drift.sum())) <= 4 * spread + 1e-9


def splits_share_nothing(problem: Problem, rows: int = 300) -> None:
    """Where rows are so many that ten times ``rows`` are all different, hardly a row of validation is among them."""
    streams = RandomStreams(_SEED)
    seen = [row.tobytes() for number in range(10) for row in problem.batch(streams, "train", number, rows).inputs]
    if len(set(seen)) == len(seen):
        assert shared_rows(problem, streams, rows=rows) <= 2 / rows
        return
    # few rows exist: then they can be kept apart, unless they are so few that a split would be empty
    apart = [problem.batch(streams, split, 0, 40, apart=True) for split in ("train", "valid", "test")]
    parts = [{row.tobytes() for row in batch.inputs} for batch in apart]
    assert not parts[0] & parts[1]
    assert not parts[1] & parts[2]
