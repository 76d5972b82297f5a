"""A retriever of documents that learns from what helps the model: the dual encoder, and how it is trained."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import embedding_bag

from unrolled.core import tree
from unrolled.core.config import Config
from unrolled.core.errors import UsageError
from unrolled.data import TokenSplit
from unrolled.data.walk import Progress
from unrolled.predict.bm25 import BM25, words_of
from unrolled.predict.static import NeuralPredictor
from unrolled.tokenizer import Tokenizer

__all__ = ["DualEncoder", "Index", "LearnedIndex", "RetrieverConfig", "divergence", "learn_retriever", "learned_index"]


class RetrieverConfig(Config):
    """How the retriever is trained."""

    updates: int = Field(default=200, ge=1, le=10**6, description="steps of Adam; each takes new places of the text")
    lr: float = Field(default=0.03, gt=0, le=10, description="of Adam")
    width: int = Field(default=64, ge=1, le=4096, description="numbers of a word's vector")
    rows: int = Field(default=16384, ge=1, le=2**24, description="of the tables of words; some words share one")
    queries: int = Field(default=8, ge=1, le=10**4, description="places of the text in a step")
    among: int = Field(
        default=20, ge=2, le=10**4, description="documents that are read for each, the best of the moment"
    )
    sharpness: float = Field(
        default=1.0, gt=0, le=1e6, description="divides the model's log-probabilities before their softmax (beta)"
    )
    direction: Literal["retriever", "model"] = Field(
        default="retriever",
        description="KL(P || Q), the paper's, or KL(Q || P), which the released code computes; P is the retriever's",
    )


class DualEncoder(nn.Module):
    """Two tables of vectors of words, for queries and for documents; both begin alike, so that what has words in common
    is near. A text is the mean of its words, and a score the inner product of two texts.

    A word's row is a checksum of it, modulo the rows, so that queries may have words that no document has; some words
    share a row.

    Args:
        documents: their words. width, rows: of the tables.
    """

    def __init__(self, documents: Sequence[Sequence[str]], width: int, rows: int, seed: int = 0):
        super().__init__()
        self.rows = rows
        begun = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed))
        self.query, self.document = nn.Parameter(begun.clone()), nn.Parameter(begun.clone())
        self._flat, self._offsets = self._bags(documents)

    def _bags(self, texts: Sequence[Sequence[str]]) -> tuple[Tensor, Tensor]:
        flat = [zlib.crc32(word.encode()) % self.rows for each in texts for word in each]
        sizes = torch.tensor([0, *map(len, texts)])
        return torch.tensor(flat, dtype=torch.int64), sizes.cumsum(0)[:-1]

    def documents(self) -> Tensor:
        """(documents, width)."""
        return embedding_bag(self._flat, self.document, self._offsets, mode="mean")

    def queries(self, texts: Sequence[Sequence[str]]) -> Tensor:
        """(texts, width); a text without words is 0."""
        flat, offsets = self._bags(texts)
        return embedding_bag(flat, self.query, offsets, mode="mean")


class LearnedIndex:
    """Scores of documents for a query by a trained encoder, with the interface of :class:`BM25`."""

    def __init__(self, encoder: DualEncoder):
        self.encoder = encoder
        with torch.no_grad():
            self._documents = encoder.documents()
        self.count = len(self._documents)

    @torch.no_grad()
    def scores(self, query: Sequence[str]) -> np.ndarray:
        """s(d, x) of every document, (documents,) float64."""
        return (self._documents @ self.encoder.queries([query])[0]).double().numpy()


Index = BM25 | LearnedIndex
"""What gives documents scores."""


def divergence(scores: Tensor, likely: Tensor, config: RetrieverConfig, tau: float) -> Tensor:
    """The loss of each query.

    Args:
        scores: (queries, documents) of the retriever. likely: the same of log p(y | d, x). tau: divides the scores.
    """
    own, wanted = (scores / tau).log_softmax(1), (likely / config.sharpness).log_softmax(1)
    if config.direction == "retriever":
        return (own.exp() * (own - wanted)).sum(1)
    return (wanted.exp() * (wanted - own)).sum(1)


def learn_retriever(
    model: NeuralPredictor,
    states: Any,
    documents: Sequence[Sequence[str]],
    split: TokenSplit,
    tokenizer: Tokenizer,
    config: RetrieverConfig,
    query: int,
    following: int,
    tau: float,
    progress: Progress | None = None,
) -> dict[str, Tensor]:
    r"""Train a retriever by what the frozen model finds likely (REPLUG LSR: Shi et al. 2023, arXiv 2301.12652).

    Of each place of the text x are the ``query`` tokens before it, and y the ``following`` after it. With d going over
    the best documents of the moment,

    .. math:: P(d) = \mathrm{softmax}(s(d, x) / \tau), \quad Q(d) = \mathrm{softmax}(\log p(y | d, x) / \beta)

    and KL(P || Q) is lowered by Adam. The model stays as it is. The paper's retriever is a large encoder; this one is
    :class:`DualEncoder`. The forms of P and Q are from memory of the paper; the released code computes KL(Q || P).

    Args:
        states: of the model after each document. documents: their words. split: text that is not among them.
    Returns:
        ``query`` and ``document``, the encoder's tables, and ``divergence`` (updates,), the mean of each step.
    Raises:
        UsageError: fewer than two documents, or too little text.
    """
    if len(documents) < 2 or len(split) < query + following:
        raise UsageError(
            f"a retriever learns from {query + following} tokens of validation text and two documents at least; lower "
            "documents.query and stride, or give documents.retriever=bm25."
        )
    encoder, count = DualEncoder(documents, config.width, config.rows), min(config.among, len(documents))
    optimiser = torch.optim.Adam(encoder.parameters(), lr=config.lr)
    generator, told = torch.Generator().manual_seed(0), []
    for step in range(config.updates):
        places = torch.randint(query, len(split) - following + 1, (config.queries,), generator=generator).tolist()
        ids = np.stack([split.ids(place - query, place + following) for place in places]).astype(np.int64)
        texts = [words_of(tokenizer.decode(row[:query].tolist())) for row in ids]
        scores = encoder.queries(texts) @ encoder.documents().t()
        best = scores.detach().topk(count, 1).indices
        likely = _likely(model, states, best, torch.from_numpy(ids).to(model.device), query)
        each = divergence(scores.gather(1, best), likely.to(scores), config, tau)
        optimiser.zero_grad()
        each.mean().backward()
        optimiser.step()
        told.append(each.detach().mean())
        if progress is not None:
            progress(step + 1, config.updates, float(told[-1]))
    return {"query": encoder.query.detach(), "document": encoder.document.detach(), "divergence": torch.stack(told)}


@torch.no_grad()
def _likely(model: NeuralPredictor, states: Any, best: Tensor, ids: Tensor, query: int) -> Tensor:
    """log p(y | d, x), (queries, documents), of ids (queries, tokens) and documents best (queries, documents)."""
    rows = ids.repeat_interleave(best.shape[1], 0)
    state = model.consume(tree.select_rows(states, best.flatten()), rows[:, :query])
    return -model.window(state, rows[:, query:]).nll.sum(1).view_as(best).cpu()


def learned_index(documents: Sequence[Sequence[str]], found: Mapping[str, Tensor]) -> LearnedIndex:
    """The index of a trained retriever, from what :func:`learn_retriever` gave."""
    rows, width = found["query"].shape
    encoder = DualEncoder(documents, width, rows)
    with torch.no_grad():
        encoder.query.copy_(found["query"].cpu())
        encoder.document.copy_(found["document"].cpu())
    return LearnedIndex(encoder)
