"""What the page holds of a model, decoded again, against the model itself."""

import base64
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from unrolled.analyse.page.data import PageConfig, groups_of, page_model, quantise
from unrolled.analyse.page.text import losses_of
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.data.reading import Part
from unrolled.predict import NeuralPredictor
from unrolled.tokenizer import TOKENIZERS, Tokenizer
from unrolled.tokenizer.byte import ByteTokenizer

TEXT = "abc de\nfgh  ij\n\nkl abba l"


def part(text: str = TEXT) -> Part:
    return Part("a text", make=text.encode)


def unpack(packed: dict[str, str]) -> np.ndarray:
    return np.frombuffer(base64.b64decode(packed["data"]), np.dtype(packed["type"]).newbyteorder("<"))


def made(model: NeuralPredictor, tokenizer: Tokenizer, budget: float = 1e6, text: str = TEXT, **options: Any) -> Any:
    config = PageConfig.parse(options)
    losses = losses_of(model.model, tokenizer, part(text), config.alternatives)
    return page_model("it", model.model, tokenizer, losses, config, budget), losses


CELLS = ("lstm", "mlstm", "gru", "rnn", "qrnn", "mogrifier")
SEVERAL = [pytest.param(cell, 42, marks=() if cell in ("rnn", "qrnn") else pytest.mark.slow) for cell in CELLS]


@pytest.mark.parametrize(("cell", "times"), [*((cell, 1) for cell in CELLS), *SEVERAL])
def test_values_are_the_models_own(
    cell: str, times: int, predictor: Callable[..., NeuralPredictor], tokenizer: Tokenizer
) -> None:
    """In a text of one window, and in one of several, which are traced side by side."""
    model, text = predictor(cell), TEXT * times
    page, losses = made(model, tokenizer, text=text)
    ids = tokenizer.encode(text)
    assert losses.text == text
    assert losses.ids.tolist() == ids
    assert losses.offsets.tolist() == list(range(len(text)))
    assert (len(losses.windows) > 3) == (times == 42)
    traced = list(model.model.trace(torch.tensor([[tokenizer.start_id, *ids]])))[1:]
    names = set()
    for group in page.value["groups"]:
        assert group["units"] == list(range(group["width"]))
        for name, series in group["series"].items():
            names.add(f"{group['layer']}.{name}")
            wanted = torch.stack([step[f"{group['layer']}.{name}"][0] for step in traced]).numpy()
            low, high = np.array(series["low"]), np.array(series["high"])
            steps = np.stack([unpack({"type": "uint8", "data": data}) for data in series["data"]], 1)
            found = low + steps * (high - low) / 255
            assert (np.abs(found - wanted) <= (high - low) / 510 + 1e-5).all()
            np.testing.assert_allclose(series["variance"], wanted.var(0), rtol=1e-3, atol=1e-9)
    assert names == {name for name in traced[0] if not name.endswith("_pre")}
    assert page.note is None
    assert (page.kept, page.tokens) == (page.total, len(ids))


def test_losses_and_alternatives(predictor: Callable[..., NeuralPredictor], tokenizer: Tokenizer) -> None:
    model = predictor("lstm")
    page, losses = made(model, tokenizer, alternatives=3)
    ids = torch.tensor([tokenizer.encode(TEXT)])
    log_prob = model.distributions(model.begin(1), ids)[0][0] / np.log(2)
    own = -log_prob.gather(1, ids.T)[:, 0].numpy()
    np.testing.assert_allclose(losses.bits, own, rtol=1e-12)
    assert np.abs(unpack(page.value["bits"]) / 1024 - own).max() <= 1 / 2048
    words = page.value["vocabulary"]
    assert [words[i] for i in unpack(page.value["ids"])] == [tokenizer.token(int(i)) for i in ids[0]]
    best = log_prob.topk(3, 1)
    assert page.value["alternatives"] == 3
    top = unpack(page.value["top"]).reshape(-1, 3)
    assert [[words[i] for i in row] for row in top] == [[tokenizer.token(i) for i in r] for r in best.indices.tolist()]
    kept = unpack(page.value["topBits"]).reshape(-1, 3) / 16
    assert np.abs(kept + best.values.numpy())[best.values.numpy() > -15.9].max() <= 1 / 32


