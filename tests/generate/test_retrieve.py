"""Documents by their passages: a planted one is found, what is emitted occurs, scores by hand."""

import math

import pytest
import torch
from torch import Tensor

from generate.ended import Letters, random_predictor
from unrolled.core.errors import UsageError
from unrolled.generate import BeamConfig, SamplerConfig, beam_search, generate
from unrolled.generate.constraints.corpus import CorpusConfig, index_of, read_documents
from unrolled.generate.retrieve import RetrieveConfig, retrieve
from unrolled.predict import Prediction, Predictor

V = 12


class Says(Predictor):
    """Says one passage with certainty but for a little, whatever was read; then anything."""

    vocab_size, start_id, gives_hidden = V, V - 1, False

    def __init__(self, passage: list[int]):
        self.passage = passage

    def begin(self, batch: int, first: Tensor | None = None) -> Tensor:
        return torch.zeros(batch, dtype=torch.int64)

    def predict(self, state: Tensor) -> Prediction:
        weights = torch.ones(len(state), V, dtype=torch.float64)
        for row, said in enumerate(state.tolist()):
            if said < len(self.passage):
                weights[row, self.passage[said]] = 200.0
        return Prediction(torch.log(weights / weights.sum(1, keepdim=True)), None)

    def observe(self, state: Tensor, ids: Tensor) -> Tensor:
        wanted = torch.tensor([*self.passage, -1])[state.clamp(max=len(self.passage))]
        return torch.where(ids == wanted, state + 1, torch.full_like(state, 99))


def documents(seed: int) -> list[str]:
    drawn = torch.randint(0, V - 1, (200, 25), generator=torch.Generator().manual_seed(seed))
    return ["".join(chr(97 + one) for one in row) for row in drawn.tolist()]


@pytest.mark.parametrize("seed", range(10))
def test_a_planted_passage_is_found(seed: int) -> None:
    texts, tokenizer = documents(seed), Letters(V)
    drawn = torch.Generator().manual_seed(seed + 100)
    passage = torch.randint(0, V - 1, (4,), generator=drawn).tolist()
    place = int(torch.randint(0, 20, (1,), generator=drawn))
    planted = tokenizer.decode(passage)
    texts[77] = texts[77][:place] + planted + texts[77][place + 4 :]
    index = index_of(texts, tokenizer)
    found = retrieve(Says(passage), tokenizer, index, "", 5, RetrieveConfig(beams=5, tokens=6))
    assert found[0].number in {i for i, text in enumerate(texts) if planted in text}
    for one in found:
        assert all(part in texts[one.number] for part, _ in one.passages)
    assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)


def test_scores_by_hand() -> None:
    """Two documents, passages of two tokens, and the formulas written out."""
    texts, tokenizer = ["ab", "ca"], Letters(V)
    index = index_of(texts, tokenizer)
    model = Says(tokenizer.encode("ca"))
    found = retrieve(model, tokenizer, index, "", 5, RetrieveConfig(beams=9, tokens=2, power=2, cover=0.8))

    def weight(text: str, count: int) -> float:
        ids = torch.tensor([tokenizer.encode(text)])
        p, q = math.exp(-float(model.window(model.begin(1), ids).nll.sum())), count / 4
        return max(0.0, math.log(p * (1 - q) / (q * (1 - p))))

    weights = {text: weight(text, count) for text, count in (("a", 2), ("b", 1), ("c", 1), ("ab", 1), ("ca", 1))}
    wanted: dict[int, float] = {}
    for number, text in enumerate(texts):
        parts = [part for part in weights if part in text and weights[part] > 0]
        score, spans, had = 0.0, set(), set()
        for part in sorted(parts, key=lambda part: -weights[part]):
            at = text.index(part)
            span = set(range(at, at + len(part)))
            if span & spans:
                continue
            spans |= span
            fresh = sum(sign not in had for sign in part) / len(part)
            had |= set(part)
            score += weights[part] ** 2 * (0.2 + 0.8 * fresh)
        if parts:
            wanted[number] = score
    assert wanted, "something speaks for a document"
    assert {one.number: one.score for one in found} == pytest.approx(wanted, rel=1e-6)


def test_generated_passages_occur() -> None:
    texts, tokenizer = documents(3), Letters(V)
    sampler = SamplerConfig(constrain=CorpusConfig(texts=tuple(texts)))
    model = random_predictor(V, 1)
    for one in generate(model, tokenizer, ("ab",), 30, sampler, samples=20):
        assert any(one.text in text for text in texts)
    for one in beam_search(model, tokenizer, "", 8, BeamConfig(beams=4, nbest=4), sampler):
        assert any(one.text in text for text in texts)


def test_refused(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UsageError, match="needs a path"):
        generate(random_predictor(V, 1), Letters(V), ("",), 5, SamplerConfig(constrain=CorpusConfig()))
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(UsageError, match="holds no documents"):
        read_documents(tmp_path / "empty.txt")
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    assert read_documents(tmp_path) == ["one\ntwo"]
    assert read_documents(tmp_path / "a.txt") == ["one", "two"]
