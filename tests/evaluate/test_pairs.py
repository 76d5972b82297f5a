"""Minimal pairs: sentences one by one, accuracies counted by hand, files and refusals."""

import gzip
import json
import math
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.evaluate import Pair, PairsConfig, PairsResult, compare_pairs, read_pairs
from unrolled.evaluate.text.pairs import score_sentences, wilson
from unrolled.evaluate.text.spelling import ptb_words, split_words
from unrolled.model import LanguageModel, ModelConfig
from unrolled.predict import NeuralPredictor, PredictorConfig, adapt
from unrolled.tokenizer import TOKENIZERS, Tokenizer

WORDS = "the a cat cats dog dogs sleeps sleep sees see that who does n't not . <unk> mr. 's"


@pytest.fixture
def tokenizer() -> Tokenizer:
    cls = TOKENIZERS["word"]
    return cls.train(cls.Config.parse({"name": "word", "min_count": 1}), [WORDS.encode()])


def make_model(size: int, **config: Any) -> LanguageModel:
    torch.manual_seed(1)
    model = LanguageModel(ModelConfig.parse({"width": 8, "cell": "lstm", **config}), size).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn_like(parameter))
    return model


@pytest.fixture
def predictor(tokenizer: Tokenizer) -> NeuralPredictor:
    return NeuralPredictor(make_model(tokenizer.vocab_size), tokenizer.start_id)


def draw_pairs(count: int, seed: int) -> list[Pair]:
    generator, words = np.random.default_rng(seed), WORDS.split()
    made = []
    for _ in range(count):
        sentences = [" ".join(generator.choice(words, generator.integers(1, 9))) for _ in range(2)]
        made.append(Pair(*sentences, phenomenon=f"phenomenon {seed % 2}", field="syntax"))
    return made


def alone(predictor: NeuralPredictor, tokenizer: Tokenizer, sentence: str) -> tuple[float, int]:
    """Log-probability of one sentence, token by token from the start symbol, and its tokens."""
    state, total = predictor.begin(1), 0.0
    ids = tokenizer.encode(sentence)
    for token in ids:
        total += float(predictor.predict(state).log_prob[0, token])
        state = predictor.observe(state, torch.tensor([token]))
    return total, len(ids)


@pytest.mark.parametrize("head", [{"name": "softmax"}, {"name": "pointer", "length": 4}], ids=["softmax", "pointer"])
@pytest.mark.parametrize("size", [1, 40, 8192])
def test_a_sentence_scores_as_it_does_alone(tokenizer, head, size, monkeypatch):
    """Whatever stands beside it, however long that is."""
    monkeypatch.setattr(sys.modules["unrolled.evaluate.text.pairs"], "_BATCH", size)
    predictor = NeuralPredictor(make_model(tokenizer.vocab_size, head=head), tokenizer.start_id)
    sentences = [sentence + "\n" for pair in draw_pairs(20, 3) for sentence in pair.sentences]
    sentences += ["", sentences[5]]
    found = score_sentences(predictor, [tuple(tokenizer.encode(sentence)) for sentence in sentences])
    wanted = [alone(predictor, tokenizer, sentence)[0] for sentence in sentences]
    assert found.tolist() == pytest.approx(wanted, rel=1e-12)
    assert found[-2] == 0
    assert found[-1] == found[5]


@pytest.mark.parametrize("normalize", ["none", "tokens"])
@pytest.mark.parametrize("line_end", [True, False])
def test_accuracies(predictor, tokenizer, normalize, line_end):
    pairs = {f"paradigm {seed}": draw_pairs(9, seed) for seed in range(12)}
    pairs["paradigm 0"][:3] = [Pair("the zebra", "the lion"), Pair("a cat", "a cat"), Pair("a gnu", "a cat")]
    pairs["paradigm 1"] = pairs["paradigm 1"][:5]
    config = PairsConfig(prepare="none", normalize=normalize, line_end=line_end)
    result = compare_pairs(predictor, tokenizer, pairs, config)
    shares = {}
    for name, members in pairs.items():
        points = 0.0
        for pair in members:
            scores = []
            for sentence in pair.sentences:
                nats, tokens = alone(predictor, tokenizer, sentence + ("\n" if line_end else ""))
                scores.append(nats / (tokens if normalize == "tokens" else 1))
            points += 0.5 if scores[0] == scores[1] else float(scores[0] > scores[1])
        shares[name] = points / len(members)
    assert {group.name: group.accuracy for group in result.paradigms} == shares
    first = result.paradigms[0]
    assert (first.pairs, first.ties, first.same_tokens) == (9, 2, 2)
    unknown = [pair for pair in pairs["paradigm 0"] if "<unk>" in f"{pair.good} {pair.bad}"]
    assert first.unknown == 2 + len(unknown)
    assert first.interval == wilson(first.accuracy, 9)
    assert result.overall.accuracy == pytest.approx(sum(shares.values()) / 12), "paradigms count alike"
    assert result.overall.pairs == 104
    assert result.overall.interval is not None
    assert result.overall.interval[0] < result.overall.accuracy < result.overall.interval[1]
    assert [group.name for group in result.phenomena] == ["phenomenon 1", "phenomenon 0"]
    odd = [share for name, share in shares.items() if int(name.split()[1]) % 2]
    assert result.phenomena[0].accuracy == pytest.approx(sum(odd) / len(odd))
    assert [(group.name, group.inside) for group in result.fields] == [("syntax", None)]
    assert result.phenomena[0].inside == "syntax"
    assert result.phenomena[0].interval is None, "too few paradigms"


