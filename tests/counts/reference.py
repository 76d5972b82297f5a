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
        least: least count of each order; prune nothing: all 1.
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
    ):
        self.size, self.start, self.reset, self.least = size, start, reset, least
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
        total = sum(self.count[gram] for gram in grams)
        discounts = self.discounts[len(context)]
        own, free = 0.0, 0.0
        for gram in grams:
            count = self.count[gram]
            kept = len(gram) == 1 or self.seen[gram] >= self.least[len(context)]
            discount = discounts[min(count, 3) - 1] if kept else count
            free += discount
            if gram[-1] == token:
                own = count - discount
        return own / total + free / total * lower
