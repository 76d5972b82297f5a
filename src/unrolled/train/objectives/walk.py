"""Texts that a model writes with a backspace, with the values of all that they pass, differentiable."""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from unrolled.core.tree import map_tree

__all__ = ["Walk", "walk"]


class Walk(NamedTuple):
    """actions: (texts, steps) ids. logit: of each where it was chosen, value: the log-sum of all logits there, after:
    the same in the state that it led to, 0 where the text ended. going: boolean, whether the text had not ended before.
    states: of the texts at the end, as the model carries them. length: (texts,) tokens left of each."""

    actions: Tensor
    logit: Tensor
    value: Tensor
    after: Tensor
    going: Tensor
    states: Any
    length: Tensor


def walk(
    model: Any,
    first: Tensor,
    backspace: int,
    end: int | None = None,
    uniform: Tensor | None = None,
    actions: Tensor | None = None,
) -> Walk:
    """Write texts token by token. The state after a backspace is the one that was there before the token it takes back,
    kept and not computed anew; with no token left it stays.

    Args:
        model: a language model with the full softmax. first: (texts,) ids that are read first.
        end: id that ends a text. uniform: (texts, steps) numbers from [0, 1) that tokens are drawn by, from the softmax
            of the logits; or actions: (texts, steps) ids in their place.
    """
    steps = actions if uniform is None else uniform
    assert steps is not None
    texts, count = steps.shape
    rows = torch.arange(texts, device=first.device)

    def read(ids: Tensor, state: Any) -> tuple[Any, Tensor]:
        out = model(ids.unsqueeze(1), state)
        h = model.head.project(out.dropped, None)[:, 0]
        return out.state, model.head.linear(h, model.head.weight, model.head.scaled_bias)

    state, logits = read(first, None)
    states, tables = [state], [logits]  # by the number of the step that made them; 0 is the beginning
    place = torch.zeros(texts, dtype=torch.int64, device=first.device)
    before = torch.zeros(texts, count + 1, dtype=torch.int64, device=first.device)  # where a backspace leads from each
    length = torch.zeros_like(place)
    going = torch.ones(texts, dtype=torch.bool, device=first.device)
    found: list[tuple[Tensor, ...]] = []
    for t in range(count):
        if actions is not None:
            ids = actions[:, t]
        else:
            assert uniform is not None
            total = torch.softmax(logits.detach().double(), 1).cumsum(1)
            ids = torch.searchsorted(total, uniform[:, t : t + 1].to(total) * total[:, -1:], right=True).squeeze(1)
            ids = ids.clamp(max=logits.shape[1] - 1)
        logit, value = logits[rows, ids], logits.logsumexp(1)
        back = ids == backspace
        state, made = read(ids, state)
        states.append(state)
        tables.append(made)
        before[:, t + 1] = place
        place = torch.where(back, before[rows, place], t + 1)
        length = torch.where(back, (length - 1).clamp(min=0), length + 1)
        logits = made
        if bool(back.any()):
            state, logits = _kept(states, place), _kept(tables, place)
        ended = torch.zeros_like(going) if end is None else ids == end
        after = logits.logsumexp(1).masked_fill(ended, 0.0)
        found.append((ids, logit, value, after, going))
        going = going & ~ended
    if not found:
        none, some = first.new_empty(texts, 0), logits.new_empty(texts, 0)
        return Walk(none, some, some, some, none.bool(), state, length)
    said, logit, value, after, alive = (torch.stack(each, 1) for each in zip(*found, strict=True))
    return Walk(said, logit, value, after, alive, state, length)


def _kept(made: list[Any], place: Tensor) -> Any:
    """Of each row what step ``place`` of it made."""
    chosen = [made[index] for index in place.tolist()]
    return map_tree(lambda *each: torch.stack([one[row] for row, one in enumerate(each)]), *chosen)
