"""Documents read before the text: the mean of a model's predictions after several that were found for it."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.data import TokenSplit
from unrolled.predict.adapter import READING, Adapter, Source
from unrolled.predict.base import Prediction, Predictor, Scores
from unrolled.predict.bm25 import BM25, words_of
from unrolled.predict.document_options import DocumentsConfig
from unrolled.predict.library import Library, open_library, states_of
from unrolled.predict.retriever import RetrieverConfig, learn_retriever, learned_index
from unrolled.predict.static import NeuralPredictor
from unrolled.predict.wrapped import WrappedPredictor
from unrolled.tokenizer import Tokenizer

__all__ = ["Documents", "DocumentsConfig", "DocumentsPredictor", "DocumentsState"]


class DocumentsState(NamedTuple):
    """base: the model's states, every tensor (batch, k, ...). weights: (batch, k) their logarithms. chosen: (batch, k)
    which documents; as many as there are stands for none. recent: (batch, query) last tokens, at the right; fill:
    (batch, 1) how many of them there are. since: (batch, 1) tokens since the last retrieval."""

    base: Any
    weights: Tensor
    chosen: Tensor
    recent: Tensor
    fill: Tensor
    since: Tensor


class DocumentsPredictor(WrappedPredictor):
    r"""A model that has read documents (REPLUG: Shi, Min, Yasunaga, Seo, James, Lewis, Zettlemoyer and Yih 2023,
    arXiv 2301.12652), found for the last tokens by BM25 or by a retriever that has learned.

    .. math:: p(w) = \sum_{d \in D} \frac{e^{s(d, x) / \tau}}{\sum_{d'} e^{s(d', x) / \tau}} \, p(w \mid d, x)

    A recurrent model keeps the state after a document, so that none is read again. Every ``stride`` tokens the k best
    are found. The row of one that was there already goes on; that of a new one begins at its state and reads the last
    ``query`` tokens, what it then has of the text. Until the first retrieval the model reads without a document, unless
    there are no more than k: then all of them are there from the beginning, and only their weights change.

    Args:
        inner: the model. library: of the same model. tokenizer: gives the words of the query.
    """

    adds = "documents"

    def __init__(self, inner: NeuralPredictor, config: DocumentsConfig, library: Library, tokenizer: Tokenizer):
        super().__init__(inner)
        self.gives_hidden = False
        self.config, self.library, self.tokenizer = config, library, tokenizer
        self.k = min(config.k, library.count)
        self._all = library.count <= config.k

    @property
    def holds(self) -> frozenset[str]:  # type: ignore[override]
        """See :attr:`Predictor.holds`."""
        return frozenset({self.library.text, self.library.learned} - {""})

    @property
    def told(self) -> dict[str, Any]:
        """See :attr:`Predictor.told`."""
        return {**self.inner.told, **({"documents": dict(self.library.told)} if self.library.told else {})}

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        return {**self.inner.options, "documents": self.config.model_dump(mode="json", exclude={"name"})}

    def shared_form(self, state: DocumentsState) -> DocumentsState:
        """See :meth:`Predictor.shared_form`."""
        return state

    def own_form(self, shared: DocumentsState) -> DocumentsState:
        """See :meth:`Predictor.own_form`."""
        return shared

    def twin(self) -> Predictor | None:
        """See :meth:`Predictor.twin`; nothing is kept."""
        return self

    def begin(self, batch: int, first: Tensor | None = None) -> DocumentsState:
        """See :meth:`Predictor.begin`; after a document ``first`` is read, and the start symbol is not."""
        chosen = torch.arange(self.k) if self._all else torch.full((self.k,), self.library.count)
        if self._all:
            base = tree.map_tree(lambda value: value.repeat(batch, *[1] * (value.dim() - 1)), self.library.states)
            if first is not None:
                base = self.inner.observe(base, first.repeat_interleave(self.k))
        else:
            base = tree.repeat_rows(self.inner.begin(batch, first), self.k)
        dtype = tree.leaves(self.inner.begin(1))[-1].dtype
        weights = torch.zeros(batch, self.k, dtype=dtype, device=self.device).log_softmax(1)
        ids = torch.zeros(batch, self.config.query, dtype=torch.int64, device=self.device)
        none = torch.zeros(batch, 1, dtype=torch.int64, device=self.device)
        return DocumentsState(
            self._unflat(base), weights, chosen.repeat(batch, 1).to(self.device), ids, none, none.clone()
        )

    def restarted(self, state: DocumentsState, rows: Tensor) -> DocumentsState:
        """See :meth:`Predictor.restarted`."""
        return tree.reset_rows(state, self.begin(len(rows)), rows)

    @torch.no_grad()
    def predict(self, state: DocumentsState) -> Prediction:
        """See :meth:`Predictor.predict`."""
        log_prob = self.inner.predict(_flat(state.base)).log_prob.unflatten(0, (-1, self.k))
        return Prediction(torch.logsumexp(log_prob + state.weights.unsqueeze(2), 1), None)

    def observe(self, state: DocumentsState, ids: Tensor) -> DocumentsState:
        """See :meth:`Predictor.observe`."""
        return self.window(state, ids.unsqueeze(1)).state

    def consume(self, state: DocumentsState, ids: Tensor) -> DocumentsState:
        """See :meth:`Predictor.consume`."""
        return self.window(state, ids).state if ids.shape[1] else state

    @torch.no_grad()
    def window(self, state: DocumentsState, ids: Tensor, reset: Tensor | None = None) -> Scores:
        """See :meth:`Predictor.window`; as many tokens at once as lie between retrievals and resets of any row."""
        parts, low = [], 0
        while low < ids.shape[1]:
            if reset is not None and bool(reset[:, low].any()):
                state = self.restarted(state, reset[:, low])
            high = min(low + self.config.stride - int(state.since.max()), ids.shape[1])
            if reset is not None and bool((ahead := reset[:, low + 1 : high].any(0)).any()):
                high = low + 1 + int(ahead.nonzero()[0])
            nll, state = self._read(state, ids[:, low:high])
            parts.append(nll)
            low = high
        return Scores(torch.cat(parts, 1), None, state)

    def _read(self, state: DocumentsState, ids: Tensor) -> tuple[Tensor, DocumentsState]:
        """Nats of tokens (batch, time), none of which comes after a retrieval, and the state after them."""
        scores = self.inner.window(_flat(state.base), ids.repeat_interleave(self.k, 0))
        nll = -torch.logsumexp(state.weights.unsqueeze(2) - scores.nll.unflatten(0, (-1, self.k)), 1)
        time, query = ids.shape[1], self.config.query
        state = state._replace(
            base=self._unflat(scores.state),
            recent=torch.cat([state.recent, ids], 1)[:, -query:],
            fill=(state.fill + time).clamp_max(query),
            since=state.since + time,
        )
        due = state.since[:, 0] >= self.config.stride
        return nll, self._retrieved(state, due) if bool(due.any()) else state

    def _retrieved(self, state: DocumentsState, due: Tensor) -> DocumentsState:
        """The state with new documents in the rows that are due."""
        weights, chosen = state.weights.clone(), state.chosen.clone()
        base = tree.map_tree(torch.clone, state.base)
        for row in due.nonzero()[:, 0].tolist():
            read = state.recent[row, len(state.recent[row]) - int(state.fill[row]) :]
            scores = torch.from_numpy(self.library.index.scores(words_of(self.tokenizer.decode(read.tolist()))))
            best = torch.arange(self.k) if self._all else _best(scores, self.k)
            before = state.chosen[row].tolist()
            kept = [before.index(one) if one in before else -1 for one in best.tolist()]
            fresh = [place for place, old in enumerate(kept) if old < 0]
            rows = [tree.map_tree(lambda value, row=row: value[row], state.base)]
            if fresh:
                begun = tree.select_rows(self.library.states, best[fresh])
                rows.append(self.inner.consume(begun, read.expand(len(fresh), -1)))
            source = torch.tensor([self.k + fresh.index(place) if old < 0 else old for place, old in enumerate(kept)])
            joined = tree.map_tree(lambda *each: torch.cat(each), *rows)

            def put(value: Tensor, new: Tensor, row: int = row, source: Tensor = source) -> Tensor:
                value[row] = new[source.to(new.device)]
                return value

            base = tree.map_tree(put, base, joined)
            chosen[row] = best.to(chosen.device)
            if self.config.weights == "scores":
                weights[row] = (scores[best] / self.config.tau).log_softmax(0).to(weights)
        return state._replace(
            base=base, weights=weights, chosen=chosen, since=state.since.masked_fill(due.unsqueeze(1), 0)
        )

    def _unflat(self, base: Any) -> Any:
        return tree.map_tree(lambda value: value.unflatten(0, (-1, self.k)), base)


def _flat(base: Any) -> Any:
    return tree.map_tree(lambda value: value.flatten(0, 1), base)


def _best(scores: Tensor, k: int) -> Tensor:
    """The k highest, the first of equal ones first."""
    return scores.argsort(descending=True, stable=True)[:k]


def _pieces(source: Source, config: DocumentsConfig, model: NeuralPredictor) -> Library:
    """Pieces of the training text; what is left over at its end is left out."""
    like = tree.flatten(model.begin(1))

    def make(split: TokenSplit) -> dict[str, Tensor]:
        length = min(len(split), config.limit or len(split))
        if length < config.piece:
            raise UsageError(f"the training text has no {config.piece} tokens; lower documents.piece.")
        ids = torch.from_numpy(split.ids(0, length - length % config.piece).astype("int64")).view(-1, config.piece)
        return {"ids": ids, **tree.flatten(states_of(model, list(ids)))}

    def fits(found: Mapping[str, Tensor]) -> bool:
        return set(found) == {"ids", *like} and len({len(value) for value in found.values()}) == 1

    made = dict(source.stored("documents", {"piece": config.piece, "limit": config.limit}, make, fits))
    ids = made.pop("ids")
    words = tuple(tuple(words_of(source.tokenizer.decode(piece))) for piece in ids.tolist())
    wanted = tree.map_tree(lambda value: value.expand(len(ids), *value.shape[1:]), model.begin(1))
    return Library(tree.unflatten(made, wanted), BM25(words), words, "" if config.limit else source.identity()["text"])


def _learned(library: Library, config: DocumentsConfig, source: Source, model: NeuralPredictor) -> Library:
    """The library with a retriever that was trained on the validation text."""
    settings = {
        **config.model_dump(mode="json", include={"learning", "query", "stride", "tau"}),
        "words": hashlib.sha256(json.dumps(library.words).encode()).hexdigest(),
    }
    made = source.stored(
        "retriever",
        settings,
        lambda split: learn_retriever(
            model, library.states, library.words, split, source.tokenizer, config.learning, config.query, config.stride,
            config.tau, source.progress,
        ),
        lambda found: set(found) == {"query", "document", "divergence"},
        split="valid",
    )  # fmt: skip
    fell = made["divergence"].split(max(1, len(made["divergence"]) // 10))
    told = {"divergence_first": float(fell[0].mean()), "divergence_last": float(fell[-1].mean())}
    index = learned_index(library.words, made)
    return library._replace(index=index, learned=source.identity()["valid"], told=told)


class Documents(Adapter):
    """Mixes predictions after several documents that are found for the text (REPLUG)."""

    Config = DocumentsConfig
    EXAMPLES = (
        DocumentsConfig(k=2, stride=3, query=4, piece=6),
        DocumentsConfig(k=3, stride=2, query=20, piece=20, weights="equal"),
        DocumentsConfig(k=2, stride=4, query=3, piece=5, tau=3.0, limit=40),
        DocumentsConfig(
            k=2,
            stride=3,
            query=4,
            piece=6,
            retriever="learned",
            learning=RetrieverConfig(updates=2, width=4, rows=50, among=3),
        ),
    )
    title = "documents"
    place = READING
    reads_model, gives_hidden = True, False

    @classmethod
    def apply(cls, inner: Predictor, config: Any, source: Source | None) -> Predictor:
        """See :meth:`Adapter.apply`; states of documents are those of the model as it was trained."""
        model = cls.plain(inner)
        if source is None:
            raise UsageError("documents are stored with a run, and this model comes from none; leave out documents.")
        trained = NeuralPredictor(model.model, model.start_id)
        memo = f"documents {config.store} {config.piece} {config.limit} {model.model.dtype} {model.precision}"
        library = source.kept.get(memo)
        if library is None:
            if config.store is None:
                library = _pieces(source, config, trained)
            else:
                library = open_library(Path(config.store), source.identity(), trained)
            source.kept[memo] = library
        if config.retriever == "learned":
            library = _learned(library, config, source, trained)
        return DocumentsPredictor(model, config, library, source.tokenizer)
