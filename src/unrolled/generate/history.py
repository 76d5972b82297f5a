"""What was said changes what is said next: penalties, sequences that do not come again, a least length."""

import copy
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.generate.config import SamplerConfig

__all__ = ["History", "NothingLeftError"]


class NothingLeftError(UsageError):
    """No token may come next."""

    def __init__(self) -> None:
        super().__init__("every token would repeat a sequence of the text; choose a larger no_repeat.")


class History:
    r"""The tokens of one text, and what they make of a distribution.

    With l the log-probabilities of the model, in this order:

    .. math::
        l_w &\leftarrow r\, l_w && \text{for every } w \text{ in prompt or text (Keskar et al. 2019)} \\
        l_w &\leftarrow l_w - a\,[n_w > 0] - b\, n_w && n_w \text{: how often } w \text{ was generated}

    then minus infinity for each token that would make a sequence of ``no_repeat`` tokens occur again, and for the end
    symbol before ``min_tokens``. On log-probabilities, which are not positive, the first penalty is that of
    transformers' processor; on logits, to which that library applies it, it would depend on a constant that means
    nothing.

    Args:
        prompt: its ids. end: the end symbol, or None.
    """

    def __init__(self, config: SamplerConfig, prompt: Sequence[int], end: int | None):
        self._config, self._end = config, end
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

    def leaves(self, vocabulary: int) -> bool:
        """Whether any token of so many may come next."""
        return len(self._forbidden()) < vocabulary

    def apply(self, log_prob: Tensor) -> Tensor:
        """The log-probabilities (V,) changed by what was said; not normalised.

        Raises:
            NothingLeftError: every token is forbidden.
        """
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
            if not self.leaves(len(changed)):
                raise NothingLeftError
        return changed

    def _forbidden(self) -> set[int]:
        found: set[int] = set()
        if self._size and len(self._recent) == self._size - 1:
            found |= self._followers.get(tuple(self._recent), set())
        if self._end is not None and self.count < self._config.min_tokens:
            found = found | {self._end}
        return found