@pytest.mark.parametrize("text", ["é€😀x\ny😀", "a\n"])
def test_places_are_counted_as_a_browser_does(text: str) -> None:
    """Every byte's place is in UTF-16 units; bytes inside a character stand at the character's end."""
    from unrolled.model import LanguageModel, ModelConfig

    tokenizer = ByteTokenizer()
    model = LanguageModel(ModelConfig.parse({"width": 4}), 256)
    losses = losses_of(model, tokenizer, part(text))
    page = page_model("it", model, tokenizer, losses, PageConfig(), 1e6)
    begun = np.cumsum([0, *(len(sign.encode("utf-16-le")) // 2 for sign in text)])  # units before each character
    wanted = []
    for number, sign in enumerate(text):
        size = len(sign.encode())
        wanted += [begun[number]] + [begun[number + 1]] * (size - 1)
    assert unpack(page.value["offsets"]).tolist() == wanted


def test_words_and_their_spaces() -> None:
    from unrolled.model import LanguageModel, ModelConfig

    cls = TOKENIZERS["word"]
    tokenizer = cls.train(cls.Config.parse({"name": "word"}), [b"the cat sat\n"])
    losses = losses_of(
        LanguageModel(ModelConfig.parse({"width": 4}), tokenizer.vocab_size), tokenizer, part("the  dog sat\nthe")
    )
    assert losses.offsets.tolist() == [0, 5, 9, 12, 13, 16]


def test_quantisation() -> None:
    values = np.array([[0.0, -3.0, 7.0], [1.0, 5.0, 7.0], [0.5, 1.0, 7.0]], np.float32)
    steps, low, high = quantise(values)
    assert (low.tolist(), high.tolist()) == ([0, -3, 7], [1, 5, 7])
    assert steps.dtype == np.uint8
    assert np.abs(low + steps * (high - low) / 255 - values).max() <= 8 / 510 + 1e-6
    assert steps[:, 2].tolist() == [0, 0, 0]


def test_units_that_vary_most_are_kept(predictor: Callable[..., NeuralPredictor], tokenizer: Tokenizer) -> None:
    model = predictor("lstm")
    whole, _ = made(model, tokenizer)
    two, _ = made(model, tokenizer, units=2)
    for everything, group in zip(whole.value["groups"], two.value["groups"], strict=True):
        variance = everything["series"]["c"]["variance"]
        assert group["units"] == sorted(range(6), key=lambda u: -variance[u])[:2]
        assert group["series"]["h"]["data"] == [everything["series"]["h"]["data"][u] for u in group["units"]]
    assert (two.kept, two.total, two.note) == (4, 12, None)
    chosen, _ = made(model, tokenizer, units=0, chosen=("1.4",), internals=("0.h", "1.c"))
    (group,) = chosen.value["groups"]
    assert (group["layer"], group["units"], list(group["series"])) == (1, [4], ["c"])
    assert made(model, tokenizer, units=0)[0].value["groups"] == []


def test_what_does_not_fit_is_said(predictor: Callable[..., NeuralPredictor], tokenizer: Tokenizer) -> None:
    model = predictor("lstm")
    text = TEXT * 100
    size = len(str(made(model, tokenizer, units=0, text=text)[0].value))
    page, _ = made(model, tokenizer, budget=size + 60_000, text=text)
    assert 0 < page.kept < page.total
    assert f"the page holds {page.kept} of the 12 units of it, those that vary most; raise --megabytes" in page.note
    assert len(str(page.value)) < size + 60_000
    with pytest.raises(UsageError, match="ask for fewer --units or --internals"):
        made(model, tokenizer, budget=size + 60_000, text=text, units=6)
    with pytest.raises(UsageError, match="ask for fewer"):
        made(model, tokenizer, budget=size + 20_000, text=text, units=0, chosen=("0.1", "0.2", "1.1"))
    with pytest.raises(UsageError, match=r"without any unit, and may take 0\.0; raise --megabytes"):
        made(model, tokenizer, budget=1000, text=text)


def test_refusals(predictor: Callable[..., NeuralPredictor], tokenizer: Tokenizer) -> None:
    model = predictor("gru")
    with pytest.raises(UsageError, match=r"unknown internal '0\.c'; did you mean '0\."):
        groups_of(model.model, ["0.c"])
    for odd in ("0.6", "2.1", "c.1", "0", "0.x"):
        with pytest.raises(UsageError, match="there is no unit"):
            made(model, tokenizer, chosen=(odd,))
    with pytest.raises(UsageError, match="a text is empty"):
        losses_of(model.model, tokenizer, part(""))
    with torch.no_grad():
        model.model.embedding.weight[tokenizer.encode("b")] = torch.nan
    with pytest.raises(UnrolledError, match="not a finite number"):
        made(model, tokenizer)
