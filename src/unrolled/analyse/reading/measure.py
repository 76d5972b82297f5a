r"""What the surprisal of words says about a measure of how they are read, beside length and frequency.

The measure of word i is regressed on the length of words i, i - 1, ... i - k and their log frequency (the baseline),
and on their surprisal besides; k is the spillover, since readers are slowed by what they read a word or two ago
(Smith and Levy 2013). What surprisal is worth is the gain in log-likelihood per word in texts that neither fit saw.
"""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from unrolled.analyse.reading.regression import LeastSquares, held_out, lagged, solve
from unrolled.analyse.reading.table import ReadingText
from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.data import open_corpus
from unrolled.evaluate import ScoreConfig, line_of_words, score_text
from unrolled.predict import Predictor
from unrolled.runs import Run
from unrolled.tokenizer import Tokenizer

__all__ = [
    "ReadingConfig",
    "ReadingUse",
    "Surprisals",
    "WordCounts",
    "count_words",
    "measure_reading",
    "word_surprisals",
]


class ReadingConfig(Config):
    """What is regressed on what."""

    spillover: int = Field(default=2, ge=0, le=16, description="words before, whose predictors count as well")
    folds: int = Field(default=10, ge=2, description="parts that texts are dealt to, each left out once; at most texts")
    log: bool = Field(default=False, description="the logarithm of the measure is regressed in its place")
    boundary: Literal["leading", "trailing"] = Field(
        default="leading", description="to which word the end of a word is counted, see ScoreConfig"
    )
    resample: Literal["texts", "words"] = Field(
        default="texts", description="what is drawn anew for intervals: whole texts, or words"
    )


class WordCounts(NamedTuple):
    """Words of a training text, without punctuation at their ends and without case."""

    counts: Counter[str]
    total: int

    def log_prob(self, word: str) -> float:
        """Nats of a unigram model, (count + 1) / (words + types + 1): all unseen words together have one count."""
        return float(np.log((self.counts[_bare(word)] + 1) / (self.total + len(self.counts) + 1)))


class Surprisals(NamedTuple):
    """What a model says of the words of texts.

    bits: (n,) of each text. nats: of all words. tokens: that these are. unknown: words with an unknown symbol.
    """

    bits: list[np.ndarray]
    nats: float
    tokens: int
    unknown: int


class ReadingUse(NamedTuple):
    """What one model's surprisal is worth.

    baseline, full: held-out log-likelihood of the measured words of each text, nats, (n,). fit: to all texts, and
    baseline_fit: without surprisal. names: of the columns of ``fit``. provenance: plain JSON.
    """

    name: str
    surprisals: Surprisals
    baseline: list[np.ndarray]
    full: list[np.ndarray]
    fit: LeastSquares
    baseline_fit: LeastSquares
    names: list[str]
    provenance: dict[str, Any]


def _bare(word: str) -> str:
    """A word without what is no letter or digit at its ends, in lower case; itself where nothing is left."""
    return (re.sub(r"^\W+|\W+$", "", word) or word).casefold()


def count_words(run: Run) -> WordCounts:
    """Count the words of a run's own training text.

    Raises:
        UsageError: the run learned from no text, or its text is not there or has changed.
    """
    if not run.task_class.reads_text:
        raise UsageError(f"{run.path} learned from no text; name a run that did with --frequency.")
    run.check_text()
    corpus = open_corpus(run.config.corpus)
    counts: Counter[str] = Counter()
    for block in corpus.blocks("train"):
        for word, count in Counter(block.decode("utf-8", errors="replace").split()).items():
            counts[_bare(word)] += count
    return WordCounts(counts, counts.total())


def word_surprisals(
    predictor: Predictor,
    tokenizer: Tokenizer,
    texts: Sequence[ReadingText],
    boundary: str = "leading",
    progress: Callable[[int, int, float], None] | None = None,
) -> Surprisals:
    """Surprisal of every word, each text read from the start symbol on as one line; see :func:`score_text`.

    Args:
        progress: hears of the words read, of how many, and their nats.
    """
    spaced, config = bool(tokenizer.tables.implied.any()), ScoreConfig.parse({"boundary": boundary})
    bits, tokens, unknown, done, sum_nats = [], 0, 0, 0, 0.0
    total = sum(len(text.words) for text in texts)
    for text in texts:
        predictor.restore()  # a text does not depend on those before it
        block = line_of_words(text.words, spaced=spaced)
        rows = [row for row in score_text(predictor, tokenizer, [block], config) if row.unit.kind == "word"]
        assert [row.text for row in rows] == list(text.words)
        bits.append(np.array([row.bits for row in rows]))
        nats = float(sum(row.nats for row in rows))
        tokens, unknown = tokens + sum(row.tokens for row in rows), unknown + sum(row.unknown for row in rows)
        done, sum_nats = done + len(rows), sum_nats + nats
        if progress is not None:
            progress(done, total, nats)
    return Surprisals(bits, sum_nats, tokens, unknown)


def measure_reading(
    texts: Sequence[ReadingText], surprisals: Surprisals, words: WordCounts, config: ReadingConfig
) -> ReadingUse:
    """Regress the measure with and without a model's surprisal.

    Raises:
        UsageError: fewer than two texts with measured words; a measure without a logarithm; predictors that say
            nothing of their own.
    """
    names = ["intercept"]
    for what in ("length", "log frequency", "surprisal"):
        names += [what if lag == 0 else f"{what}, {lag} before" for lag in range(config.spillover + 1)]
    plain, whole, measures = [], [], []
    lengths = lagged([np.array([[float(len(word))] for word in text.words]) for text in texts], config.spillover)
    frequencies = lagged(
        [np.array([[words.log_prob(word)] for word in text.words]) for text in texts], config.spillover
    )
    surprised = lagged([bits[:, None] for bits in surprisals.bits], config.spillover)
    for text, length, frequency, bits in zip(texts, lengths, frequencies, surprised, strict=True):
        y = text.measures[config.spillover :]
        there = np.isfinite(y)
        if not there.any():
            continue
        base = np.concatenate([np.ones((len(length), 1)), length, frequency], 1)
        plain.append(base[there])
        whole.append(np.concatenate([base, bits], 1)[there])
        measures.append(y[there])
    if len(measures) < 2:
        raise UsageError(
            f"{len(measures)} text(s) have measured words, and whole texts are left out; give at least two, and name "
            "their column with --item."
        )
    if config.log:
        if min(y.min() for y in measures) <= 0:
            raise UsageError("a measure is not above zero and has no logarithm; leave out --log.")
        measures = [np.log(y) for y in measures]
    folds, known = min(config.folds, len(measures)), len(plain[0][0])
    base_names = names[:known]
    return ReadingUse(
        "model",
        surprisals,
        held_out(plain, measures, folds, base_names),
        held_out(whole, measures, folds, names),
        solve(np.concatenate(whole), np.concatenate(measures), names),
        solve(np.concatenate(plain), np.concatenate(measures), base_names),
        names,
        {},
    )
