"""The suffix index beside plain search in bytes."""

import random

import numpy as np
import pytest

from unrolled.core.errors import UsageError
from unrolled.counts.suffix import DEPTH, SuffixIndex


def texts(seed: int, count: int, letters: str = "abcd") -> list[bytes]:
    drawn = random.Random(seed)
    return ["".join(drawn.choice(letters) for _ in range(drawn.randrange(0, 60))).encode() for _ in range(count)]


def index(documents: list[bytes]) -> SuffixIndex:
    return SuffixIndex([np.frombuffer(one, np.uint8) for one in documents], 256)


def occurrences(document: bytes, part: bytes) -> list[int]:
    return [i for i in range(len(document) - len(part) + 1) if document.startswith(part, i)]


@pytest.mark.parametrize("few", [0, 1 << 14])
def test_counts_places_and_followers(few: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unrolled.counts.suffix._FEW", few)
    documents = [*texts(1, 60), b"", b"ab" * 100, b"", b"ab" * 40 + b"c"]
    found = index(documents)
    assert found.tokens == sum(map(len, documents))
    drawn = random.Random(2)
    for _ in range(400):
        document = documents[drawn.randrange(len(documents))]
        start, length = drawn.randrange(len(document) + 1), drawn.randrange(1, 6)
        part = document[start : start + length] or b"zz"
        if drawn.random() < 0.2:
            part += b"d"
        place = found.find(list(part))
        wanted = [(i, at) for i, one in enumerate(documents) for at in occurrences(one, part)]
        positions = found.positions(place)
        numbers = found.documents(positions)
        assert sorted(zip(numbers.tolist(), (positions - found.starts[numbers]).tolist(), strict=True)) == wanted
        after = {documents[i][at + len(part)] for i, at in wanted if at + len(part) < len(documents[i])}
        assert found.following(place, len(part)).tolist() == sorted(after)


def test_no_sequence_runs_into_the_next_document() -> None:
    found = index([b"ab", b"cd"])
    assert found.find(list(b"bc")) == (found.find(list(b"bc"))[0],) * 2
    assert found.following(found.find(list(b"b")), 1).tolist() == []
    assert found.following(found.find(list(b"d")), 1).tolist() == []
    assert found.following(found.whole, 0).tolist() == list(b"abcd")


def test_long_repeats() -> None:
    found = index([b"a" * 300, b"a" * 200])
    for length in (1, 40, DEPTH):
        low, high = found.find([97] * length)
        assert high - low == (300 - length + 1) + (200 - length + 1)
    assert found.following(found.find([97] * DEPTH), DEPTH).tolist() == []


def test_refused() -> None:
    for documents in ([], [b""], [b"", b""]):
        with pytest.raises(UsageError, match="no tokens"):
            index(documents)
