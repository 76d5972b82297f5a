"""Where the loss comes from: every token of a text in one category, so that the parts sum to the whole.

After Karpathy, Johnson and Fei-Fei (2015, section 4.4), who take errors away one oracle after the other; here every
token, wrong or not, goes to the first category that holds for it, and its nats with it. The order:

1. ``predicted``: the model gives the token at least the probability 0.5 (their errors are those that it does not).
2. ``ngram``: a count model of the training text (interpolated Kneser-Ney, their order 9) gives it more than 0.5.
3. ``rare``: it is part of a word that the training text has at most 5 times, or not at all.
4. ``space``: it is nothing but white space, line ends among it.
5. ``punctuation``: its first sign is neither of a word nor white space.
6. ``word_start``: it begins a word (their errors after a space).
7. ``word_rest``: it goes on with a word.
8. ``other``: it has no text, such as the end of a document.

A word is a run of letters, digits, apostrophes, underscores and signs outside ASCII. A token is of the kind of its
first sign that is no white space. Not among the categories: their oracle of words seen shortly before, and their last
one, which raises probabilities between 0.4 and 0.5.
"""

import math
import re
from collections import Counter
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
from pydantic import Field

from unrolled.analyse.passage import Passage, PassageText, passage_of, passage_text
from unrolled.analyse.tracing import read_nats
from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.counts import KneserNeyConfig, estimate_kneser_ney
from unrolled.data.walk import Progress
from unrolled.predict import KneserNeyPredictor, NeuralPredictor
from unrolled.runs import Run

__all__ = ["CATEGORIES", "LossParts", "LossPartsConfig", "Memory", "loss_parts", "read_memory", "token_kinds"]

CATEGORIES = ("predicted", "ngram", "rare", "space", "punctuation", "word_start", "word_rest", "other")

_WORD = re.compile(rb"[0-9A-Za-z'_\x80-\xff]+")
_SPACES = b" \t\n\r\x0b\x0c"


class LossPartsConfig(Config):
    """How the loss is divided."""

    threshold: float = Field(
        default=0.5, gt=0, lt=1, description="probability from which a token counts as predicted, by either model"
    )
    order: int = Field(default=9, ge=1, description="longest n-gram of the count model, in tokens")
    rare: int = Field(default=5, ge=0, description="a word that the training text has at most so often is rare")
    train_tokens: int = Field(
        default=10_000_000, ge=1, description="only the first so many tokens of the training text are counted"
    )


class Memory(NamedTuple):
    """What the training text holds. counts: the count model. words: word -> occurrences. tokens: that were counted."""

    counts: KneserNeyPredictor
    words: Counter[bytes]
    tokens: int


class LossParts(NamedTuple):
    """name: of the run. nats, count_nats: (n,) of every token, by the model and by the count model. category: (n,)
    numbers into CATEGORIES. provenance: plain JSON."""

    name: str
    nats: np.ndarray
    count_nats: np.ndarray
    category: np.ndarray
    provenance: dict[str, Any]

    def table(self) -> dict[str, dict[str, float | int]]:
        """Of every category: tokens, nats, its share of all nats, and the count model's nats on its tokens."""
        total, found = math.fsum(self.nats), {}
        for number, name in enumerate(CATEGORIES):
            here = self.category == number
            nats = math.fsum(self.nats[here])
            found[name] = {
                "tokens": int(here.sum()),
                "nats": nats,
                "share": nats / total if total else 0.0,
                "count_model_nats": math.fsum(self.count_nats[here]),
            }
        return found


def read_memory(run: Run, config: LossPartsConfig) -> Memory:
    """Count the n-grams and words of a run's own training text.

    Raises:
        UsageError: the corpus of the run is not there, or has no training split.
    """
    corpus, splits = run.splits()
    if "train" not in splits:
        raise UsageError(f"corpus {corpus.name} has no training text to count.")
    train = passage_of(splits["train"], config.train_tokens)
    estimation = KneserNeyConfig(order=config.order, sentences="continuous")
    model = estimate_kneser_ney(
        train.ids, run.tokenizer.vocab_size, run.tokenizer.start_id, estimation, train.starts[1:]
    )
    words: Counter[bytes] = Counter()
    text = passage_text(run.tokenizer, train)
    for low, high in _stretches(train, text):
        words.update(_WORD.findall(text.data[low:high].tobytes()))
    return Memory(KneserNeyPredictor(model), words, len(train.ids))


def _stretches(passage: Passage, text: PassageText) -> list[tuple[int, int]]:
    """First byte and end of every text of a passage."""
    before = np.concatenate([[0], text.ends])
    edges = [*before[passage.starts].tolist(), int(before[-1])]
    return list(pairwise(edges))


def token_kinds(passage: Passage, text: PassageText, words: Counter[bytes], rare: int) -> np.ndarray:
    """The category of every token but for the first two, (n,) numbers into CATEGORIES."""
    data = text.data
    signs, kind = np.arange(len(data)), np.full(len(data) + 1, CATEGORIES.index("punctuation"))
    space = np.isin(data, np.frombuffer(_SPACES, np.uint8))
    kind[:-1][space] = CATEGORIES.index("space")
    for low, high in _stretches(passage, text):
        for match in _WORD.finditer(data[low:high].tobytes()):
            begin, end = low + match.start(), low + match.end()
            if words[match.group()] <= rare:
                kind[begin:end] = CATEGORIES.index("rare")
            else:
                kind[begin:end] = CATEGORIES.index("word_rest")
                kind[begin] = CATEGORIES.index("word_start")
    # the first sign at or after each place that is no white space
    first = np.minimum.accumulate(np.append(np.where(space, len(data), signs), len(data))[::-1])[::-1]
    begins = np.concatenate([[0], text.ends[:-1]])
    found = kind[np.minimum(first[begins], len(data))]
    found[first[begins] >= text.ends] = CATEGORIES.index("space")
    found[begins == text.ends] = CATEGORIES.index("other")
    return found


def loss_parts(
    predictor: NeuralPredictor,
    passage: Passage,
    text: PassageText,
    memory: Memory,
    config: LossPartsConfig,
    progress: Progress | None = None,
) -> LossParts:
    """Put every token of a passage into one category."""
    nats, counted = read_nats(predictor, passage, progress), read_nats(memory.counts, passage)
    category = token_kinds(passage, text, memory.words, config.rare)
    least = -math.log(config.threshold)
    category[counted < least] = CATEGORIES.index("ngram")
    category[nats <= least] = CATEGORIES.index("predicted")
    return LossParts("model", nats, counted, category, dict(passage.origin))
