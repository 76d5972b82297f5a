"""Input vectors by spelling against a slow loop, word by word; kept tables; and a run."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch

import unrolled as ur
from unrolled.core.errors import UsageError
from unrolled.model import LanguageModel, ModelConfig, ModelState
from unrolled.model.spelling import BEGIN, END, Spelling
from unrolled.serve.hf.read import from_hugging_face

WORDS = [b"the", b"a", b"", b"\n", "naïve".encode(), b"extraordinarily", b"of", b"<unk>", b"cats", b"cat"]
SIZES = {"characters": 3, "widths": (1, 2, 5), "filters": (2, 3, 4), "length": 12}


def model(**options: Any) -> LanguageModel:
    torch.manual_seed(0)
    embedding = {"kind": "spelling", "size": 5, "scale": 1.0, "spelling": {**SIZES, **options}}
    made = LanguageModel(ModelConfig.parse({"width": 4, "embedding": embedding}), len(WORDS)).double()
    with torch.no_grad():
        assert made.embedding.spelling is not None
        made.embedding.spelling.filter_bias.normal_()
    made.embedding.use_pieces(WORDS)
    return made


@torch.no_grad()
def by_loop(part: Spelling, word: bytes) -> torch.Tensor:
    """The vector of one word, filter by filter and place by place."""
    signs = [BEGIN, *word[: part.config.length - 2], END]
    read = [part.characters[sign] for sign in signs]
    found = []
    for matrices in part.filters:
        for matrix in matrices:
            width = matrix.shape[1]
            padded = read + [torch.zeros_like(read[0])] * (width - len(read))
            places = range(len(padded) - width + 1)
            found.append(max(sum(float(matrix[:, j] @ padded[i + j]) for j in range(width)) for i in places))
    y = torch.tensor(found, dtype=torch.float64) + part.filter_bias
    y = y.clamp_min(0) if part.config.activation == "relu" else y.tanh()
    for matrix, bias in zip(part.highway, part.highway_bias, strict=True):
        z = matrix @ y + bias
        gate, new = 1 / (1 + (-z[: len(y)]).exp()), z[len(y) :].clamp_min(0)
        y = gate * new + (1 - gate) * y
    return part.projection @ y


@pytest.mark.parametrize("options", [{}, {"activation": "tanh", "highway": 0}, {"highway": 3, "length": 6}])
def test_table_and_lookup_are_the_loop(options: dict[str, Any]):
    made = model(**options)
    part = made.embedding.spelling
    assert part is not None
    wanted = torch.stack([by_loop(part, word) for word in WORDS])
    torch.testing.assert_close(made.embedding.table(), wanted, rtol=0, atol=1e-12)
    tokens = torch.tensor([[3, 3, 0, 9], [5, 1, 2, 9]])
    torch.testing.assert_close(made.embedding(tokens), wanted[tokens], rtol=0, atol=1e-12)
    single = made.float().embedding(tokens)
    torch.testing.assert_close(single.double(), wanted[tokens], rtol=0, atol=1e-6)
    made.eval()
    with torch.no_grad():
        torch.testing.assert_close(made.embedding(tokens), single, rtol=0, atol=1e-6)


def test_gradients_of_a_window_are_those_of_the_table():
    made = model()
    tokens = torch.tensor([[3, 3, 0, 9], [5, 1, 2, 9]])
    factor = torch.randn(2, 4, 5, dtype=torch.float64)
    own = list(made.embedding.parameters())
    looked = torch.autograd.grad((made.embedding(tokens) * factor).sum(), own)
    whole = torch.autograd.grad((made.embedding.table()[tokens] * factor).sum(), own)
    for a, b in zip(looked, whole, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


def test_the_table_is_kept_until_a_parameter_changes():
    made = model().eval()
    with torch.no_grad():
        first = made.embedding.spelling.table()  # type: ignore[union-attr]
        assert made.embedding.spelling.table() is first  # type: ignore[union-attr]
        other = copy.deepcopy(made)
        made.embedding.weight.mul_(1.5)
        assert (made.embedding.table() - first).abs().max() > 1e-3
        torch.testing.assert_close(other.embedding.table(), first, rtol=0, atol=0)
        assert made.float().embedding.table().dtype == torch.float32
    assert made.embedding.table().requires_grad, "with gradients it is made anew"


def test_a_word_outside_the_vocabulary_is_read():
    made = model()
    known, unknown = made.embedding.vectors_of([b"cat", b"catsy"])
    torch.testing.assert_close(known, made.embedding.table()[9], rtol=0, atol=1e-12)
    assert made.embedding.spelling is not None
    torch.testing.assert_close(unknown, by_loop(made.embedding.spelling, b"catsy"), rtol=0, atol=1e-12)
    out = made.run_stack(unknown.view(1, 1, 5))
    assert out.raw.shape == (1, 1, 4)
    with pytest.raises(UsageError, match="kind spelling"):
        LanguageModel(ModelConfig(), 10).embedding.vectors_of([b"a"])


def test_what_does_not_go_together_is_said():
    for parts, match in (
        ({"kind": "spelling", "tied": True}, "no matrix"),
        ({"spelling": {"characters": 4}}, "embedding.kind=spelling"),
        ({"kind": "spelling", "spelling": {"widths": [1, 2]}}, "as many numbers"),
        ({"kind": "spelling", "spelling": {"widths": [9], "filters": [3], "length": 8}}, "at most its length"),
    ):
        with pytest.raises(UsageError, match=match):
            ModelConfig.parse({"embedding": parts})
    silent = LanguageModel(ModelConfig.parse({"width": 4, "embedding": {"kind": "spelling"}}), 3)
    with pytest.raises(UsageError, match="was not told"):
        silent(torch.zeros(1, 1, dtype=torch.int64))
    with pytest.raises(UsageError, match="2 spellings"):
        silent.embedding.use_pieces([b"a", b"b"])


def test_a_run_is_opened_with_its_spellings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UNROLLED_CACHE", str(tmp_path / "cache"))
    text = tmp_path / "text"
    text.mkdir()
    for split in ("train", "valid", "test"):
        (text / f"{split}.txt").write_text("a b c d\nb a c\n" * 20)
    config = ur.ExperimentConfig.parse(
        {
            "corpus": {"path": str(text)},
            "tokenizer": {"name": "word"},
            "stream": {"columns": 2, "window": 6},
            "model": {"width": 6, "embedding": {"kind": "spelling", "spelling": SIZES}},
            "train": {"steps": 4, "validations": 1, "final_eval": False},
        }
    )
    run = ur.train(config, tmp_path / "run", device="cpu")
    opened = ur.load(run, device="cpu")
    assert isinstance(opened, LanguageModel)
    assert opened.embedding.spelling is not None
    assert opened.embedding.spelling.spellings.any()
    assert ur.generate(run, "a b", tokens=8, temperature=0)[0].text
    out = opened(torch.tensor([[0, 1]]))
    read = opened.run_stack(opened.embedding(torch.tensor([[0, 1]])), ModelState(opened.initial_state(1).cells))
    torch.testing.assert_close(out.raw, read.raw)


def test_an_export_for_transformers_has_the_spellings(tmp_path: Path):
    hf = pytest.importorskip("unrolled.hf", reason="transformers is not installed")
    own, tokens = model().float().eval(), torch.tensor([[1, 2, 9]])
    made = hf.UnrolledForCausalLM(hf.UnrolledConfig(unrolled=own.config.model_dump(mode="json"), vocab_size=len(WORDS)))
    made.lm.load_state_dict(own.state_dict())
    made.save_pretrained(tmp_path)
    read = from_hugging_face(tmp_path)
    theirs = hf.UnrolledForCausalLM.from_pretrained(tmp_path).eval()
    with torch.no_grad():
        wanted = own(tokens).raw
        torch.testing.assert_close(read(tokens).raw, wanted, rtol=0, atol=0)
        torch.testing.assert_close(theirs.lm(tokens).raw, wanted, rtol=0, atol=0)
