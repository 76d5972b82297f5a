"""The probe of memory against plain loops: pasts read one by one, gradients by differences, sums over time."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from families import cells_by_family
from unrolled.analyse import MemoryConfig, MemoryUse, autocorrelation, measure_memory, memory_record, passage_of
from unrolled.analyse.memory.measure import draw_places
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data import TokenSplit
from unrolled.predict import NeuralPredictor

Make = Callable[..., NeuralPredictor]
Text = Callable[..., TokenSplit]


def config(**changes: object) -> MemoryConfig:
    return MemoryConfig.parse({"places": 7, "gradients": 3, "longest": 11, "lags": 6, "batch": 4, **changes})


def plain_nats(model: NeuralPredictor, past: list[int], target: int) -> float:
    inputs = torch.tensor([[model.start_id, *past]])
    with torch.no_grad():
        log_prob, _ = model.model.head.log_prob(model.model(inputs).raw[:, -1])
    return -float(log_prob[0, target])


def plain_norm(model: NeuralPredictor, past: list[int], target: int, lag: int) -> float:
    """By central differences of the loss in every direction of one embedding."""
    net, step = model.model, 1e-6
    with torch.no_grad():
        vectors = net.embedding(torch.tensor([[model.start_id, *past]]))

        def loss(vectors: torch.Tensor) -> float:
            raw, _ = net.stack(vectors, net.initial_state(1).cells)
            return -float(net.head.log_prob(raw[:, -1])[0][0, target])

        slopes = []
        for direction in range(vectors.shape[-1]):
            move = torch.zeros_like(vectors)
            move[0, -lag, direction] = step
            slopes.append((loss(vectors + move) - loss(vectors - move)) / (2 * step))
    return math.sqrt(sum(slope * slope for slope in slopes))


@pytest.mark.parametrize("cell", cells_by_family())
def test_equals_the_plain_loops(predictor: Make, text: Text, cell: str) -> None:
    model, split, how = predictor(cell), text(90, starts=[0, 40]), config()
    found = measure_memory(model, passage_of(split), how)
    ids = split.ids(0, 90).tolist()
    assert how.contexts() == [1, 2, 4, 8, 11]
    assert found.truncated.shape == (7, 5)
    assert found.gradients.shape == (3, 6)
    for row, place in enumerate(found.places.tolist()):
        begin = 0 if place < 40 else 40
        assert place - begin >= 11
        assert found.whole[row] == pytest.approx(plain_nats(model, ids[begin:place], ids[place]), abs=1e-9)
        for column, context in enumerate(how.contexts()):
            expected = plain_nats(model, ids[place - context : place], ids[place])
            assert found.truncated[row, column] == pytest.approx(expected, abs=1e-9)
    for row, place in enumerate(found.places[:3].tolist()):
        for lag in range(1, 7):
            expected = plain_norm(model, ids[place - 11 : place], ids[place], lag)
            assert found.gradients[row, lag - 1] == pytest.approx(expected, rel=1e-4, abs=1e-8)
    assert {key.split(".")[1] for key in found.autocorrelation} >= {"h"}
    assert not model.model.embedding._forward_hooks
    assert all(parameter.grad is None for parameter in model.model.parameters())


def test_autocorrelation_is_the_sum() -> None:
    draw = np.random.default_rng(0)
    values = np.cumsum(draw.normal(size=(50, 70)), 0)
    values[:, 3] = 2.0
    plain = np.zeros((70, 9))
    for unit in range(70):
        x = values[:, unit] - values[:, unit].mean()
        plain[unit] = [(x[: 50 - j] * x[j:]).sum() / (x * x).sum() if unit != 3 else 0 for j in range(9)]
    found = autocorrelation(values, 8)
    assert found == pytest.approx(plain.sum(0) / 69, abs=1e-12)
    assert found[0] == pytest.approx(1)
    assert not autocorrelation(values[:, 3:4], 8).any()


def test_a_cell_that_forgets_everything_remembers_one_token(predictor: Make, text: Text) -> None:
    """A QRNN that writes all of c anew at each step."""
    model = predictor("qrnn")
    with torch.no_grad():
        for cell in model.model.stack.cells():
            bias = cell.get_parameter("bias")
            bias[6:12] = 60.0  # the share that is written is 1
    found = measure_memory(model, passage_of(text(90)), config())
    assert found.truncated[:, 0] == pytest.approx(found.whole, abs=1e-9)
    assert (found.gradients[:, 0] > 0).all()
    assert not found.gradients[:, 1:].any()
    (run,) = memory_record([found])["runs"]
    assert run["effective_length"] == 1
    assert run["gradient_lags"] == {"half": 2, "tenth": 2, "hundredth": 2}


def test_the_batch_changes_nothing_and_the_settings_act(predictor: Make, text: Text) -> None:
    model, passage = predictor("mlstm"), passage_of(text(300))
    usual = measure_memory(model, passage, config())
    other = measure_memory(model, passage, config(batch=100))
    assert other.truncated == pytest.approx(usual.truncated, abs=1e-12)
    assert other.gradients == pytest.approx(usual.gradients, abs=1e-12)
    assert not np.array_equal(measure_memory(model, passage, config(seed=2)).places, usual.places)
    assert measure_memory(model, passage, config(longest=16)).truncated.shape == (7, 5)
    assert measure_memory(model, passage, config(longest=1, lags=9)).gradients.shape == (3, 9)


def use(excess: list[list[float]], gradients: list[list[float]], curve: list[float]) -> MemoryUse:
    truncated = math.log(2) * np.array(excess) + 1.0
    places = np.arange(len(excess))
    how = config(longest=4, lags=len(curve) - 1)
    return MemoryUse(
        "x", how, places, truncated, np.ones(len(excess)), np.array(gradients), {"0.h": np.array(curve)}, {}
    )


def test_what_is_read_off_the_curves() -> None:
    excess = [[0.5, 0.004, 0.1], [0.3, 0.005, 0.1], [0.4, 0.003, 0.1]]
    (run,) = memory_record([use(excess, [[4.0, 3.0, 1.0, 0.2, 0.04, 0.03]] * 2, [1.0, 0.5, 0.36, 0.1, 0.0, 0.0, 0.0])])[
        "runs"
    ]
    assert run["effective_length"] is None, "longer pasts are worse again"
    assert run["gradient_lags"] == {"half": 3, "tenth": 4, "hundredth": 6}
    assert run["autocorrelation_lags"] == {"0.h": 2}
    first = run["contexts"][0]
    assert first["context"] == 1
    assert first["mean"] == pytest.approx(0.4)
    assert first["high"] - first["mean"] == pytest.approx(1.959964 * 0.1 / math.sqrt(3))
    assert run["whole_bits"] == pytest.approx(1 / math.log(2))
    excess = [[0.5, 0.004, 0.001], [0.3, 0.005, 0.001], [0.4, 0.003, 0.001]]
    (run,) = memory_record([use(excess, [[4.0, 3.0, 2.5, 2.1]] * 2, [1.0, 0.9, 0.8, 0.7, 0.6])])["runs"]
    assert run["effective_length"] == 2
    assert run["gradient_lags"] == {"half": None, "tenth": None, "hundredth": None}
    assert run["autocorrelation_lags"] == {"0.h": None}
    excess = [[0.5, 0.1, 0.0], [0.5, -0.1, 0.0], [0.5, 0.0, 0.0]]
    (run,) = memory_record([use(excess, [[1.0, 1.0]] * 2, [1.0, 0.9])])["runs"]
    assert run["effective_length"] == 4, "a mean within the tolerance is not enough where the interval is wide"


def test_progress(predictor: Make, text: Text) -> None:
    heard: list[tuple[int, int]] = []
    how = config(gradients=5)
    measure_memory(predictor("lstm"), passage_of(text(90)), how, lambda done, total, nats: heard.append((done, total)))
    assert heard[-1] == (90 + 7 * 26 + 5 * 11,) * 2
    assert heard == sorted(heard)
    assert len(heard) == 1 + 5 * 2 + 2


def test_refusals(predictor: Make, text: Text) -> None:
    message = r"only 9 tokens have 11 tokens of their text before them and 20 are wanted"
    with pytest.raises(UsageError, match=message):
        draw_places(passage_of(text(20)), config(places=20))
    assert sorted(draw_places(passage_of(text(20)), config(places=9)).tolist()) == list(range(11, 20))
    model = predictor("lstm")
    with torch.no_grad():
        model.model.head.weight[0, 0] = float("nan")  # type: ignore[index]
    with pytest.raises(UnrolledError, match="not a finite number"):
        measure_memory(model, passage_of(text(60)), config())
