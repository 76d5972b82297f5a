"""Surprisal of a text's words or tokens, as the text is read."""

import time
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.tree import to
from unrolled.evaluate.text.owners import TextTokens, tokens_of
from unrolled.evaluate.text.scored import ScoreConfig, Scored
from unrolled.evaluate.text.words import TextBlock, Unit
from unrolled.predict import KeptState, Predictor, check_vocabulary
from unrolled.tokenizer import Tokenizer

__all__ = ["score_ids", "score_text"]

# log-probabilities held at once
_HELD = 1 << 21


class _Measures(NamedTuple):
    """Of each token of a window. boundary: nats of the event that a word ended before it."""

    nats: list[float]
    entropy: list[float] | None = None
    rank: list[int] | None = None
    top: list[tuple[tuple[str, float], ...]] | None = None
    top_ids: list[list[int]] | None = None
    boundary: list[float] | None = None


def score_text(
    predictor: Predictor,
    tokenizer: Tokenizer,
    blocks: Iterable[TextBlock],
    config: ScoreConfig | None = None,
    state: KeptState | None = None,
    ends: dict[str, KeptState] | None = None,
) -> Iterator[Scored]:
    """Score a text from its beginning, in memory that does not grow with its length.

    Args:
        state: of the text before, which this one goes on from; absent: it is a text's beginning.
        ends: to put the state after the text into, as ``after``, when all of it has been scored.

    The start symbol is fed, so that the first word is scored too; the text is closed as an evaluation closes it (an
    open last line gets its end symbol, a document its own). Every token belongs to exactly one word or line end: that
    of its first character that is no space, so spaces belong to what follows them, whatever the tokenizer. Hence the
    nats of all rows are those of the evaluation of the same text.

    With ``boundary = "trailing"`` the end of a word is part of the word (Oh and Schuler 2024; Pimentel and Meister
    2024). With B the tokens that begin with a blank or a line end, or are an end symbol, and e(t) = -log P(B | tokens
    before t), a word of tokens i to j has

        surprisal = sum of its tokens' - e(i) + e(j + 1),

    without -e(i) at the beginning of a line; a line end has -e(i) alone. Over a text that ends with a line end or end
    symbol the corrections cancel. In a word-level vocabulary every e is 0.

    Raises:
        UsageError: text that the tokenizer cannot read. UnrolledError: another vocabulary; predictions that are not
            numbers.
    """
    check_vocabulary(predictor, tokenizer.vocab_size)
    config = config or ScoreConfig()
    if state is not None:
        config.check_goes_on()
    scoring = _Scoring(predictor, tokenizer, config, state)
    return scoring.scored(tokens_of(tokenizer, blocks, config.close, config.unit == "word"), ends)


def score_ids(
    predictor: Predictor,
    tokenizer: Tokenizer,
    ids: Sequence[int],
    config: ScoreConfig,
    state: KeptState | None = None,
    ends: dict[str, KeptState] | None = None,
) -> Iterator[Scored]:
    """Score tokens in place of a text: one row for each; see :func:`score_text`. Lines are not counted.

    Raises:
        UsageError: rows for words; ids outside of the vocabulary.
    """
    check_vocabulary(predictor, tokenizer.vocab_size)
    if config.unit != "token" or config.reset != "none":
        raise UsageError("of ids the rows are about tokens; say unit = token, and leave out reset.")
    odd = next((one for one in ids if not 0 <= one < tokenizer.vocab_size), None)
    if odd is not None:
        raise UsageError(f"the id {odd} lies outside of the vocabulary of {tokenizer.vocab_size:,}; leave it out.")
    decoder, offset, offsets, units = tokenizer.decoder(None if state is None else state.last), 0, [], []
    for number, one in enumerate(ids, 1):
        offsets.append(offset)
        units.append(Unit("", "word", 1, number, offset, 0))
        offset += len(decoder.push(one))
    part = TextTokens(np.array(ids, np.int64), np.arange(len(ids)), np.array(offsets, np.int64), units)
    return _Scoring(predictor, tokenizer, config, state).scored([part] if len(ids) else [], ends)


class _Row:
    """A unit under way."""

    def __init__(self, first: Scored, unit: Unit, joined: bool, boundary: float):
        self.first, self.unit, self.tokens, self.nats, self.unknown = first, unit, 0, 0.0, False
        if joined:
            self.nats -= boundary

    def add(self, scored: Scored) -> None:
        self.tokens, self.nats, self.unknown = self.tokens + 1, self.nats + scored.nats, self.unknown or scored.unknown

    def done(self) -> Scored:
        return self.first._replace(
            text=self.unit.text, offset=self.unit.offset, tokens=self.tokens, unknown=self.unknown, nats=self.nats
        )


