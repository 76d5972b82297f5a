"""Where a window holds more tokens than the vocabulary, the first layer projects the embedding's rows, once each."""

from typing import Any

import pytest
import torch

from unrolled.core.random import RandomStreams
from unrolled.kernels.cell_loop import TableInput
from unrolled.model import LanguageModel, ModelConfig
from unrolled.model.dropout import DropoutConfig

VOCABULARY = 7


def _model(**options: Any) -> LanguageModel:
    torch.manual_seed(1)
    return LanguageModel(ModelConfig(**{"width": 6, "layers": 2, **options}), VOCABULARY).double()


def _results(model: LanguageModel, tokens: torch.Tensor, masks: Any) -> list[torch.Tensor]:
    total, nll, _ = model.loss(tokens, tokens.roll(1, 1), masks=masks)
    parameters = [one for one in model.parameters() if one.requires_grad]
    grads = torch.autograd.grad(total, parameters, allow_unused=True)
    return [nll.detach(), *(one for one in grads if one is not None)]


@pytest.mark.parametrize(
    "options",
    [
        {"cell": "mlstm", "embedding": {"size": 4, "project": 5}},
        {"cell": "lstm", "embedding": {"tied": True}},
        {"cell": ["mrnn", "lstm"], "embedding": {"one_hot": True}},
        {"cell": {"name": "mogrifier", "rounds": 2}, "stack": {"kind": "sum"}},
    ],
    ids=lambda options: str(options["cell"]),
)
@pytest.mark.parametrize("rate", [0.0, 0.4])
def test_equals_the_lookup(monkeypatch: pytest.MonkeyPatch, options: dict[str, Any], rate: float) -> None:
    model = _model(**options)
    tokens = torch.randint(VOCABULARY, (3, 5), generator=torch.Generator().manual_seed(0))
    drawn = DropoutConfig(embedding=rate, output=rate)
    masks = model.draw_masks(3, 5, RandomStreams(0), 0, drawn)
    assert isinstance(model._input(tokens, masks), TableInput)
    found = _results(model, tokens, masks)
    monkeypatch.setattr("unrolled.model.blocks.Stack.takes_table", lambda self: False)
    assert not isinstance(model._input(tokens, masks), TableInput)
    torch.testing.assert_close(found, _results(model, tokens, masks), rtol=1e-12, atol=1e-12)


def test_only_where_it_saves_work() -> None:
    tokens = torch.zeros(3, 5, dtype=torch.long)
    plain = _model(cell="lstm")
    assert isinstance(plain._input(tokens, None), TableInput)
    assert not isinstance(plain._input(tokens[:, :2], None), TableInput)  # fewer tokens than rows
    dropped = plain.draw_masks(3, 5, RandomStreams(0), 0, DropoutConfig(input=0.5))
    assert not isinstance(plain._input(tokens, dropped), TableInput)  # a mask for each sequence
    for others in ({"cell": "qrnn"}, {"cell": "lstm", "stack": {"kind": "residual"}}):
        assert not isinstance(_model(**others)._input(tokens, None), TableInput)


@pytest.mark.parametrize("wrong", [-1, VOCABULARY])
def test_ids_outside_the_vocabulary_are_refused(wrong: int) -> None:
    tokens = torch.zeros(3, 5, dtype=torch.long)
    tokens[1, 2] = wrong
    with pytest.raises(IndexError):
        _model(cell="lstm")(tokens)
