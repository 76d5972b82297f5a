"""Twin networks: who has read what, and what learns from what."""

import itertools
from typing import Any

import pytest
import torch
from torch import Tensor

from train.objective_material import B, T, V, make_model, make_window, objectives_of, term_of
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data import Window
from unrolled.train.objectives.twin import Twin, TwinConfig, reversed_window


def segments(reset: Tensor | None, row: int) -> list[range]:
    """The stretches of a row without a beginning inside."""
    begins = [0, *([] if reset is None else [t for t in range(1, T) if reset[row, t]]), T]
    return [range(low, high) for low, high in itertools.pairwise(begins)]


def slow(lm: Any, side: Any, batch: Window, blind: int, penalty: float) -> Tensor:
    """Position by position: the backward model reads what follows in the sentence, one token after another."""
    forward = lm(batch.inputs, None, batch.reset).raw
    total, apart, counted = forward.new_zeros(()), forward.new_zeros(()), 0.0
    for row in range(B):
        for part in segments(batch.reset, row):
            ends = part[-1] < T - 1
            for t in part:
                follow = batch.targets[row, t + 1 : part[-1] + 1].tolist()[::-1]
                read = ([0] if ends else []) + follow
                if not read:
                    continue  # the window's last position
                out = side["backward"](torch.tensor([read]))
                weight = 1.0 if batch.weight is None else batch.weight[row, t]
                log_prob = side["backward"].head.log_prob(out.raw[:, -1])[0]
                total = total - weight * log_prob[0, batch.targets[row, t]]
                if ends or len(follow) >= blind:
                    distance = (side["map"](forward[row, t]) - out.raw[0, -1].detach()).square().sum()
                    apart, counted = apart + weight * distance, counted + weight
    mean = apart / counted if counted else 0.0
    return total / (B * T if batch.weight is None else batch.weight.sum()) + penalty * mean


@pytest.mark.parametrize("resets", [False, True])
@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("blind", [0, 3, 100])
def test_it_is_the_slow_loop(resets: bool, weighted: bool, blind: int) -> None:
    lm, batch = make_model(), make_window(weighted, resets)
    objectives = objectives_of(lm, "twin", blind=blind, penalty=0.7)
    parameters = [*lm.parameters(), *objectives.parameters()]
    found, wanted = term_of(lm, objectives, batch), slow(lm, objectives.sides["twin"], batch, blind, 0.7)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)
    both = (
        torch.autograd.grad(value, parameters, allow_unused=True, materialize_grads=True) for value in (found, wanted)
    )
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_backward_model_learns_from_its_own_likelihood_alone() -> None:
    lm, batch = make_model(), make_window()
    grads = []
    for penalty in (0.0, 5.0):
        objectives = objectives_of(lm, "twin", penalty=penalty, blind=0)
        side: Any = objectives.sides["twin"]
        backward = list(side["backward"].parameters())
        grads.append(torch.autograd.grad(term_of(lm, objectives, batch), backward))
    for one, other in zip(*grads, strict=True):
        assert torch.equal(one, other)


def test_a_window_of_one_position_has_nothing_to_say() -> None:
    lm = make_model()
    assert float(term_of(lm, objectives_of(lm, "twin"), make_window(time=1)).detach()) == 0


def test_masks_are_its_own() -> None:
    """Dropout draws other masks backwards than forwards, and the same ones for the same batch."""
    lm, batch = make_model(dropout={"output": 0.5, "state": 0.3}), make_window()
    objectives = objectives_of(lm, "twin", penalty=0.0)
    values = [float(term_of(lm, objectives, batch, position).detach()) for position in (1, 1, 2)]
    assert values[0] == values[1] != values[2]
    twin = Twin(TwinConfig(), RandomStreams(1), lm)
    assert twin._masks.key("dropout.output", 1) != twin.streams.key("dropout.output", 1)


@pytest.mark.parametrize("values", [{"head": {"name": "mos", "components": 2}}, {"embedding": {"tied": True}}])
def test_it_shares_nothing_with_the_model(values: dict[str, Any]) -> None:
    lm = make_model(**values)
    own = {id(parameter) for parameter in lm.parameters()}
    assert not own & {id(parameter) for parameter in objectives_of(lm, "twin").parameters()}


def test_a_window_turned_round() -> None:
    """Two sentences, by hand: 1 2 3 | 4 5 with the start symbol 0."""
    inputs, targets = torch.tensor([[0, 1, 2, 0, 4]]), torch.tensor([[1, 2, 3, 4, 5]])
    reset = torch.tensor([[True, False, False, True, False]])
    turned = reversed_window(inputs, targets, reset, 2)
    assert turned.inputs.tolist() == [[5, 0, 3, 2]]
    assert turned.targets.tolist() == [[4, 3, 2, 1]]
    assert turned.reset is not None
    assert turned.reset.tolist() == [[False, True, False, False]]
    assert turned.counted.tolist() == [[True, True, True, False]]


def test_only_language_models() -> None:
    with pytest.raises(UsageError, match="twin needs a language model"):
        Twin(TwinConfig(), RandomStreams(1), torch.nn.Linear(2, V))
