"""Minimal pairs: is the good sentence likelier than the bad one?"""

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from pydantic import Field

from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import write_json
from unrolled.evaluate.text.pair_files import Pair
from unrolled.evaluate.text.spelling import PREPARATIONS
from unrolled.predict import Predictor, check_vocabulary
from unrolled.tokenizer import Tokenizer

__all__ = ["Group", "PairsConfig", "PairsResult", "compare_pairs", "score_sentences", "wilson"]

# tokens in a batch of sentences
_BATCH = 1 << 13
_FEWEST, _DRAWS, _SEED = 10, 4000, 20180101


class PairsConfig(Config):
    """How minimal pairs are compared."""

    prepare: Literal["none", "ptb", "split"] | None = Field(
        default=None,
        description="none: sentences as they are; ptb: in the spelling of the word-level Penn Treebank; split: "
        "punctuation as words of its own (absent: for a word-level vocabulary split where it has the comma, else ptb; "
        "none for any other)",
    )
    normalize: Literal["none", "tokens"] = Field(
        default="none", description="what is compared: log-probabilities of whole sentences, or their means per token"
    )
    line_end: bool = Field(
        default=True, description="every sentence is a line, whose end is scored too; if not, the words alone"
    )
    good: str = Field(default="sentence_good", description="key of the acceptable sentence")
    bad: str = Field(default="sentence_bad", description="key of the other one")


class Group(Config):
    """Pairs that are counted together."""

    name: str = Field(description="paradigm, phenomenon, field, or all")
    inside: str | None = Field(default=None, description="of a paradigm its phenomenon, of a phenomenon its field")
    paradigms: int = Field(ge=1, description="paradigms in it")
    pairs: int = Field(ge=1, description="pairs in it")
    ties: int = Field(ge=0, description="pairs of equal scores; each counts as half")
    same_tokens: int = Field(
        ge=0,
        description="of the ties, pairs whose sentences became the same tokens (they differ in unknown words only)",
    )
    unknown: int = Field(ge=0, description="pairs with an unknown word in either sentence")
    accuracy: float = Field(description="share of pairs won; of several paradigms the mean of their shares")
    interval: tuple[float, float] | None = Field(
        default=None,
        description="95 % interval: of one paradigm that of Wilson over its pairs, of several a bootstrap over "
        "paradigms (null for fewer than ten)",
    )


