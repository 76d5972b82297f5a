"""What every way of writing begins with and gives: prompts, checks, pieces."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from unrolled.core.errors import UsageError
from unrolled.core.tree import map_tree, repeat_rows, select_rows
from unrolled.generate.config import SamplerConfig
from unrolled.generate.row import FinishReason
from unrolled.predict import Predictor
from unrolled.tokenizer import Tokenizer

__all__ = ["Piece", "Told", "check_choice", "read_prompts"]

_CHUNK = 512


class Piece(NamedTuple):
    """What one token adds to one text.

    prompt, sample: which text. token: the id; log_prob: its nats under the predictor, before temperature and
    filters. text: what may be shown now, perhaps nothing. finish_reason: set with the last token of a text. told: where
    the likeliest tokens are asked for.
    """

    prompt: int
    sample: int
    token: int
    log_prob: float
    text: str
    finish_reason: FinishReason | None
    told: "Told | None" = None


class Told(NamedTuple):
    """A token and the likeliest in its place. log_prob: its nats after what was said and filters. before, after: (id,
    nats) of the likeliest by the model, and of those after filters, of which there may be fewer."""

    log_prob: float
    before: tuple[tuple[int, float], ...]
    after: tuple[tuple[int, float], ...]


def check_choice(tokenizer: Tokenizer, sampler: SamplerConfig, stop: Sequence[str]) -> None:
    """Raises UsageError for an empty stop string, and a bias, stop token or backspace of no id."""
    if "" in stop:
        raise UsageError("a stop string is empty; leave it out.")
    back = () if sampler.backspace is None else (sampler.backspace,)
    for name, ids in (("bias", sampler.bias), ("stop token", sampler.stop_tokens), ("backspace", back)):
        odd = next((one for one in ids if not 0 <= one < tokenizer.vocab_size), None)
        if odd is not None:
            raise UsageError(f"a {name} names the id {odd}, and there are {tokenizer.vocab_size:,}; leave it out.")


def read_prompts(predictor: Predictor, prompts: Sequence[Sequence[int]], state: Any = None) -> Any:
    """The state after prompts of any lengths (0 included), one row each, in their order.

    Args:
        state: of one row, which each of them goes on from; absent: a text's beginning.

    Rows are sorted by length and read together as far as the shortest goes, then without it, and so on: no
    row ever reads padding, and each reads exactly what it would read alone.
    """
    if predictor.lockstep and len({len(prompt) for prompt in prompts}) > 1:
        raise UsageError(f"with {predictor.kind} all prompts must have as many tokens; give them one at a time.")
    by_length = sorted(range(len(prompts)), key=lambda index: len(prompts[index]))
    state = predictor.begin(len(prompts)) if state is None else repeat_rows(state, len(prompts))
    order, done, finished = by_length, 0, []
    while order:
        length = len(prompts[order[0]])
        ids = torch.tensor([list(prompts[i][done:length]) for i in order], dtype=torch.int64)
        for part in ids.split(_CHUNK, 1):
            state = predictor.consume(state, part.to(predictor.device))
        count = sum(len(prompts[i]) == length for i in order)
        places = torch.arange(len(order))
        finished.append(select_rows(state, places[:count]))
        state, order, done = select_rows(state, places[count:]), order[count:], length
    joined = map_tree(lambda *parts: torch.cat(parts), *finished)
    return select_rows(joined, torch.tensor(by_length).argsort())
