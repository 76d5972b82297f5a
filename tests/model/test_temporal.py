"""The temporal head: a bias that follows how often tokens were used in past periods."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import unrolled as ur
from unrolled.core.errors import UsageError
from unrolled.evaluate import EvalConfig, evaluate_predictor
from unrolled.evaluate.per_token import read_per_token
from unrolled.model.heads.softmax import SoftmaxConfig, SoftmaxHead
from unrolled.model.heads.temporal import TemporalConfig, TemporalHead, TemporalMasks
from unrolled.predict import NeuralPredictor
from unrolled.runs import Run

V, PERIODS = 12, 4


def made(**options: object) -> TemporalHead:
    torch.manual_seed(1)
    head = TemporalHead(5, V, TemporalConfig.parse({"periods": PERIODS, "hidden": 6, **options})).double()
    head.use_periods(torch.randint(1, 90, (PERIODS, V), generator=torch.Generator().manual_seed(2)))
    return head


def material() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    torch.manual_seed(3)
    return torch.randn(3, 7, 5).double(), torch.randint(0, V, (3, 7)), torch.randint(0, PERIODS, (3, 7))


def test_a_zero_map_is_softmax_bit_for_bit():
    head, (h, targets, period) = made(), material()
    plain = SoftmaxHead(5, V, SoftmaxConfig()).double()
    with torch.no_grad():
        plain.weight.copy_(head.weight)
        head.bias.copy_(torch.randn(V))  # type: ignore[union-attr]
        plain.bias.copy_(head.bias)  # type: ignore[union-attr, arg-type]
    assert torch.equal(head.log_prob(h)[0], plain.log_prob(h)[0])
    total, nll, _ = head.loss(h, targets)
    other, wanted, _ = plain.loss(h, targets)
    assert torch.equal(nll, wanted)
    assert torch.equal(total, other)
    assert torch.equal(head.loss(h, targets, masks=TemporalMasks(None, period))[1], wanted)


def test_targets_have_the_bias_of_their_period():
    head, (h, targets, period) = made(), material()
    with torch.no_grad():
        head.map.copy_(torch.randn(6))
    weight = torch.rand(3, 7).double()
    total, nll, _ = head.loss(h, targets, weight, masks=head.placed(None, period))
    each = torch.stack([-head.at(p).log_prob(h)[0] for p in range(PERIODS + 1)])
    wanted = each.gather(3, targets.expand(PERIODS + 1, 3, 7).unsqueeze(3)).squeeze(3).gather(0, period.unsqueeze(0))[0]
    torch.testing.assert_close(nll, wanted, rtol=0, atol=1e-12)
    torch.testing.assert_close(total, (wanted * weight).sum())
    assert head.period == PERIODS
    assert not torch.allclose(head.at(0).log_prob(h)[0], head.log_prob(h)[0])


def test_counts_change_no_bias_of_their_own_period_nor_of_earlier_ones():
    counts = torch.randint(1, 90, (PERIODS, V), generator=torch.Generator().manual_seed(5))
    head = made()
    with torch.no_grad():
        head.map.copy_(torch.randn(6))
        for period in range(PERIODS):
            head.use_periods(counts)
            before = head.shifts()
            changed = counts.clone()
            changed[period] = counts[period].flip(0)
            head.use_periods(changed)
            after = head.shifts()
            assert torch.equal(after[: period + 1], before[: period + 1])
            later = max(period, 1) + 1  # one period alone tells of no change
            assert not torch.allclose(after[later], before[later])
    assert not head.shifts()[0].any()


def test_other_periods_than_the_texts_are_refused(tmp_path: Path):
    with pytest.raises(UsageError, match="4 periods and the training text 1"):
        made().use_periods(torch.ones(1, V))
    corpus = {"path": str(drifting(tmp_path / "news.jsonl", 1, 2, 30)), "time": "date", "reset": "none"}
    config = {"corpus": corpus, "model": {"width": 4, "head": "temporal"}, "train": {"steps": 1}}
    with pytest.raises(UsageError, match=r"set corpus\.reset=document"):
        ur.train(ur.ExperimentConfig.parse(config), tmp_path / "run", device="cpu")


def test_what_is_kept_is_made_anew_when_a_weight_changes():
    head, (h, _, _) = made(), material()
    with torch.no_grad():
        first = head.log_prob(h)[0]
        head.map.fill_(0.5)
        second = head.log_prob(h)[0]
        head.use_periods(torch.arange(PERIODS * V).view(PERIODS, V))
        third = head.log_prob(h)[0]
    assert not torch.allclose(first, second)
    assert not torch.allclose(second, third)


def drifting(path: Path, seed: int, periods: int, documents: int) -> Path:
    """Unigram logits that are linear in time, and a bigram part that stays."""
    draw = np.random.default_rng(seed)
    words, base, slope = 50, draw.normal(0, 0.5, 50), draw.normal(0, 0.35, 50)
    bigram = draw.normal(0, 0.7, (words, words))
    with path.open("w") as file:
        for period in range(periods):
            logits = base + slope * period + bigram
            share = np.exp(logits - logits.max(1, keepdims=True))
            ends = (share / share.sum(1, keepdims=True)).cumsum(1)
            for _ in range(documents):
                word, text = 0, []
                for _ in range(50):
                    word = min(int(np.searchsorted(ends[word], draw.random())), words - 1)
                    text.append(f"w{word}")
                file.write(json.dumps({"date": 2010 + period, "text": " ".join(text)}) + "\n")
    return path


def drifted(tmp_path: Path, seed: int, steps: int, documents: int) -> tuple[float, float, float, float]:
    """Gain in nats per token on the unseen next period, with its standard error over documents: against the bias of the
    last period that was trained on, and against none."""
    news = drifting(tmp_path / "news.jsonl", seed, 8, documents)
    past = tmp_path / "past.jsonl"
    past.write_text("".join(line + "\n" for line in news.read_text().splitlines() if '"date": 2017' not in line))
    corpus = {"path": str(past), "time": "date", "fractions": [0.9, 0.1, 0]}
    config = {
        "corpus": corpus,
        "tokenizer": {"name": "word", "min_count": 1},
        "stream": {"columns": 16, "window": 25, "order": "shuffled"},
        "model": {"width": 24, "layers": 1, "cell": "lstm", "head": {"name": "temporal", "hidden": 8}},
        "train": {"steps": steps, "validations": 1, "final_eval": False, "keep": "last",
                  "optimizer": {"name": "adam", "lr": 0.01}},
        "seed": seed,
    }  # fmt: skip
    run = Run(ur.train(ur.ExperimentConfig.parse(config), tmp_path / "run", device="cpu"), "cpu")
    head = run.model.head
    assert isinstance(head, TemporalHead)
    assert (head.config.periods, head.period) == (7, 7)
    text = {**corpus, "path": str(news), "slice": "2017", "fractions": [1, 0, 0]}
    _, split, _ = run.to_measure("train", type(run.config.corpus).parse(text))
    nats = []
    for period in (7, 6, 0):
        run.model.head = head.at(period)
        predictor = NeuralPredictor(run.model, run.tokenizer.start_id)
        file = tmp_path / f"{period}.tsv"
        evaluate_predictor(predictor, split, EvalConfig.parse({"split": "train"}), per_token=file)
        nats.append(read_per_token(file).log_prob)
    found = []
    for other in nats[1:]:
        gains = (nats[0] - other).reshape(-1, 51).mean(1)  # of each document
        found += [gains.mean(), gains.std(ddof=1) / np.sqrt(len(gains))]
    return tuple(found)  # type: ignore[return-value]


def test_the_next_period_of_a_drifting_text(tmp_path: Path):
    after, error, without, other = drifted(tmp_path, 1, 300, 60)
    assert without > 3 * other
    assert after > -3 * error


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_next_period_beats_the_last_and_none(tmp_path: Path, seed: int):
    after, error, without, other = drifted(tmp_path, seed, 1500, 110)
    assert after > 3 * error
    assert without > 3 * other
