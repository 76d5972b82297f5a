"""What was said changes what is said next: penalties, sequences that do not come again, a least length, constraints."""

import copy
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.registry import cut
from unrolled.generate.config import SamplerConfig
from unrolled.generate.constraints import CONSTRAINTS, Constraint
from unrolled.generate.row import Over
from unrolled.tokenizer import Tokenizer

__all__ = ["History", "constraint_of"]


def constraint_of(sampler: SamplerConfig, tokenizer: Tokenizer) -> Constraint | None:
    """What texts may be, for all texts of one request. Raises UsageError: this vocabulary cannot meet it."""
    config = sampler.constrain
    return None if config is None else CONSTRAINTS[config.name](config, tokenizer)


class History:
    r"""The tokens of one text, and what they make of a distribution.

    With l the log-probabilities of the model, in this order:

    .. math::
        l_w &\leftarrow r\, l_w && \text{for every } w \text{ in prompt or text (Keskar et al. 2019)} \\
        l_w &\leftarrow l_w - a\,[n_w > 0] - b\, n_w && n_w \text{: how often } w \text{ was generated}

    then minus infinity for each token that would make a sequence of ``no_repeat`` tokens occur again, for the end
    symbol before ``min_tokens``, and for what a constraint does not allow. The end symbol may come where the constraint
    is met, and a text that meets it and cannot go on is over. On log-probabilities, which are not positive, the first
    penalty is that of transformers' processor; on logits, to which that library applies it, it would depend on a
    constant that means nothing.

    Args:
        prompt: its ids. end: the end symbol, or None. constraint: see :func:`constraint_of`.

    Attributes:
        count: of the tokens that were generated. over: whether the text is whole: ``whole`` where nothing may come any
            more, ``ended`` where the end symbol came in place of more, which is no part of the text.
    """

    def __init__(
        self, config: SamplerConfig, prompt: Sequence[int], end: int | None, constraint: Constraint | None = None
    ):
        self._config, self._end, self._constraint = config, end, constraint
        self._place = None if constraint is None else constraint.begin(prompt)
        self._written: tuple[int, ...] = ()  # where there is a constraint, for what it says of a dead end
        self.over: Over = None
        self._said = set(prompt)
        self._counts: Counter[int] = Counter()
        self._size = config.no_repeat or 0
        self._followers: dict[tuple[int, ...], set[int]] = {}
        self._recent: list[int] = []
        self.count = 0
        if self._size and config.no_repeat_prompt:
            for token in prompt:
                self._follow(token)

    def _follow(self, token: int) -> None:
        """Note a token as one that follows the ``no_repeat`` - 1 before it."""
        recent = self._recent
        if len(recent) >= self._size - 1:
            context = tuple(recent[len(recent) - self._size + 1 :])
            self._followers.setdefault(context, set()).add(token)
        recent.append(token)
        del recent[: max(0, len(recent) - self._size + 1)]

    def fork(self) -> "History":
        """The same text, to be gone on with in another way."""
        made = copy.copy(self)
        made._said, made._counts, made._recent = set(self._said), Counter(self._counts), list(self._recent)
        made._followers = {context: set(tokens) for context, tokens in self._followers.items()}
        return made

    def push(self, token: int) -> None:
        """A token was generated."""
        self._said.add(token)
        self._counts[token] += 1
        self.count += 1
        if self._size:
            self._follow(token)
        if self._constraint is None:
            return
        if token == self._end and not bool(self._constraint.allowed(self._place)[token]):
            self.over = "ended"
            return
        self._written = (*self._written, token)
        self._place = self._constraint.advance(self._place, token)
        if not bool(self._constraint.allowed(self._place).any()) and self._constraint.complete(self._place):
            self.over = "whole"

    def refusal(self) -> UsageError:
        """Why no token may come next, where none may."""
        if self._constraint is None:
            return UsageError("every token would repeat a sequence of the text; choose a larger no_repeat.")
        name, told = self._constraint.config.name, self._constraint
        if bool(told.allowed(self._place).any()) or told.complete(self._place):
            return UsageError(
                f"what the constraint {name} allows next is forbidden by other options or has no probability; leave "
                "out no_repeat and min_tokens, or change it."
            )
        text = cut(told.tokenizer.decode(self._written), 80)
        return UsageError(f"with the constraint {name}, after {text!r}, {told.lacking(self._written)}; change it.")

    def apply(self, log_prob: Tensor) -> Tensor:
        """The log-probabilities (V,) changed by what was said; not normalised. Minus infinity alone where nothing is
        left, see :meth:`refusal`."""
        config, changed = self._config, log_prob.clone()
        if config.repetition is not None and self._said:
            said = torch.tensor(sorted(self._said))
            changed[said] *= config.repetition
        if (config.presence or config.frequency) and self._counts:
            ids = torch.tensor(list(self._counts))
            times = torch.tensor(list(self._counts.values()), dtype=changed.dtype)
            changed[ids] -= config.presence + config.frequency * times
        forbidden = self._forbidden()
        if forbidden:
            changed[torch.tensor(sorted(forbidden))] = -torch.inf
        if self._constraint is not None:
            allowed = self._constraint.allowed(self._place)
            if self._end is not None and not bool(allowed[self._end]) and self._constraint.complete(self._place):
                allowed = allowed.clone()
                allowed[self._end] = True
            changed.masked_fill_(~allowed, -torch.inf)
        return changed

    def _forbidden(self) -> set[int]:
        found: set[int] = set()
        if self._size and len(self._recent) == self._size - 1:
            found |= self._followers.get(tuple(self._recent), set())
        if self._end is not None and self.count < self._config.min_tokens:
            found = found | {self._end}
        return found
