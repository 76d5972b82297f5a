"""A predictor as a model of the lm-evaluation-harness."""

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import torch
from lm_eval.api.model import TemplateLM

from unrolled.core import tree
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.evaluate.text.spelling import PREPARATIONS
from unrolled.generate import SamplerConfig, generate
from unrolled.predict import Predictor, check_vocabulary
from unrolled.tokenizer import Tokenizer

__all__ = ["UnrolledLM"]

# tokens read at once; log-probabilities held at once; states of contexts that are kept
_WINDOW, _HELD, _KEPT = 512, 1 << 23, 64
_MOST_NEW = 256

Answer = tuple[float, bool]


class UnrolledLM(TemplateLM):
    """Answers the harness's requests by whatever predicts.

    The start symbol is fed before every context and every document. A document is read in one pass with the state
    carried, so that no figure depends on a length of context. Contexts that requests share are read once. Rows of
    different lengths are read side by side as far as the shortest goes, then without it: none reads padding. A
    predictor whose rows depend on each other or on their order (one that learns, or draws masks) gets one request at a
    time, and forgets between them what it learned.

    Args:
        predictor: what is measured. tokenizer: that of its model.
        prepare: spelling of texts for a word-level vocabulary: none, ptb or split.
        batch_size: rows read side by side.
    Raises:
        UsageError: a word-level vocabulary without ``prepare``.
    """

    def __init__(self, predictor: Predictor, tokenizer: Tokenizer, prepare: str | None = None, batch_size: int = 16):
        super().__init__()
        check_vocabulary(predictor, tokenizer.vocab_size)
        if prepare is None and tokenizer.kind == "word":
            raise UsageError(
                "the tasks are ordinary text, and this vocabulary is of words in a spelling of its own; say how texts "
                "are prepared with --prepare ptb, split or none."
            )
        self.predictor, self.own = predictor, tokenizer
        self.prepare = prepare or "none"
        self.batch_size = batch_size if predictor.independent and not predictor.lockstep else 1
        self._keeps = predictor.independent
        self._contexts: OrderedDict[tuple[int, ...], Any] = OrderedDict()
        self.contexts_read = 0

    @property
    def eot_token_id(self) -> int:
        """The end symbol, or else what a text begins with."""
        return self.own.start_id if self.own.end_id is None else self.own.end_id

    @property
    def prefix_token_id(self) -> int:
        """What a text begins with."""
        return self.predictor.start_id

    @property
    def tokenizer_name(self) -> str:
        """A checksum of the vocabulary, by which the harness keeps requests."""
        return self.own.fingerprint()

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Ids of a prepared text; the start symbol is none of them."""
        return self.own.encode(self._prepared(string))

    def _prepared(self, text: str) -> str:
        return PREPARATIONS[self.prepare](text, lambda word: self.own.find(word) is not None)

    def loglikelihood(self, requests: list[Any], disable_tqdm: bool = False) -> list[Answer]:
        """Log-probability of each continuation after its context, and whether greedy decoding would write it."""
        coded = []
        for context, continuation in (request.args for request in requests):
            ids = self._encode_pair(context, continuation) if context else ([], self.tok_encode(continuation))
            coded.append(((context, continuation), *ids))
        return self._loglikelihood_tokens(coded)

    @torch.no_grad()
    def _loglikelihood_tokens(
        self, requests: list[tuple[tuple[str, str], list[int], list[int]]], **kwargs: Any
    ) -> list[Answer]:
        """Equal requests get equal numbers, so that ties are ties."""
        wanted = [(tuple(context), tuple(continuation)) for _, context, continuation in requests]
        groups: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for context, continuation in dict.fromkeys(wanted):
            groups.setdefault(context, []).append(continuation)
        order = sorted(groups, key=lambda context: (len(context), context))
        found: dict[tuple[tuple[int, ...], tuple[int, ...]], Answer] = {}
        for low in range(0, len(order), self.batch_size):
            contexts = order[low : low + self.batch_size]
            if self._keeps:
                states = self._states_of(contexts)
                pairs = [(context, one) for context in contexts for one in groups[context]]
                for first in range(0, len(pairs), self.batch_size):
                    part = pairs[first : first + self.batch_size]
                    state = _joined([states[context] for context, _ in part])
                    found |= zip(part, self._scored(state, [one for _, one in part]), strict=True)
                continue
            for context in contexts:  # what is learned from a context is in the model, not in the state
                for one in groups[context]:
                    self.predictor.restore()
                    (state,) = self._read([context])
                    found[context, one] = self._scored(state, [one])[0]
        self.predictor.restore()
        answers = [found[pair] for pair in wanted]
        for (texts, *_), answer in zip(requests, answers, strict=True):
            self.cache_hook.add_partial("loglikelihood", texts, answer)
        return answers

    def _states_of(self, contexts: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], Any]:
        """The state after each of different contexts, one row each; those that were read lately are not read again."""
        new = [context for context in contexts if context not in self._contexts]
        states = dict(zip(new, self._read(new), strict=True)) if new else {}
        for context in contexts:
            states.setdefault(context, self._contexts.get(context))
            self._contexts[context] = states[context]
            self._contexts.move_to_end(context)
        while len(self._contexts) > max(_KEPT, len(contexts)):
            self._contexts.popitem(last=False)
        return states

    def _read(self, contexts: Sequence[tuple[int, ...]]) -> list[Any]:
        """The state after each context, one row each."""
        self.contexts_read += len(contexts)
        state = self.predictor.begin(len(contexts))
        done: list[Any] = [None] * len(contexts)
        for rows, ids, finished in _steps(contexts, _WINDOW, done, state):
            state = self.predictor.consume(rows, ids.to(self.predictor.device))
            finished(state)
        return done

    def _scored(self, state: Any, continuations: Sequence[tuple[int, ...]]) -> list[Answer]:
        """Of each row its continuation's log-probability, and whether each of its tokens is the likeliest."""
        sums = torch.zeros(len(continuations), dtype=torch.float64)
        greedy = torch.ones(len(continuations), dtype=torch.bool)
        window = max(1, _HELD // (max(1, len(continuations)) * self.predictor.vocab_size))
        places: list[Any] = [None] * len(continuations)
        for rows, ids, finished in _steps(continuations, window, places, state):
            aimed = ids.to(self.predictor.device)
            log_prob, after = self.predictor.distributions(rows, aimed)
            of_each = log_prob.gather(2, aimed.unsqueeze(2)).squeeze(2)
            active = finished.rows
            sums[active] += of_each.double().sum(1).cpu()
            greedy[active] &= (log_prob.argmax(2) == aimed).all(1).cpu()
            finished(after)
        if not bool(sums.isfinite().all()):
            raise UnrolledError("a text has a log-probability that is not finite; the model's weights are damaged.")
        return list(zip(sums.tolist(), greedy.tolist(), strict=True))

    @torch.no_grad()
    def loglikelihood_rolling(self, requests: list[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-probability of whole documents, each in one pass from the start symbol."""
        texts = [request.args[0] for request in requests]
        coded = [tuple(self.tok_encode(text)) for text in texts]
        order = sorted(range(len(coded)), key=lambda index: len(coded[index]))
        answers = [0.0] * len(coded)
        for low in range(0, len(order), self.batch_size):
            part = order[low : low + self.batch_size]
            self.predictor.restore()
            places: list[Any] = [None] * len(part)
            state = self.predictor.begin(len(part))
            for rows, ids, finished in _steps([coded[index] for index in part], _WINDOW, places, state):
                scores = self.predictor.window(rows, ids.to(self.predictor.device))
                for row, nats in zip(finished.rows, scores.nll.detach().double().sum(1).tolist(), strict=True):
                    answers[part[row]] -= nats
                finished(scores.state)
        self.predictor.restore()
        for text, answer in zip(texts, answers, strict=True):
            if answer != answer or answer in (float("inf"), float("-inf")):
                raise UnrolledError("a text has a log-probability that is not finite; the model's weights are damaged.")
            self.cache_hook.add_partial("loglikelihood_rolling", (text,), answer)
        return answers

    def generate_until(self, requests: list[Any], disable_tqdm: bool = False) -> list[str]:
        """The text that follows each context, up to the first of its stop strings, which is left out."""
        groups: dict[str, list[int]] = {}
        for index, request in enumerate(requests):
            groups.setdefault(repr(sorted(request.args[1].items())), []).append(index)
        answers = [""] * len(requests)
        for members in groups.values():
            given = dict(requests[members[0]].args[1])
            until = given.pop("until", None) or []
            stop = [one for one in ([until] if isinstance(until, str) else until) if one]
            sampler, tokens = _sampler(given)
            for low in range(0, len(members), self.batch_size):
                part = members[low : low + self.batch_size]
                self.predictor.restore()
                prompts = [self._prepared(requests[index].args[0]) for index in part]
                texts = generate(self.predictor, self.own, prompts, tokens, sampler, stop)
                for index, text in zip(part, texts, strict=True):
                    answers[index] = text.text
                    self.cache_hook.add_partial("generate_until", requests[index].args, text.text)
        self.predictor.restore()
        return answers


def _sampler(given: dict[str, Any]) -> tuple[SamplerConfig, int]:
    """How to draw, and how many tokens at most, of a task's ``generation_kwargs``. Raises UsageError for others."""
    tokens = given.pop("max_gen_toks", given.pop("max_new_tokens", given.pop("max_tokens", _MOST_NEW)))
    drawn = bool(given.pop("do_sample", False))
    kept = {name: given.pop(name) for name in ("temperature", "top_k", "top_p", "min_p") if name in given}
    if given:
        raise UsageError(f"the task asks for {next(iter(given))} in generation, which is not known here; leave it out.")
    values = {name: value for name, value in kept.items() if value is not None} if drawn else {"temperature": 0.0}
    return SamplerConfig.parse(values), int(tokens)


class _Finished:
    """Takes the state after a step, keeps the rows whose sequences end there, and gives the rest back."""

    def __init__(self, rows: list[int], ending: list[bool], places: list[Any]):
        self.rows, self._ending, self._places, self.rest = rows, ending, places, None

    def __call__(self, state: Any) -> None:
        for place, (row, ends) in enumerate(zip(self.rows, self._ending, strict=True)):
            if ends:
                self._places[row] = tree.select_rows(state, torch.tensor([place]))
        going = [place for place, ends in enumerate(self._ending) if not ends]
        self.rest = (
            state if len(going) == len(self.rows) else tree.select_rows(state, torch.tensor(going, dtype=torch.int64))
        )


def _steps(sequences: Sequence[Sequence[int]], window: int, places: list[Any], state: Any) -> Any:
    """Read sequences of any lengths side by side.

    Args:
        window: tokens of a step at most. places: gets each row's state after its sequence. state: before them.
    Yields:
        the state of the rows under way, their next ids (rows, time), all real, and what takes the state after them.
    """
    rows, done = list(range(len(sequences))), 0
    empty = _Finished(rows, [not sequences[row] for row in rows], places)
    empty(state)
    rows, state = [row for row in rows if sequences[row]], empty.rest
    while rows:
        size = min(window, min(len(sequences[row]) for row in rows) - done)
        ids = torch.tensor([list(sequences[row][done : done + size]) for row in rows], dtype=torch.int64)
        done += size
        step = _Finished(rows, [len(sequences[row]) == done for row in rows], places)
        yield state, ids, step
        rows, state = [row for row in rows if len(sequences[row]) > done], step.rest


def _joined(states: Sequence[Any]) -> Any:
    """One state of the rows of several."""
    return tree.map_tree(lambda *parts: torch.cat(parts), *states)
