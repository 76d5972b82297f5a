"""Texts side by side: any order gives the same, and one text gives what an ordinary pass gives."""

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from conformance.predictors.build import _tokenizer, counts, reader, source
from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor, PredictorConfig, adapt
from unrolled.predict.sets import SetsConfig, SetsPredictor, set_layout

PREFIX, PARTS, SUFFIX = [1, 2, 3, 4], [[5, 6], [7, 8, 9, 5], [1, 7, 2]], torch.tensor([[3, 8, 1, 6]])
KINDS: dict[str, dict[str, Any]] = {
    "rotary": {"name": "transformer", "positions": "rotary"},
    "alibi": {"name": "transformer", "positions": "alibi", "norm_first": False},
    "sinusoid": {"name": "transformer", "positions": "sinusoid"},
    "learned": {"name": "transformer", "positions": "learned", "places": 64},
    "none": {"name": "transformer", "positions": "none"},
    "window": {"name": "window_attention", "heads": 4, "groups": 2, "rotary_share": 0.5, "bias": "all"},
    "persistent": {"name": "window_attention", "positions": "none", "head_scale": True, "persistent": 2},
}


def model(kind: str, dtype: torch.dtype = torch.float64, **more: Any) -> NeuralPredictor:
    torch.manual_seed(3)
    cell = {"heads": 2, "context": 30, **KINDS[kind]}
    made = LanguageModel(ModelConfig.parse({"width": 8, "layers": 2, "cell": cell, **more}), 10)
    with torch.no_grad():
        for p in made.parameters():
            p.copy_(0.8 * torch.randn_like(p))
    return NeuralPredictor(made.to(dtype), 0)


def nats(inner: NeuralPredictor, parts: list[list[int]]) -> Tensor:
    predictor = SetsPredictor(inner, SetsConfig(), PREFIX, parts)
    return predictor.window(predictor.begin(1), SUFFIX).nll


@pytest.mark.parametrize(("dtype", "within"), [(torch.float64, 1e-12), (torch.float32, 1e-5)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_order_gives_the_same(kind: str, dtype: torch.dtype, within: float) -> None:
    inner = model(kind, dtype)
    found = torch.cat([nats(inner, list(order)) for order in itertools.permutations(PARTS)])
    assert float((found - found[0]).abs().max()) < within * float(found.abs().max())
    plain = []
    for order in itertools.permutations(PARTS):
        before = torch.tensor([[*PREFIX, *itertools.chain(*order), 0]])
        plain.append(inner.window(inner.consume(inner.begin(1), before), SUFFIX).nll)
    assert float((torch.cat(plain) - plain[0]).abs().max()) > 1e-2, "an ordinary pass depends on the order"


@pytest.mark.parametrize("kind", KINDS)
def test_one_text_is_an_ordinary_pass(kind: str) -> None:
    inner = model(kind)
    whole = torch.tensor([[0, *PREFIX, *PARTS[1], 0, *SUFFIX[0].tolist()]])
    with torch.no_grad():
        raw = inner.model(whole).raw[:, -5:]
    predictor = SetsPredictor(inner, SetsConfig(), PREFIX, [PARTS[1]])
    scores = predictor.window(predictor.begin(1), SUFFIX)
    assert scores.hidden is not None
    assert torch.equal(scores.hidden[:, 1:], raw[:, 1:-1])
    assert torch.equal(scores.state.hidden, raw[:, -1])


@pytest.mark.parametrize("kind", ["rotary", "learned", "window"])
def test_no_part_sees_another(kind: str) -> None:
    """The outputs at a part are those of an ordinary pass over the prefix and that part."""
    inner = model(kind)
    predictor = SetsPredictor(inner, SetsConfig(), PREFIX, PARTS)
    fixed = predictor._fixed.unsqueeze(0)
    with torch.no_grad(), predictor._laid_out(set_layout(5, [2, 4, 3], 0)):
        together = inner.model(fixed).raw
    begin = 5
    for part in PARTS:
        with torch.no_grad():
            alone = inner.model(torch.tensor([[0, *PREFIX, *part]])).raw[:, 5:]
        assert torch.allclose(together[:, begin : begin + len(part)], alone, atol=1e-12)
        begin += len(part)


def test_the_suffix_sees_all_by_hand() -> None:
    """One layer of one head without positions: a softmax over every token, written out."""
    torch.manual_seed(4)
    cell = {"name": "window_attention", "heads": 1, "context": 30, "positions": "none"}
    made = LanguageModel(ModelConfig.parse({"width": 6, "cell": cell}), 10).double()
    predictor = SetsPredictor(NeuralPredictor(made, 0), SetsConfig(), PREFIX, PARTS)
    found = predictor.window(predictor.begin(1), SUFFIX).state.hidden[0]
    tokens = torch.cat([predictor._fixed, torch.tensor([0]), SUFFIX[0]])
    named = dict(made.stack.cells()[0].named_parameters())
    with torch.no_grad():
        q, k, v = (made.embedding.weight[tokens] @ named["weight"].t()).chunk(3, 1)
        share = torch.softmax(k @ q[-1] / math.sqrt(6), 0)
        wanted = (share.unsqueeze(1) * v).sum(0) @ named["out"].t()
    assert torch.allclose(found, wanted, atol=1e-12)


def test_places() -> None:
    layout = set_layout(2, [1, 3], 2)
    assert layout.places.tolist() == [0, 1, 2, 2, 3, 4, 5, 6]
    assert layout.unseen is not None
    assert layout.unseen[3].tolist() == [False, False, True, False, False, False, False, False]
    assert not layout.unseen[6:].any()


@pytest.mark.parametrize("cell", ["lstm", "mega", "fox", "transformer, lstm", "transformer, retnet"])
def test_what_depends_on_order_is_refused(cell: str) -> None:
    made = LanguageModel(ModelConfig.parse({"width": 8, "layers": 1 + cell.count(","), "cell": cell}), 10)
    with pytest.raises(UsageError, match=f"{cell.split(', ')[-1]} depends on the order"):
        SetsPredictor(NeuralPredictor(made, 0), SetsConfig(), PREFIX, PARTS)


def test_hybrids_with_layers_without_memory_are_not() -> None:
    made = LanguageModel(ModelConfig.parse({"width": 8, "layers": 2, "cell": "window_attention, mlp"}), 10)
    assert SetsPredictor(NeuralPredictor(made, 0), SetsConfig(), PREFIX, PARTS).room > 0


def test_what_is_too_long() -> None:
    inner = model("rotary")
    predictor = SetsPredictor(inner, SetsConfig(), PREFIX, PARTS)
    assert predictor.room == 30 - 5 - 9
    predictor.window(predictor.begin(1), torch.ones(1, 15, dtype=torch.int64))
    with pytest.raises(UsageError, match="leaves 15 tokens"):
        predictor.window(predictor.begin(1), torch.ones(1, 16, dtype=torch.int64))
    with pytest.raises(UsageError, match="leaves nothing of the context"):
        SetsPredictor(inner, SetsConfig(), [1] * 20, PARTS)
    for config, said in (({"parts": ["ab", ""]}, "is empty"), ({"parts": ["x"]}, "'x'")):
        with pytest.raises(UsageError, match=said):
            adapt(reader(names=["sets"]), PredictorConfig.parse({"sets": config}), source)
    with pytest.raises(UsageError, match="leave out sets"):
        adapt(counts(), PredictorConfig.parse({"sets": ["ab"]}), source)
    assert _tokenizer().encode("ab")