def test_options_change_the_outcome(predictor, tokenizer):
    pairs = {"x": draw_pairs(200, 5)}
    found = {
        key: compare_pairs(
            predictor, tokenizer, pairs, PairsConfig.parse({"prepare": "none", **config})
        ).overall.accuracy
        for key, config in {"": {}, "tokens": {"normalize": "tokens"}, "words": {"line_end": False}}.items()
    }
    assert len(set(found.values())) == 3


def test_the_preparation_is_chosen_by_the_tokenizer(predictor, tokenizer):
    """Words are spelled as in the treebank; bytes are read as they are; the record says so."""
    pairs = {"x": [Pair("The cat doesn't sleep.", "The cat, sleep?")]}
    result = compare_pairs(predictor, tokenizer, pairs)
    assert result.protocol["prepare"] == "ptb"
    assert result.overall.unknown == 0
    assert compare_pairs(predictor, tokenizer, pairs, PairsConfig(prepare="none")).overall.unknown == 1
    cased = TOKENIZERS["word"].train(tokenizer.config, [b"The cat does n't , sleep . ?"])
    seen = NeuralPredictor(make_model(cased.vocab_size), cased.start_id)
    result = compare_pairs(seen, cased, pairs)
    assert (result.protocol["prepare"], result.overall.unknown) == ("split", 0)
    byte = TOKENIZERS["byte"].train(TOKENIZERS["byte"].Config(), ())
    seen = NeuralPredictor(make_model(256), byte.start_id)
    assert compare_pairs(seen, byte, pairs).protocol["prepare"] == "none"


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("Who should Derek hug after shocking Richard?", "who should derek hug after shocking richard"),
        ("\"No,\" the dogs' owner said; it's 1,200 miles.", "no the dogs ' owner said it 's N miles"),
        ("Mr. Smith can't see Mr.", "mr. smith ca n't see mr"),
        ("She cannot pay $5 or 3.5 in 1990.", "she can not pay $ N or N in N"),
        ("The high-school boys’ team won’t go (yet) — ever...", "the high-school boys ' team wo n't go yet ever"),
        ("They'd've gone, I'll say we're 'fine'.", "they 'd 've gone i 'll say we 're fine"),
        ("O'Brien eats o'clock.", "o'brien eats o'clock"),
        ("", ""),
    ],
)
def test_treebank_spelling(sentence: str, wanted: str):
    assert ptb_words(sentence, {"mr."}.__contains__) == wanted


@pytest.mark.parametrize(
    ("sentence", "wanted"),
    [
        ("Mr. Smith doesn't, he said, (ever) pay 3.5.", "Mr. Smith doesn 't , he said , ( ever ) pay 3.5 ."),
        ("The dogs' owner's here!", "The dogs ' owner 's here !"),
    ],
)
def test_punctuation_as_words(sentence: str, wanted: str):
    assert split_words(sentence, {"Mr.", "'t"}.__contains__) == wanted
    negated = wanted.replace("doesn 't", "does n't")
    assert split_words(sentence, {"Mr.", "n't"}.__contains__) == negated


def test_treebank_spelling_is_settled():
    """Text that has it already stays as it is."""
    for sentence in ("mr. vinken is chairman of N companies", "he does n't see john 's dogs '"):
        assert ptb_words(sentence, {"mr.", "n't", "'s", "'"}.__contains__) == sentence