class PairsResult(Config):
    """Accuracies on minimal pairs."""

    task: str = Field(description="name or path of the pairs")
    overall: Group = Field(description="all pairs")
    fields: tuple[Group, ...] = Field(description="by field")
    phenomena: tuple[Group, ...] = Field(description="by phenomenon")
    paradigms: tuple[Group, ...] = Field(description="by paradigm")
    protocol: dict[str, Any] = Field(description="how sentences were read and compared")
    provenance: dict[str, Any] = Field(default={}, description="run, tokenizer, weights")

    def to_json(self) -> dict[str, Any]:
        """The record."""
        return {"kind": "minimal pairs", "version": 1, **self.model_dump(mode="json")}

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the record as JSON."""
        write_json(path, self.to_json())


class _Outcome(NamedTuple):
    """Of one pair: 1, 0.5 or 0; whether both sentences are the same tokens; whether one has an unknown word."""

    won: float
    same: bool
    unknown: bool


def compare_pairs(
    predictor: Predictor,
    tokenizer: Tokenizer,
    pairs: Mapping[str, Sequence[Pair]],
    config: PairsConfig | None = None,
    task: str = "pairs",
    provenance: Mapping[str, Any] | None = None,
    progress: Callable[[int, int, float], None] | None = None,
) -> PairsResult:
    """Score both sentences of every pair by themselves, each from the beginning, and count how often the good one wins.

    Args:
        pairs: by name of the paradigm.
        progress: hears of pairs done, all pairs, and 0.
    Raises:
        UsageError: a predictor that learns from, or remembers, what it reads; a sentence that the tokenizer cannot
            read.
    """
    config = config or PairsConfig()
    check_vocabulary(predictor, tokenizer.vocab_size)
    if predictor.kind != "static":
        raise UsageError(
            f"each sentence of a minimal pair is scored by itself, which leaves nothing to {predictor.kind}; leave "
            "that option out."
        )
    name = config.prepare or _preparation(tokenizer)
    prepare, end = PREPARATIONS[name], "\n" if config.line_end else ""
    total, done = sum(map(len, pairs.values())), 0
    unknown, found = getattr(tokenizer, "unk_id", None), []

    def known(word: str) -> bool:
        return tokenizer.find(word) is not None

    for paradigm, members in pairs.items():
        coded = [
            tuple(tokenizer.encode(prepare(sentence, known) + end)) for pair in members for sentence in pair.sentences
        ]
        scores = score_sentences(predictor, coded)
        if config.normalize == "tokens":
            scores = scores / np.array([max(1, len(ids)) for ids in coded])
        outcomes = []
        for i in range(0, len(coded), 2):
            good, bad = float(scores[i]), float(scores[i + 1])
            won = 0.5 if good == bad else float(good > bad)
            outcomes.append(_Outcome(won, coded[i] == coded[i + 1], unknown in coded[i] or unknown in coded[i + 1]))
        found.append((paradigm, members[0], outcomes))
        done += len(members)
        if progress is not None:
            progress(done, total, 0.0)
    paradigms = [_group(paradigm, pair.phenomenon, [outcomes]) for paradigm, pair, outcomes in found]
    protocol = {
        "kind": predictor.kind, "prepare": name, "normalize": config.normalize, "line_end": config.line_end,
        "precision": predictor.precision, "options": predictor.options,
    }  # fmt: skip
    return PairsResult(
        task=task,
        overall=_group("all", None, [outcomes for *_, outcomes in found]),
        fields=_groups([(pair.field, None, outcomes) for _, pair, outcomes in found]),
        phenomena=_groups([(pair.phenomenon, pair.field, outcomes) for _, pair, outcomes in found]),
        paradigms=tuple(paradigms),
        protocol=protocol,
        provenance=dict(provenance or {}),
    )


def _preparation(tokenizer: Tokenizer) -> str:
    if tokenizer.kind != "word":
        return "none"
    return "ptb" if tokenizer.find(",") is None else "split"


def score_sentences(predictor: Predictor, coded: Sequence[tuple[int, ...]]) -> np.ndarray:
    """Log-probability (n,) of each sequence of ids, from the beginning of a text; equal sequences get equal numbers.

    Sequences of similar lengths are scored side by side. The shorter ones are filled up at their right, where what is
    predicted comes after all that counts.

    Raises:
        UnrolledError: predictions that are not numbers.
    """
    order = sorted(set(coded), key=lambda ids: (len(ids), ids))
    nats: dict[tuple[int, ...], float] = {}
    low = 0
    while low < len(order):
        high = low + 1
        while high < len(order) and (high + 1 - low) * len(order[high]) <= _BATCH:
            high += 1
        batch = order[low:high]
        length = max(1, len(batch[-1]))
        ids = torch.full((len(batch), length), predictor.start_id, dtype=torch.int64)
        counts = torch.tensor([len(one) for one in batch])
        for row, one in zip(ids, batch, strict=True):
            row[: len(one)] = torch.tensor(one, dtype=torch.int64)
        scores = predictor.window(predictor.begin(len(batch)), ids.to(predictor.device))
        inside = torch.arange(length) < counts.unsqueeze(1)
        sums = scores.nll.detach().cpu().double().masked_fill(~inside, 0.0).sum(1)
        if not bool(sums.isfinite().all()):
            raise UnrolledError("a sentence has a log-probability that is not finite; the model's weights are damaged.")
        nats.update(zip(batch, sums.tolist(), strict=True))
        low = high
    return -np.array([nats[ids] for ids in coded])


def _groups(members: Sequence[tuple[str | None, str | None, list[_Outcome]]]) -> tuple[Group, ...]:
    """One group for each name, in order; paradigms without one are in none."""
    names = {name: inside for name, inside, _ in members if name is not None}
    return tuple(
        _group(name, inside, [outcomes for other, _, outcomes in members if other == name])
        for name, inside in names.items()
    )


def _group(name: str, inside: str | None, members: Sequence[list[_Outcome]]) -> Group:
    shares = np.array([sum(one.won for one in outcomes) / len(outcomes) for outcomes in members])
    every = [one for outcomes in members for one in outcomes]
    interval = None
    if len(members) == 1:
        interval = wilson(float(shares[0]), len(every))
    elif len(members) >= _FEWEST:
        draws = np.random.default_rng(_SEED).integers(len(shares), size=(_DRAWS, len(shares)))
        low, high = np.quantile(shares[draws].mean(1), [0.025, 0.975])
        interval = float(low), float(high)
    return Group(
        name=name,
        inside=inside,
        paradigms=len(members),
        pairs=len(every),
        ties=sum(one.won == 0.5 for one in every),
        same_tokens=sum(one.same for one in every),
        unknown=sum(one.unknown for one in every),
        accuracy=float(shares.mean()),
        interval=interval,
    )


def wilson(share: float, count: int, z: float = 1.959964) -> tuple[float, float]:
    """The interval of Wilson (1927) for a share of ``count`` trials; by default the 95 % one."""
    center = share + z * z / (2 * count)
    spread = z * math.sqrt(share * (1 - share) / count + z * z / (4 * count * count))
    scale = 1 + z * z / count
    return max(0.0, (center - spread) / scale), min(1.0, (center + spread) / scale)
