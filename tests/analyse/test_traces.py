"""Traces of a passage: rows, losses, selections, files, memory, and where the text comes from."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from families import cells_by_family
from unrolled.analyse import (
    Passage,
    Selection,
    collect_trace,
    passage_of,
    passage_text,
    read_nats,
    save_trace,
    sites,
    trace_passage,
)
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.tree import load_tensors
from unrolled.data import TokenSplit
from unrolled.predict import NeuralPredictor
from unrolled.tokenizer import TOKENIZERS, Tokenizer

Make = Callable[..., NeuralPredictor]
Text = Callable[..., TokenSplit]


@pytest.mark.parametrize("cell", cells_by_family())
def test_every_cell_against_the_plain_loop(predictor: Make, text: Text, cell: str) -> None:
    """Each text read from its start symbol on, one token after another."""
    model, split = predictor(cell), text(180, starts=[0, 140, 141])
    passage = passage_of(split)
    found = collect_trace(model, passage)
    assert set(found.values) == set(sites(model))
    for low, high in ((0, 140), (140, 141), (141, 180)):
        ids = split.ids(low, high).tolist()
        inputs = torch.tensor([[model.start_id, *ids]])
        steps = list(model.model.trace(inputs))
        with torch.no_grad():
            raw = model.model(inputs).raw[0]
            log_prob, _ = model.model.head.log_prob(raw)
        for t, token in enumerate(ids):
            assert found.nats[low + t] == pytest.approx(-float(log_prob[t, token]), abs=1e-9)
            for key, value in steps[t + 1].items():
                np.testing.assert_allclose(
                    found.values[key][low + t], value[0].numpy(), rtol=1e-6, atol=1e-6, err_msg=key
                )
    assert read_nats(model, passage) == pytest.approx(found.nats, abs=1e-9)


def test_a_selection(predictor: Make, text: Text) -> None:
    model, passage = predictor("lstm"), passage_of(text(200))
    everything = collect_trace(model, passage)
    found = collect_trace(model, passage, Selection(layers=(1,), names=("c", "f"), units=(4, 0)))
    assert set(found.values) == {"1.c", "1.f"}
    for key, value in found.values.items():
        assert np.array_equal(value, everything.values[key][:, [4, 0]])
    assert set(collect_trace(model, passage, Selection(names=("h",))).values) == {"0.h", "1.h"}


def test_memory_does_not_grow(predictor: Make, text: Text) -> None:
    """Windows of one size, however long the text."""
    sizes = {len(part.ids) for part in trace_passage(predictor("lstm"), passage_of(text(1024)))}
    assert sizes == {128}


def test_what_does_not_fit_is_refused(predictor: Make, text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unrolled.analyse.tracing.free_memory", lambda: 200 * 4 * 6 * 2)
    model, passage = predictor("lstm"), passage_of(text(200))
    with pytest.raises(UsageError, match=r"12 units over 201 tokens are 0.0 MB, more than half"):
        collect_trace(model, passage_of(text(201)), Selection(names=("h",)))
    collect_trace(model, passage, Selection(names=("h",), layers=(0,)))
    with pytest.raises(UsageError, match=r"120 units over 200 tokens are 0.1 MB"):
        collect_trace(model, passage)


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        ({"layers": (2,)}, "no layer 2; its layers are 0 to 1"),
        ({"names": ("forget",)}, "unknown internal 'forget'"),
        ({"units": (6,)}, "has no unit 6; its units are 0 to 5"),
    ],
)
def test_what_is_not_there(predictor: Make, text: Text, selection: dict, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        collect_trace(predictor("lstm"), passage_of(text(20)), Selection.parse(selection))


def test_a_loss_that_is_no_number(predictor: Make, text: Text) -> None:
    model = predictor("lstm")
    with torch.no_grad():
        model.model.head.weight[0, 0] = float("nan")  # type: ignore[index]
    for read in (collect_trace, read_nats):
        with pytest.raises(UnrolledError, match="the loss of token 1 is not a finite number"):
            read(model, passage_of(text(20)))


@pytest.mark.parametrize("kind", [".npz", ".safetensors"])
def test_files(predictor: Make, text: Text, tokenizer: Tokenizer, tmp_path: Path, kind: str) -> None:
    passage = passage_of(text(50))
    trace = collect_trace(predictor("gru"), passage, Selection(names=("h", "z")))
    save_trace(tmp_path / f"x{kind}", trace, passage_text(tokenizer, passage))
    if kind == ".npz":
        read = dict(np.load(tmp_path / "x.npz", allow_pickle=False))
    else:
        read = {key: value.numpy() for key, value in load_tensors(tmp_path / "x.safetensors").items()}
    assert set(read) == {"0.h", "0.z", "1.h", "1.z", "ids", "nats", "text", "ends"}
    for key, value in trace.values.items():
        assert np.array_equal(read[key], value)
    assert np.array_equal(read["ids"], passage.ids)
    assert np.array_equal(read["nats"], trace.nats)
    pieces = np.split(read["text"], read["ends"])[:-1]
    assert [bytes(piece) for piece in pieces] == [tokenizer.pieces[token] for token in passage.ids.tolist()]
    with pytest.raises(UsageError, match=r"x.csv ends neither in .npz nor in .safetensors"):
        save_trace(tmp_path / "x.csv", trace, passage_text(tokenizer, passage))


def test_text_of_words(tokenizer: Tokenizer) -> None:
    """A word stands with the space before it, unless it begins a line or text."""
    cls = TOKENIZERS["word"]
    words = cls.train(cls.Config.parse({"name": "word", "min_count": 1}), [b"a bc d\nbc a\n"])
    ids = np.array(words.encode("a bc\nd a"))
    text = passage_text(words, Passage(np.concatenate([ids, ids]), np.array([0, len(ids)]), {}))
    assert bytes(text.data) == b"a bc\nd aa bc\nd a"
    assert text.ends.tolist() == [1, 4, 5, 6, 8, 9, 12, 13, 14, 16]
    letters = passage_text(tokenizer, Passage(np.array(tokenizer.encode("ab c")), np.zeros(1, np.int64), {}))
    assert (bytes(letters.data), letters.ends.tolist()) == (b"ab c", [1, 2, 3, 4])


def test_where_texts_begin(text: Text) -> None:
    passage = passage_of(text(100, starts=[30, 60]), 50)
    assert passage.starts.tolist() == [0, 30]
    assert passage.segments(20) == [(0, 20, True), (20, 30, False), (30, 50, True)]
    assert passage.origin == {"text_sha256": "abc", "tokens": 50}
    assert json.dumps(passage.origin)
