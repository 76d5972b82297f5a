"""Clamped units against a plain loop that overwrites the state by hand."""

import math

import pytest
import torch

from unrolled.core.errors import UsageError
from unrolled.generate import SamplerConfig, generate
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import Clamp, ClampedPredictor, NeuralPredictor

CELLS = ["lstm", "mlstm", "gru", "rnn", "qrnn", "mogrifier"]


def small(cell: str, layers: int = 2) -> NeuralPredictor:
    """Random weights that are not near uniform, float64, 20 ids."""
    torch.manual_seed(4)
    config = {"width": 6, "layers": layers, "cell": cell}
    model = LanguageModel(ModelConfig.parse(config), 20).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.7 * torch.randn_like(parameter))
    return NeuralPredictor(model, 0)


def by_hand(predictor: NeuralPredictor, ids: list[int], clamp: Clamp) -> torch.Tensor:
    """Log-probabilities (time, V) after each of ids: layer by layer, a token at a time, overwriting in between."""
    model = predictor.model
    cells, found = list(model.initial_state(1).cells), []
    with torch.no_grad():
        for token in [predictor.start_id, *ids]:
            x = model.embedding(torch.tensor([[token]]))
            for i, cell in enumerate(model.stack.cells()):
                x, state = cell(x, cells[i])
                if i == clamp.layer:
                    whole = getattr(state, clamp.name).clone()
                    whole[0, clamp.unit] = clamp.value
                    state = state._replace(**{clamp.name: whole})
                    if clamp.name == "h":
                        x = whole.unsqueeze(1)
                cells[i] = state
            found.append(model.head.log_prob(x[:, 0])[0][0])
    return torch.stack(found)


@pytest.mark.parametrize("cell", CELLS)
@pytest.mark.parametrize("layer", [0, 1])
def test_every_step_is_overwritten(cell: str, layer: int) -> None:
    predictor = small(cell)
    for name in predictor.model.initial_state(1).cells[layer]._fields:
        clamp = Clamp(layer, name, 3, 1.7)
        if (cell, name) == ("qrnn", "x"):
            continue  # the qrnn remembers its input there
        clamped = ClampedPredictor(predictor, [clamp])
        ids = [4, 9, 9, 1, 17, 3]
        expected = by_hand(predictor, ids, clamp)
        state = clamped.begin(1)
        torch.testing.assert_close(clamped.predict(state).log_prob[0], expected[0], rtol=1e-12, atol=1e-12)
        for token, wanted in zip(ids, expected[1:], strict=True):
            state = clamped.observe(state, torch.tensor([token]))
            assert float(getattr(state.cells[layer], name)[0, 3]) == 1.7
            torch.testing.assert_close(clamped.predict(state).log_prob[0], wanted, rtol=1e-12, atol=1e-12)
        whole = clamped.distributions(clamped.begin(1), torch.tensor([ids]))[0][0]
        torch.testing.assert_close(whole, expected[:-1], rtol=1e-12, atol=1e-12)
        free = predictor.distributions(predictor.begin(1), torch.tensor([ids]))[0][0]
        assert (free - whole)[1:].abs().max() > 1e-3, "it makes a difference, and nothing stays on the model"


def test_a_unit_held_at_its_own_value_changes_nothing() -> None:
    predictor = small("lstm", 1)
    state = predictor.begin(1)
    own = float(state.cells[0].h[0, 2])
    clamped = ClampedPredictor(predictor, [Clamp(0, "h", 2, own)]).begin(1)
    torch.testing.assert_close(clamped, state, rtol=0, atol=0)
    twice = ClampedPredictor(predictor, [Clamp(0, "h", 2, 9.0), Clamp(0, "h", 2, own)]).begin(1)
    torch.testing.assert_close(twice, state, rtol=0, atol=0)


def test_generation_clamps_the_prompt_too(tokenizer, predictor) -> None:
    model = predictor("mlstm")
    greedy = SamplerConfig.parse({"temperature": 0})
    clamped = ClampedPredictor(model, [Clamp(0, "c", 1, 3.0)])
    ids = [tokenizer.encode("hello")]
    (text,) = generate(clamped, tokenizer, ("hello",), 12, greedy)
    for _ in range(12):
        ids[0].append(int(by_hand(model, ids[0], Clamp(0, "c", 1, 3.0))[-1].argmax()))
    assert text.tokens == ids[0][-12:]
    assert clamped.options == {"clamp": {"units": ["0.c.1=3.0"]}}


def test_the_form() -> None:
    assert Clamp.parse("0.c.17=1.5") == Clamp(0, "c", 17, 1.5)
    assert Clamp.parse("12.h.0=-2e-1") == Clamp(12, "h", 0, -0.2)
    for text in ("c.17=1", "0.c=1", "0.c.1", "0.c.1=", "0.c.1=x", "0.c.1=nan", "0.c.1=inf", "-1.c.1=1", "0.c.x=1"):
        with pytest.raises(UsageError, match=r"not of the form LAYER\.NAME\.UNIT=VALUE"):
            Clamp.parse(text)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("2.c.0=1", "no layer 2; its layers are 0 to 1"),
        ("0.q.0=1", "unknown state of layer 0: 'q'; known: c, h"),
        ("1.c.6=1", "c of layer 1 has no unit 6; its units are 0 to 5"),
    ],
)
def test_refusals(text: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        ClampedPredictor(small("lstm"), [Clamp.parse(text)])


def test_batches_are_clamped_in_every_row() -> None:
    predictor = small("gru", 1)
    clamped = ClampedPredictor(predictor, [Clamp(0, "h", 0, 0.5), Clamp(0, "h", 5, -0.5)])
    state = clamped.begin(3, torch.tensor([1, 2, 3]))
    assert state.cells[0].h[:, 0].tolist() == [0.5] * 3
    assert state.hidden[:, 5].tolist() == [-0.5] * 3
    nll = clamped.window(state, torch.tensor([[1, 2], [3, 4], [5, 6]])).nll
    assert nll.shape == (3, 2)
    assert math.isfinite(float(nll.sum()))
