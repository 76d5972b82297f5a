"""Documents found by the passages that a model would go on with."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from pydantic import Field

from unrolled.core.config import Config
from unrolled.core.tree import repeat_rows
from unrolled.counts.suffix import SuffixIndex
from unrolled.generate.beam import BeamConfig, beam_search
from unrolled.generate.config import SamplerConfig
from unrolled.generate.constraints.corpus import Corpus, CorpusConfig
from unrolled.generate.prompts import read_prompts
from unrolled.predict import Predictor
from unrolled.tokenizer import Tokenizer

__all__ = ["RetrieveConfig", "Retrieved", "retrieve"]


class RetrieveConfig(Config):
    """Options of retrieval."""

    beams: int = Field(default=15, ge=1, description="passages under way in the search")
    tokens: int = Field(default=10, ge=1, le=64, description="tokens of a passage at most")
    power: float = Field(default=2.0, gt=0, description="exponent of a passage's weight")
    cover: float = Field(
        default=0.8, ge=0, le=1, description="how much less a passage counts whose tokens better ones have had"
    )


class Retrieved(NamedTuple):
    """A document. number: its place among the documents. passages: those that were found in it, with their weights, the
    weightiest first."""

    number: int
    score: float
    passages: list[tuple[str, float]]


def retrieve(
    predictor: Predictor,
    tokenizer: Tokenizer,
    index: SuffixIndex,
    query: str,
    count: int = 5,
    config: RetrieveConfig | None = None,
) -> list[Retrieved]:
    r"""The documents whose passages follow a query best.

    Beam search among what occurs in the documents gives passages n, of which every beginning is one too. Each weighs

    .. math:: w(n) = \max\left(0, \log \frac{P(n|q)\,(1 - P(n))}{P(n)\,(1 - P(n|q))}\right)

    with P(n) its occurrences over all tokens, and a document's score is the sum of w^a (1 - b + b r) over its passages
    that do not overlap where they stand, the weightiest first; r is the share of the passage's tokens that none before
    had.

    Args:
        query: what is read; the passages go on from it.
    Sources:
        SEAL, Bevilacqua et al. 2022, equations 1 to 4.
    """
    config = config or RetrieveConfig()
    weights = _weights(predictor, tokenizer, index, query, config)
    places: dict[int, list[tuple[float, int, tuple[int, ...]]]] = {}
    for passage, weight in weights.items():
        positions = index.positions(index.find(passage))
        for number, at in zip(index.documents(positions).tolist(), positions.tolist(), strict=True):
            places.setdefault(number, []).append((weight, at, passage))
    found = [_scored(number, given, tokenizer, config) for number, given in places.items()]
    return sorted(found, key=lambda one: (-one.score, one.number))[:count]


def _weights(
    predictor: Predictor, tokenizer: Tokenizer, index: SuffixIndex, query: str, config: RetrieveConfig
) -> dict[tuple[int, ...], float]:
    """Passages and their weights above 0."""
    # passages end where their documents do, and not by an end symbol
    sampler = SamplerConfig(min_tokens=config.tokens)
    beams = BeamConfig(beams=config.beams, nbest=config.beams, length=0)
    passages = Corpus(CorpusConfig(), tokenizer, index)
    found = beam_search(predictor, tokenizer, query, config.tokens, beams, sampler, constraint=passages)
    most = max(len(one.tokens) for one in found)
    rows = torch.tensor([[*one.tokens, *[0] * (most - len(one.tokens))] for one in found])
    state = repeat_rows(read_prompts(predictor, [tokenizer.encode(query)]), len(rows))
    nats = predictor.window(state, rows.to(predictor.device)).nll.double().cumsum(1).tolist()
    weights: dict[tuple[int, ...], float] = {}
    for one, sums in zip(found, nats, strict=True):
        for length in range(1, len(one.tokens) + 1):
            passage = tuple(one.tokens[:length])
            low, high = index.find(passage)
            if passage in weights:
                continue
            weight = _log_odds(-sums[length - 1]) - _log_odds(math.log((high - low) / index.tokens))
            if weight > 0:
                weights[passage] = weight
    return weights


def _log_odds(log_prob: float) -> float:
    """log(p / (1 - p)) of log p, at most that of the double below 1."""
    return log_prob - math.log(max(-math.expm1(log_prob), 2**-53))


def _scored(
    number: int, given: Sequence[tuple[float, int, tuple[int, ...]]], tokenizer: Tokenizer, config: RetrieveConfig
) -> Retrieved:
    taken: set[int] = set()
    had: set[int] = set()
    used: set[tuple[int, ...]] = set()
    score, passages = 0.0, []
    for weight, at, passage in sorted(given, key=lambda one: (-one[0], one[1])):
        span = set(range(at, at + len(passage)))
        if passage in used or span & taken:
            continue
        used.add(passage)
        taken |= span
        fresh = np.mean([token not in had for token in passage])
        had |= set(passage)
        score += weight**config.power * (1 - config.cover + config.cover * float(fresh))
        passages.append((tokenizer.decode(passage), weight))
    return Retrieved(number, score, passages)
