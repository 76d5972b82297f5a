"""Kneser-Ney as it is written down: dictionaries of tuples, one n-gram at a time, recursion to order 0."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

BEGIN = "<s>"

Gram = tuple[Any, ...]


class Reference:
    """An interpolated model in the equations' own form.

    Args:
        texts: ids of each text. start: the end symbol. reset: sentences end with it and begin with BEGIN, a
            symbol of its own; else a text is preceded by ``start`` itself and is one sequence.
        least: least count of each order; all 1: nothing is dropped.
        dropped: ``interpolate`` or ``backoff``, see KneserNeyConfig.
    """

    def __init__(
        self,
        texts: Sequence[Sequence[int]],
        size: int,
        start: int,
        order: int,
        kind: str = "modified",
        reset: bool = True,
        least: Sequence[int] = (1, 1, 1, 1, 1),
        dropped: str = "interpolate",
    ):
        self.size, self.start, self.reset = size, start, reset
        self.least, self.dropped = least, dropped
        seen: Counter[Gram] = Counter()
        lefts: defaultdict[Gram, set[Any]] = defaultdict(set)
        alone: Counter[Gram] = Counter()
        for sequence in self._sequences(texts):
            for end in range(2, len(sequence) + 1):  # the first symbol is given, never predicted
                for length in range(1, min(order, end) + 1):
                    gram = tuple(sequence[end - length : end])
                    seen[gram] += 1
                    if end > length:
                        lefts[gram].add(sequence[end - length - 1])
                    else:
                        alone[gram] += 1
        self.seen = seen
        self.count: dict[Gram, int] = {}
        self.follow: defaultdict[Gram, list[Gram]] = defaultdict(list)
        for gram, n in seen.items():
            self.count[gram] = n if len(gram) == order else len(lefts[gram]) + alone[gram]
            self.follow[gram[:-1]].append(gram)
        self.discounts = [self._discounts(k, kind) for k in range(1, order + 1)]

    def _sequences(self, texts: Sequence[Sequence[int]]) -> list[list[Any]]:
        if not self.reset:
            return [[self.start, *text] for text in texts]
        result = []
        for text in texts:
            sentence: list[Any] = [BEGIN]
            for token in text:
                sentence.append(token)
                if token == self.start:
                    result.append(sentence)
                    sentence = [BEGIN]
            result.append(sentence)
        return result

    def _discounts(self, order: int, kind: str) -> list[float]:
        n = Counter(count for gram, count in self.count.items() if len(gram) == order)
        if kind == "single":
            return [n[1] / (n[1] + 2 * n[2]) if n[1] and n[2] else 0.5] * 3
        fixed = [0.5, 1.0, 1.5]
        if not all(n[r] for r in (1, 2, 3, 4)):
            return fixed
        y = n[1] / (n[1] + 2 * n[2])
        found = [r - (r + 1) * y * n[r + 1] / n[r] for r in (1, 2, 3)]
        return found if all(0 < d <= r for r, d in enumerate(found, 1)) else fixed

    def context(self, text: Sequence[int]) -> Gram:
        """What counts of a text that was read from its beginning."""
        return tuple(self._sequences([text])[-1])

    def prob(self, context: Gram, token: int) -> float:
        """p(token | context); a context may have any length."""
        context = context[max(0, len(context) - len(self.discounts) + 1) :]
        return self._prob(context, token)

    def _prob(self, context: Gram, token: int) -> float:
        lower = self._prob(context[1:], token) if context else 1 / self.size
        grams = self.follow.get(context, [])
        if not grams:
            return lower
        kept = [gram for gram in grams if len(gram) == 1 or self.seen[gram] >= self.least[len(context)]]
        if (*context, token) in kept:
            return self._kept(context, token, lower, grams, kept)
        if self.dropped == "interpolate":
            return self._gamma(context, grams, kept) * lower
        here, below = 0.0, 0.0
        for *_, other in kept:
            under = self._prob(context[1:], other) if context else 1 / self.size
            here += self._kept(context, other, under, grams, kept)
            below += under
        return (1 - here) / (1 - below) * lower

    def _discount(self, gram: Gram) -> float:
        return self.discounts[len(gram) - 1][min(self.count[gram], 3) - 1]

    def _gamma(self, context: Gram, grams: list[Gram], kept: list[Gram]) -> float:
        free = 0.0
        for gram in grams:
            whole = gram not in kept and self.dropped == "interpolate"
            free += self.count[gram] if whole else self._discount(gram)
        return free / sum(self.count[gram] for gram in grams)

    def _kept(self, context: Gram, token: int, lower: float, grams: list[Gram], kept: list[Gram]) -> float:
        gram = (*context, token)
        total = sum(self.count[gram] for gram in grams)
        return (self.count[gram] - self._discount(gram)) / total + self._gamma(context, grams, kept) * lower
