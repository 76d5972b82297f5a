"""Text from any predictor, streamed as it comes."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.tree import repeat_rows, select_rows, to
from unrolled.generate.backspace import with_backspaces
from unrolled.generate.config import SamplerConfig
from unrolled.generate.history import History, constraint_of
from unrolled.generate.prompts import Piece, Told, check_choice, read_prompts
from unrolled.generate.row import FinishReason, TextRow
from unrolled.generate.sampler import choose, generator_of
from unrolled.predict import KeptState, Predictor, check_vocabulary
from unrolled.tokenizer import Tokenizer

__all__ = ["FinishReason", "Generation", "Piece", "Told", "generate", "stream"]


class Generation(NamedTuple):
    """A finished text.

    text: without the prompt and the stop string. tokens: every id drawn, those of a stop string included.
    log_prob: their total nats under the predictor, before temperature and filters. pieces: where the likeliest tokens
    are asked for.
    """

    prompt: str
    text: str
    tokens: list[int]
    log_prob: float
    finish_reason: FinishReason
    pieces: tuple[Piece, ...] = ()


class _Row:
    """One text under way, and whose it is."""

    def __init__(self, prompt: int, sample: int, text: TextRow, generator: torch.Generator, history: History | None):
        self.prompt, self.sample, self.text = prompt, sample, text
        self.generator, self.history = generator, history


def stream(
    predictor: Predictor,
    tokenizer: Tokenizer,
    prompts: Sequence[str] = ("",),
    max_tokens: int = 200,
    sampler: SamplerConfig | None = None,
    stop: Sequence[str] = (),
    samples: int = 1,
    state: KeptState | None = None,
    ends: dict[tuple[int, int], KeptState] | None = None,
    log_probs: int = 0,
) -> Iterator[Piece]:
    """Continue prompts, token by token.

    All texts advance together in one batch; each draws from its own stream of random numbers, seeded by the
    seed and the number of the sample, so a text does not depend on what else is in the batch. Memory does not
    grow with the length of the text. An empty prompt is a text's beginning.

    A text can be written in parts: with ``state`` the prompts go on from where a text stopped, and ``ends`` is
    given the state after each. Where the state is wanted, what may begin a stop string or a character stays in it
    when ``max_tokens`` is reached, and is shown with the next part, so that parts and whole are the same text.

    Args:
        prompts: texts to continue, of any lengths.
        max_tokens: tokens drawn for each text at most.
        sampler: default: temperature 1, no filter, seed 0.
        stop: strings that end a text; they are not shown, not even in part.
        samples: texts for each prompt, side by side.
        state: what the prompts go on from; absent: a text's beginning.
        ends: to put the state after each text into, by the numbers of its prompt and sample.
        log_probs: how many of the likeliest tokens are told with each piece.
    Raises:
        UsageError: a prompt that the tokenizer cannot read; ``max_tokens`` or ``samples`` below 1; an empty
            stop string; a constraint that this vocabulary cannot meet. Raised by the call itself, before the first
            piece is asked for. No token may come next: raised where that is found.
        UnrolledError: tokenizer and predictor differ in vocabulary; a prediction is not finite.
    """
    check_vocabulary(predictor, tokenizer.vocab_size)
    for name, value in (("max_tokens", max_tokens), ("samples", samples)):
        if value < 1:
            raise UsageError(f"{name} must be at least 1 (got {value}).")
    sampler = sampler or SamplerConfig()
    check_choice(tokenizer, sampler, stop)
    coded = [tokenizer.encode(prompt) for prompt in prompts]
    if not coded:
        raise UsageError("there is no prompt; give one, or an empty one for a text from its beginning.")
    if sampler.backspace is not None:
        if state is not None or ends is not None or log_probs:
            raise UsageError(
                "a text with a backspace has neither a state to go on from nor single log-probabilities; leave those "
                "out, or sampler.backspace."
            )
        return with_backspaces(predictor, tokenizer, prompts, max_tokens, sampler, stop, samples)
    begun = KeptState("", None) if state is None else state
    rows, constraint = [], constraint_of(sampler, tokenizer)
    for number, ids in enumerate(coded):
        # a prompt ends what was kept back, and a seed begins anew after it
        before = begun._replace(last=ids[-1], drawn=0, pending=b"", held="") if ids else begun
        for sample in range(samples):
            history = History(sampler, ids, tokenizer.end_id, constraint) if sampler.remembers else None
            text = TextRow(tokenizer, max_tokens, stop, before, ends is not None, sampler.stop_tokens)
            rows.append(_Row(number, sample, text, generator_of(sampler.seed, sample, before.drawn), history))
    return _advance(predictor, coded, rows, sampler, samples, begun, ends, log_probs)


def generate(
    predictor: Predictor,
    tokenizer: Tokenizer,
    prompts: Sequence[str] = ("",),
    max_tokens: int = 200,
    sampler: SamplerConfig | None = None,
    stop: Sequence[str] = (),
    samples: int = 1,
    state: KeptState | None = None,
    ends: dict[tuple[int, int], KeptState] | None = None,
    log_probs: int = 0,
) -> list[Generation]:
    """The texts of :func:`stream`, whole: ``samples`` for the first prompt, then those for the second..."""
    texts = [""] * (len(prompts) * samples)
    tokens: list[list[int]] = [[] for _ in texts]
    nats = [0.0] * len(texts)
    reasons: list[FinishReason] = ["length"] * len(texts)
    pieces: list[tuple[Piece, ...]] = [()] * len(texts)
    for piece in stream(predictor, tokenizer, prompts, max_tokens, sampler, stop, samples, state, ends, log_probs):
        place = piece.prompt * samples + piece.sample
        texts[place] += piece.text
        tokens[place].append(piece.token)
        nats[place] += piece.log_prob
        reasons[place] = piece.finish_reason or reasons[place]
        if log_probs:
            pieces[place] += (piece,)
    parts = zip(texts, tokens, nats, reasons, pieces, strict=True)
    return [Generation(prompts[place // samples], *part) for place, part in enumerate(parts)]


def _advance(
    predictor: Predictor,
    prompts: list[list[int]],
    rows: list[_Row],
    sampler: SamplerConfig,
    samples: int,
    begun: KeptState,
    ends: dict[tuple[int, int], KeptState] | None,
    log_probs: int,
) -> Iterator[Piece]:
    first = None if begun.tree is None else predictor.own_form(begun.tree)
    state = repeat_rows(read_prompts(predictor, prompts, first), samples)
    while rows:
        log_prob = predictor.predict(state).log_prob
        if not bool(log_prob.amax(-1).isfinite().all()):
            raise UnrolledError("the model gives no finite probabilities; its weights are damaged or diverged.")
        histories = [row.history for row in rows if row.history is not None] or None
        ids, filtered, stuck = choose(log_prob, sampler, [row.generator for row in rows], histories)
        if stuck and histories is not None:
            raise histories[stuck[0]].refusal()
        told = _told(log_prob, filtered, ids, log_probs) if log_probs else None
        nats = log_prob.gather(1, ids.to(log_prob.device).unsqueeze(1)).squeeze(1).tolist()
        alive, done = [], []
        for index, (row, token) in enumerate(zip(rows, ids.tolist(), strict=True)):
            if row.history is not None:
                row.history.push(token)
            text, reason = row.text.push(token, None if row.history is None else row.history.over)
            yield Piece(row.prompt, row.sample, token, nats[index], text, reason, None if told is None else told[index])
            (alive if reason is None else done).append(index)
        if ends is not None and done:
            after = predictor.observe(state, ids.to(predictor.device))
            for index in done:
                row = rows[index]
                tree = to(predictor.shared_form(select_rows(after, torch.tensor([index]))), "cpu")
                ends[row.prompt, row.sample] = row.text.after(begun, len(prompts[row.prompt]), tree)
        if not alive:
            return
        if done:
            rows, chosen = [rows[i] for i in alive], torch.tensor(alive)
            state, ids = select_rows(state, chosen), ids[chosen]
        state = predictor.observe(state, ids.to(predictor.device))


def _told(log_prob: Tensor, filtered: Tensor, ids: Tensor, count: int) -> list[Told]:
    def likeliest(values: Tensor) -> tuple[tuple[int, float], ...]:
        best = values.topk(min(count, len(values)))
        pairs = zip(best.indices.tolist(), best.values.tolist(), strict=True)
        return tuple((token, nats) for token, nats in pairs if nats > -float("inf"))

    own = filtered.cpu().gather(1, ids.unsqueeze(1)).squeeze(1).tolist()
    return [Told(nats, likeliest(a), likeliest(b)) for nats, a, b in zip(own, log_prob, filtered, strict=True)]