def test_wilson():
    """The end points solve (p - share)² = z² p (1 - p) / n."""
    for share, count in ((0.5, 10), (0.9, 1000), (0.0, 7), (1.0, 7)):
        for p in wilson(share, count, 1.5):
            assert (p - share) ** 2 == pytest.approx(1.5**2 * p * (1 - p) / count, abs=1e-12)
    assert wilson(0.0, 7)[0] == 0
    assert wilson(1.0, 7)[1] == 1


LINES = [
    {
        "sentence_good": "a cat",
        "sentence_bad": "a cats",
        "UID": "number",
        "linguistics_term": "agreement",
        "field": "x",
    },
    {"sentence_good": "the dog", "sentence_bad": "dog the"},
]


def test_files(tmp_path: Path):
    """One file, a folder and an archive give the same pairs; a line without a name of its own has its file's."""
    text = "".join(json.dumps(line) + "\n" for line in LINES)
    wanted = {"number": [Pair("a cat", "a cats", "agreement", "x")], "order": [Pair("the dog", "dog the")]}
    (tmp_path / "folder" / "inner").mkdir(parents=True)
    (tmp_path / "folder" / "inner" / "order.jsonl").write_text(text + "\n")
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("data/order.jsonl", text)
        archive.writestr("__MACOSX/data/order.jsonl", b"\0")
        archive.writestr("readme.txt", "no pairs")
    for path in ("folder/inner/order.jsonl", "folder", "all.zip"):
        assert read_pairs(tmp_path / path) == wanted
    swapped = read_pairs(tmp_path / "folder", good="sentence_bad", bad="sentence_good")
    assert swapped["order"] == [Pair("dog the", "the dog")]


def test_blimp_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("UNROLLED_DATA", str(tmp_path))
    with pytest.raises(UsageError, match=r"put the 67 .jsonl files .* into the folder blimp below"):
        read_pairs("blimp")
    (tmp_path / "blimp").mkdir()
    (tmp_path / "blimp" / "one.jsonl").write_text(json.dumps(LINES[1]))
    assert list(read_pairs("blimp")) == ["one"]
    with zipfile.ZipFile(tmp_path / "blimp" / "blimp.zip", "w") as archive:
        archive.writestr("two.jsonl", json.dumps(LINES[1]))
    assert list(read_pairs("blimp")) == ["two"]


@pytest.mark.parametrize(
    ("name", "content", "error", "sentence"),
    [
        ("absent.jsonl", None, UsageError, "there are no pairs at"),
        ("empty.jsonl", b"\n", UsageError, "there are no pairs in"),
        ("x.jsonl", b'{"good": "a", "bad": "b"}', UsageError, "has no sentence 'sentence_good', only bad, good;"),
        ("x.jsonl", b'{"sentence_good": "a"', UnrolledError, "line 1 of .* is not JSON"),
        ("x.jsonl", b"3", UnrolledError, "is not a JSON object"),
        ("x.zip", b"PK not", UnrolledError, "is damaged or no zip archive"),
        ("x.jsonl", b"\xff{}", UsageError, "is not UTF-8 at byte 0, in line 1"),
        ("x.jsonl", gzip.compress(b"{}")[:-9], UnrolledError, "is damaged"),
    ],
    ids=range(8),
)
def test_broken_files(tmp_path: Path, name: str, content: bytes | None, error: Any, sentence: str):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(error, match=sentence):
        read_pairs(tmp_path / name)


def test_refusals(tokenizer):
    model, pairs = make_model(tokenizer.vocab_size), {"x": draw_pairs(2, 0)}
    for options in ({"cache": {}}, {"dynamic": "sgd"}):
        learning = adapt(NeuralPredictor(model, tokenizer.start_id), PredictorConfig.parse(options))
        with learning, pytest.raises(UsageError, match="scored by itself"):
            compare_pairs(learning, tokenizer, pairs)
    with torch.no_grad():
        model.head.get_parameter("bias").fill_(math.nan)
    with pytest.raises(UnrolledError, match="not finite"):
        compare_pairs(NeuralPredictor(model, tokenizer.start_id), tokenizer, pairs)


def test_the_record_is_read_back(predictor, tokenizer, tmp_path: Path):
    result = compare_pairs(predictor, tokenizer, {"x": draw_pairs(4, 0)}, task="mine", provenance={"run": "r"})
    result.save(tmp_path / "record.json")
    value = json.loads((tmp_path / "record.json").read_text())
    assert (value.pop("kind"), value.pop("version")) == ("minimal pairs", 1)
    assert PairsResult.parse(value) == result
