"""Skip Kneser-Ney as it is written down: dictionaries of tuples, recursion from the whole context to none."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

from counts.reference import Reference

Key = tuple[frozenset[int], tuple[Any, ...], int]


class SkipReference(Reference):
    """See the equation in ``unrolled.counts.skip``; nothing is dropped. Histories are lists, the oldest first."""

    def __init__(self, texts: Sequence[Sequence[int]], size: int, start: int, order: int, reset: bool = True):
        self.size, self.start, self.reset, self.order = size, start, reset, order
        seen: Counter[Key] = Counter()
        fillings: defaultdict[Key, set[Any]] = defaultdict(set)
        alone: Counter[Key] = Counter()
        self.patterns = [frozenset(d for d in range(1, order) if m >> (d - 1) & 1) for m in range(1 << (order - 1))]
        for sequence in self._sequences(texts):
            for end in range(1, len(sequence)):
                for pattern in self.patterns:
                    if max(pattern, default=0) > end:
                        continue
                    key = self._key(pattern, sequence[:end], sequence[end])
                    seen[key] += 1
                    free = min(d for d in range(1, order + 1) if d not in pattern)
                    if free > end:
                        alone[key] += 1
                    else:
                        fillings[key].add(sequence[end - free])
        self.counted: dict[Key, int] = {}
        self.after: defaultdict[tuple[frozenset[int], tuple[Any, ...]], list[Key]] = defaultdict(list)
        for key, n in seen.items():
            self.counted[key] = n if len(key[0]) == order - 1 else len(fillings[key]) + alone[key]
            self.after[key[:2]].append(key)
        self.by_pattern = {pattern: self._of(pattern) for pattern in self.patterns}

    def _key(self, pattern: frozenset[int], history: Sequence[Any], token: int) -> Key:
        return pattern, tuple(history[-d] for d in sorted(pattern)), token

    def _of(self, pattern: frozenset[int]) -> list[float]:
        n = Counter(count for key, count in self.counted.items() if key[0] == pattern)
        fixed = [0.5, 1.0, 1.5]
        if not all(n[r] for r in (1, 2, 3, 4)):
            return fixed
        y = n[1] / (n[1] + 2 * n[2])
        found = [r - (r + 1) * y * n[r + 1] / n[r] for r in (1, 2, 3)]
        return found if all(0 < d <= r for r, d in enumerate(found, 1)) else fixed

    def skip_prob(self, history: Sequence[Any], token: int) -> float:
        """p(token | history)."""
        return self._mixed(frozenset(range(1, min(self.order - 1, len(history)) + 1)), history, token)

    def _mixed(self, pattern: frozenset[int], history: Sequence[Any], token: int) -> float:
        lower = 1 / self.size
        if pattern:
            lower = sum(self._mixed(pattern - {d}, history, token) for d in pattern) / len(pattern)
        key = self._key(pattern, history, token)
        keys = self.after.get(key[:2], [])
        if not keys:
            return lower
        total = sum(self.counted[one] for one in keys)
        discount = {one: self.by_pattern[pattern][min(self.counted[one], 3) - 1] for one in keys}
        own = (self.counted[key] - discount[key]) / total if key in self.counted else 0.0
        return own + sum(discount.values()) / total * lower
