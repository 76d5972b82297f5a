"""Phrase induction: the weights of the released code, phrases by hand, and the value as a loop."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from train.objective_material import B, T, make_model, make_window, objectives_of, term_of
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data import Window
from unrolled.train.objectives.phrase import Phrase, PhraseConfig, Phrases, phrase_weights

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "phrase_weights.json").read_text())


@pytest.mark.parametrize("row", GOLDEN["rows"], ids=["first", "second"])
def test_weights_of_the_released_code(row: dict[str, Any]) -> None:
    """tests/golden/phrase_weights.json: `TCN.forward` of github.com/luohongyin/PILM (8f34d45, ``.cuda()`` removed), in
    float64, with its parameters, one row at a time."""

    def tensor(values: Any) -> Tensor:
        return torch.tensor(values, dtype=torch.float64)

    side = Phrases(3, 4, 2, 5).double()
    with torch.no_grad():
        side.conv.copy_(tensor(GOLDEN["conv"]))
        side.conv_bias.copy_(tensor(GOLDEN["conv_bias"]))
        side.height.weight.copy_(tensor(GOLDEN["height"]))
        side.height.bias.copy_(tensor(GOLDEN["height_bias"]))
    heights = side.heights(tensor(row["embedded"]).unsqueeze(0), None)
    torch.testing.assert_close(heights[0], tensor(row["heights"]), rtol=0, atol=1e-12)
    weights, future = phrase_weights(heights)
    torch.testing.assert_close(weights[0, :-1], tensor(row["weights"]), rtol=0, atol=1e-12)
    assert future[0].tolist() == [True] * 8 + [False]


def test_the_released_weights_have_soft_steps() -> None:
    """So that the comparison is about more than which tokens a phrase has."""
    weights = torch.tensor([row["weights"] for row in GOLDEN["rows"]])
    assert int(((weights > 1e-4) & (weights < 0.05)).sum()) > 3


def phrases(heights: list[float], reset: list[bool] | None = None) -> list[set[int]]:
    """The tokens of the phrase after each position, by the rule."""
    found = []
    for i in range(len(heights)):
        phrase: set[int] = set()
        for j in range(i + 1, len(heights)):
            over = j > i + 1 and heights[j - 1] > heights[i] and heights[j - 1] > heights[j]
            if over or (reset and reset[j]):
                break
            phrase.add(j)
        found.append(phrase)
    return found


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize("resets", [False, True])
def test_hard_heights_give_the_phrases_of_the_rule(seed: int, resets: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    heights = torch.randperm(T, generator=generator).double()  # whole numbers apart: steps are 0 or 1
    reset = torch.rand(T, generator=generator) < 0.3 if resets else None
    weights, future = phrase_weights(heights.unsqueeze(0), None if reset is None else reset.unsqueeze(0))
    wanted = phrases(heights.tolist(), None if reset is None else reset.tolist())
    assert [{j for j in range(T) if weights[0, i, j] > 0} for i in range(T)] == wanted
    assert future[0].tolist() == [bool(phrase) for phrase in wanted]
    for i, phrase in enumerate(wanted):
        own = [float(heights[j] - heights.min()) + 10 for j in sorted(phrase)]
        torch.testing.assert_close(weights[0, i][sorted(phrase)], torch.tensor(own).double() / max(sum(own), 1))


def test_by_hand() -> None:
    """Heights 1 5 2 3 4 0 1: after position 0 the phrase is token 1 alone, since 5 is over 1 and over 2."""
    weights, _ = phrase_weights(torch.tensor([[1.0, 5, 2, 3, 4, 0, 1]]))
    found = [{j for j in range(7) if weights[0, i, j] > 0} for i in range(7)]
    assert found == [{1}, {2, 3, 4, 5, 6}, {3, 4}, {4}, {5, 6}, {6}, set()]


def slow(lm: Any, side: Phrases, batch: Window) -> Tensor:
    """Position by position, without dropout; the model has one layer."""
    embedded, context = lm.embedding(batch.inputs), lm(batch.inputs, None, batch.reset).raw
    total, counted = embedded.new_zeros(()), embedded.new_zeros(())
    for row in range(B):
        reset = None if batch.reset is None else batch.reset[row : row + 1]
        weights, future = phrase_weights(side.heights(embedded[row : row + 1], reset), reset)
        for i in range(T):
            if future[0, i]:
                mean: Any = sum(weights[0, i, j] * embedded[row, j] for j in range(T))
                own = torch.ones(()) if batch.weight is None else batch.weight[row, i]
                total = total + own * (1 - torch.sigmoid(context[row, i] @ side.map(mean)))
                counted = counted + own
    return total / counted


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("resets", [False, True])
def test_the_value_is_the_loop(weighted: bool, resets: bool) -> None:
    lm, batch = make_model(), make_window(weighted, resets)
    objectives = objectives_of(lm, "phrase", dropout=0.0)
    side: Any = objectives.sides["phrase"]
    found, wanted = term_of(lm, objectives, batch), 0.5 * slow(lm, side, batch)
    torch.testing.assert_close(found, wanted, rtol=1e-11, atol=1e-12)
    parameters = [*lm.embedding.parameters(), *lm.stack.parameters(), *side.parameters()]
    both = [torch.autograd.grad(one, parameters, materialize_grads=True, allow_unused=True) for one in (found, wanted)]
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


def test_the_context_is_what_the_last_layer_reads() -> None:
    """Of several layers, under its dropout; and the outputs of a model do not change for it."""
    lm, batch = make_model(layers=3, dropout={"between": 0.4}), make_window()
    plain = lm(batch.inputs)
    assert "below" not in plain.handed
    objectives = objectives_of(lm, "phrase", dropout=0.0)
    out = lm(batch.inputs)
    assert torch.equal(out.raw, plain.raw)
    read: list[Tensor] = []
    lm.stack.cells()[-1].register_forward_pre_hook(lambda _, given: read.append(given[0]))
    term_of(lm, objectives, batch)
    masked = [x for x in read if bool((x == 0).any())]
    assert masked, "dropout lies on it"
    one = make_model()
    objectives_of(one, "phrase")
    assert "below" not in one(batch.inputs).handed


def test_a_sentence_of_one_token_and_a_window_of_one() -> None:
    lm = make_model()
    assert float(term_of(lm, objectives_of(lm, "phrase"), make_window(time=1)).detach()) == 0
    batch = make_window()
    alone = batch._replace(reset=torch.ones(B, T, dtype=torch.bool))
    assert float(term_of(lm, objectives_of(lm, "phrase"), alone).detach()) == 0


def test_only_language_models() -> None:
    with pytest.raises(UsageError, match="phrase needs a language model"):
        Phrase(PhraseConfig(), RandomStreams(1), torch.nn.Linear(2, 2))
