"""Pointers along the text that neighbours come from: an automaton of twelve entries, worked by hand."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from unrolled.predict import Prediction, Predictor
from unrolled.predict.datastore import Datastore
from unrolled.predict.nearest import NeighboursConfig
from unrolled.predict.pointers import PointersPredictor

# Keys about 0 precede a, about 10 b, about 20 c; a text begins at entry 6, so that nothing follows 5, nor 11.
#             0   1   2  3   4  5   6  7   8   9  10 11
TOKENS = [0, 1, 2, 0, 1, 0, 2, 0, 1, 2, 1, 0]
KEYS = [0.0, 10, 20, 1, 11, 2, 21, 3, 12, 22, 13, 4]
NONE = 12
QUERIES, TEXT = [0.0, 10, 20, 0, 10, 20], [0, 1, 2, 0, 2, 2]


class Scripted(Predictor):
    """Hidden states by position, and the uniform distribution over three tokens."""

    vocab_size, start_id = 3, 0

    def begin(self, batch: int, first: Tensor | None = None) -> Any:
        return torch.zeros(batch, 1, dtype=torch.int64)

    def predict(self, state: Any) -> Prediction:
        hidden = torch.tensor([*QUERIES, 0.0], dtype=torch.float64)[state]
        return Prediction(torch.full((len(state), 3), -math.log(3), dtype=torch.float64), hidden)

    def observe(self, state: Any, ids: Tensor) -> Any:
        return state + 1


def automaton(**options: Any) -> PointersPredictor:
    config = NeighboursConfig.model_validate({"k": 3, "most": 8, "pointers": True, "weight": 0.5, "tau": 4, **options})
    store = Datastore(np.array(KEYS)[:, None], np.array(TOKENS), np.array([0, 6]))
    return PointersPredictor(Scripted(), config, store)


# pointers after each token, and whether it took a search
ONE = ([[1, 4], [2, 5], [3], [4], [], [3, 7, 10]], [1, 0, 0, 0, 0, 1])
THREE = ([[1, 4], [2, 2, 5, 5, 9], [3, 3, 10], [4, 4], [], [3, 7, 10]], [1, 1, 0, 0, 1, 1])
# without doubles the third token leaves two pointers, too few, so that the fourth takes a search; 3 is among what it
# finds, 10 is not and is added, and it was wrong
SINGLE = ([[1, 4], [2, 5, 9], [3, 10], [1, 4], [], [3, 7, 10]], [1, 1, 0, 1, 1, 1])


@pytest.mark.parametrize(
    ("options", "wanted"),
    [({}, ONE), ({"least": 3}, THREE), ({"least": 3, "doubles": False}, SINGLE)],
    ids=["least 1", "least 3", "no doubles"],
)
def test_twelve_entries(options: dict[str, Any], wanted: tuple[list[list[int]], list[int]]) -> None:
    predictor = automaton(**options)
    state, searches = predictor.begin(1), 0
    for t, token in enumerate(TEXT):
        predictor.predict(state)
        state = predictor.observe(state, torch.tensor([token]))
        assert [one for one in state.pointers[0].tolist() if one < NONE] == wanted[0][t], f"pointers after {t}"
        searches += wanted[1][t]
        assert predictor.told["neighbours"]["searches"] == searches, f"searches up to {t}"
    whole = automaton(**options)
    whole.window(whole.begin(1), torch.tensor([TEXT]))
    saved = 1 - sum(wanted[1]) / 6
    assert whole.told["neighbours"] == {"tokens": 6, "searches": sum(wanted[1]), "saved": pytest.approx(saved)}


def test_the_mass_of_doubles() -> None:
    """At the second token entries 1, 4 and 8 are found, at squared distances 0, 1 and 4, and 1 and 4 are pointers."""
    for doubles, times in ((True, 2), (False, 1)):
        predictor = automaton(least=3, doubles=doubles)
        state = predictor.observe(predictor.begin(1), torch.tensor([0]))
        used = predictor._used_at(state, torch.tensor([[10.0]], dtype=torch.float64))
        share = predictor.share(used.distances)[0]
        found = {entry: float(share[used.entries[0] == entry].sum()) for entry in (1, 4, 8)}
        mass = {1: times * 1.0, 4: times * math.exp(-1 / 4), 8: math.exp(-1)}
        assert found == pytest.approx({entry: value / sum(mass.values()) for entry, value in mass.items()})


def test_pointers_do_not_cross_a_reset() -> None:
    predictor, text = automaton(), torch.tensor([[0, 1, 1, 1]])
    reset = torch.tensor([[False, False, True, False]])
    predictor.window(predictor.begin(1), text, reset)
    assert predictor.told["neighbours"]["searches"] > 1
    without = automaton()
    without.window(without.begin(1), text[:, :2])
    assert without.told["neighbours"]["searches"] == 1


def test_the_nearest_are_kept() -> None:
    predictor = automaton(most=2, k=3)
    state = predictor.observe(predictor.begin(1), torch.tensor([0]))  # 0, 3 and 5 were right; 5 has no follower
    assert state.pointers.tolist() == [[1, 4]]
    predictor = automaton(most=1)
    state = predictor.observe(predictor.begin(1), torch.tensor([0]))
    assert state.pointers.tolist() == [[1]]