class _Scoring:
    def __init__(self, predictor: Predictor, tokenizer: Tokenizer, config: ScoreConfig, begun: KeptState | None):
        self.predictor, self.tokenizer, self.config, self.begun = predictor, tokenizer, config, begun
        self.unknown = getattr(tokenizer, "unk_id", None)
        between = tokenizer.blanks + b"\n"
        opening = [not piece or piece[0] in between for piece in tokenizer.pieces]
        self._opening = torch.tensor(opening | tokenizer.tables.implied, device=predictor.device)
        self.window = config.window
        if config.whole:
            self.window = max(1, min(config.window, _HELD // tokenizer.vocab_size))
        self.state = predictor.begin(1) if begun is None else predictor.own_form(begun.tree)
        self._names: dict[int, str] = {}
        self.read, self.last = 0, None if begun is None else begun.last

    def scored(self, parts: Iterable[TextTokens], ends: dict[str, KeptState] | None) -> Iterator[Scored]:
        """The rows, and at last the state after the text."""
        yield from self._rows(parts)
        if ends is not None:
            model, before = ("", 0) if self.begun is None else (self.begun.model, self.begun.tokens)
            tree = to(self.predictor.shared_form(self.state), "cpu")
            ends["after"] = KeptState(model, tree, before + self.read, self.last, issued=time.time())

    def _rows(self, parts: Iterable[TextTokens]) -> Iterator[Scored]:
        trailing, row = self.config.boundary == "trailing", None
        for part in parts:
            previous = -1
            for low in range(0, len(part.ids), self.window):
                window = slice(low, low + self.window)
                owners = part.owners[window].tolist()
                measures = self._measure(part, window)
                for i, (token, owner, offset) in enumerate(
                    zip(part.ids[window].tolist(), owners, part.offsets[window].tolist(), strict=True)
                ):
                    scored = self._token(part.units[owner], token, offset, measures, i)
                    if self.config.unit == "token":
                        yield scored
                        continue
                    if owner != previous:
                        boundary = measures.boundary[i] if measures.boundary else 0.0
                        joined = trailing and row is not None and row.unit.kind == "word"
                        if row is not None:
                            row.nats += boundary if joined else 0.0
                            yield row.done()
                        row, previous = _Row(scored, part.units[owner], joined, boundary), owner
                    assert row is not None
                    row.add(scored)
            if row is not None and not trailing:  # a unit never goes on in another part
                yield row.done()
                row = None
        if row is not None:
            if row.unit.kind == "word":
                row.nats += float(self._ended(self.predictor.predict(self.state).log_prob)[0])
            yield row.done()

    def _token(self, unit: Unit, token: int, offset: int, of: _Measures, i: int) -> Scored:
        return Scored(
            self.tokenizer.token(token), unit, offset, 1, token == self.unknown, of.nats[i],
            None if of.entropy is None else of.entropy[i], None if of.rank is None else of.rank[i],
            None if of.top is None else of.top[i], token, None if of.top_ids is None else of.top_ids[i],
        )  # fmt: skip

    def _measure(self, part: TextTokens, window: slice) -> _Measures:
        ids = torch.from_numpy(part.ids[window]).to(self.predictor.device).unsqueeze(0)
        self.read, self.last = self.read + ids.shape[1], int(part.ids[window][-1])
        reset = self._resets(part, window)
        if self.config.whole:
            log_prob, self.state = self.predictor.distributions(self.state, ids, reset)
            return self._of(log_prob[0].detach(), ids[0], window.start, part)
        nll, _, self.state = self.predictor.window(self.state, ids, reset)
        return _Measures(_checked(nll[0].detach(), window.start, part))

    def _of(self, log_prob: Tensor, ids: Tensor, low: int, part: TextTokens) -> _Measures:
        config = self.config
        own = log_prob.gather(1, ids.unsqueeze(1))
        top = top_ids = None
        if config.top_k is not None:
            best = log_prob.topk(min(config.top_k, log_prob.shape[1]), 1)
            top_ids, names = best.indices.tolist(), self._names
            for token in best.indices.unique().tolist():  # a text's likeliest tokens are few, and a name takes a while
                if token not in names:
                    names[token] = self.tokenizer.token(token)
            named = [[names[token] for token in each] for each in top_ids]
            top = [tuple(zip(*pair, strict=True)) for pair in zip(named, best.values.exp().tolist(), strict=True)]
        return _Measures(
            _checked(-own[:, 0], low, part),
            torch.special.entr(log_prob.exp()).sum(1).tolist() if config.entropy else None,
            ((log_prob > own).sum(1) + 1).tolist() if config.rank else None,
            top,
            top_ids,
            self._ended(log_prob).tolist() if config.boundary == "trailing" else None,
        )

    def _ended(self, log_prob: Tensor) -> Tensor:
        """Nats (n,) of the event that the next token begins with a space or line end, or is an end symbol."""
        return -log_prob[:, self._opening].logsumexp(1)

    def _resets(self, part: TextTokens, window: slice) -> Tensor | None:
        if self.config.reset == "none":
            return None
        owners = part.owners[window]
        before = part.owners[window.start - 1] if window.start else -1
        first = np.diff(owners, prepend=before) != 0
        line = self.config.reset == "line"
        flags = [
            new and (unit.new_line if line else unit.new_document)
            for new, unit in zip(first.tolist(), (part.units[owner] for owner in owners.tolist()), strict=True)
        ]
        return torch.tensor([flags], device=self.predictor.device) if any(flags) else None


def _checked(nats: Tensor, low: int, part: TextTokens) -> list[float]:
    if not bool(nats.isfinite().all()):
        unit = part.units[part.owners[low + int((~nats.isfinite()).nonzero()[0])]]
        raise UnrolledError(
            f"word {unit.index} of line {unit.line} has a log-probability that is not a finite number; the model's "
            "weights are damaged, or its training or adaptation diverged."
        )
    return nats.double().tolist()
