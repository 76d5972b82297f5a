"""The coder equals a plain one, lane by lane, and one number of any size."""

import math

import numpy as np
import pytest
import torch

from unrolled.compress.ans import Coded, Decoder, encode
from unrolled.compress.frequencies import intervals, quantise

LOW = 1 << 31


def plain_encode(texts: list[list[tuple[int, int]]], bits: int) -> tuple[list[int], list[int]]:
    """Lanes of (start, length), with Python integers: the states, and the words in the order of decoding."""
    states, words = [LOW] * len(texts), []
    for step in reversed(range(max(map(len, texts)))):
        for lane in reversed(range(len(texts))):
            if step < len(texts[lane]):
                start, length = texts[lane][step]
                if states[lane] >= length << (63 - bits):
                    words.append(states[lane] % (1 << 32))
                    states[lane] >>= 32
                states[lane] = (states[lane] // length << bits) + start + states[lane] % length
    return states, words[::-1]


def endless(text: list[tuple[int, int]], bits: int) -> int:
    """One lane as one integer without bounds: the definition."""
    x = LOW
    for start, length in reversed(text):
        x = (x // length << bits) + start + x % length
    return x


def case(seed: int, lanes: int, steps: int, last: int, size: int, bits: int, spread: float = 3.0):
    """Tables (steps, lanes, V) and ids (steps, lanes) drawn from them."""
    generator = torch.Generator().manual_seed(seed)
    nats = spread * torch.randn(steps, lanes, size, generator=generator, dtype=torch.float64)
    tables = quantise(nats.view(-1, size), bits).reshape(steps, lanes, size)
    drawn = torch.multinomial(nats.softmax(-1).view(-1, size), 1, generator=generator).view(steps, lanes).numpy()
    starts, lengths = np.zeros((2, steps, lanes), np.uint32)
    for step in range(steps):
        active = last if step == steps - 1 else lanes
        both = intervals(tables[step, :active], drawn[step, :active])
        starts[step, :active], lengths[step, :active] = both
    return tables, drawn, starts, lengths


CASES = [(1, 300, 1, 256, 24), (7, 100, 7, 256, 24), (7, 101, 3, 20, 24), (64, 60, 1, 2, 24), (5, 80, 5, 300, 30)]


@pytest.mark.parametrize(("lanes", "steps", "last", "size", "bits"), CASES)
def test_codes_equal_the_plain_coder_and_come_back(lanes, steps, last, size, bits):
    tables, ids, starts, lengths = case(1, lanes, steps, last, size, bits)
    coded = encode(starts, lengths, last, bits)
    rows = [steps if lane < last else steps - 1 for lane in range(lanes)]
    texts = [[(int(starts[t, lane]), int(lengths[t, lane])) for t in range(count)] for lane, count in enumerate(rows)]
    states, words = plain_encode(texts, bits)
    assert coded.states.tolist() == states
    assert coded.words.tolist() == words
    assert coded.words.dtype == np.uint32

    decoder = Decoder(coded, bits)
    for step in range(steps):
        active = last if step == steps - 1 else lanes
        found = decoder.step(tables[step, :active])
        assert found is not None
        assert found.tolist() == ids[step, :active].tolist()
        assert decoder.finished() == (step == steps - 1)


def test_length_is_that_of_the_definition():
    _, _, starts, lengths = case(2, 1, 2000, 1, 50, 24)
    coded = encode(starts, lengths, 1, 24)
    text = [(int(a), int(b)) for a, b in zip(starts[:, 0], lengths[:, 0], strict=True)]
    ideal = sum(24 - math.log2(length) for _, length in text)
    exact = math.log2(endless(text, 24)) - 31
    length = 32 * len(coded.words) + math.log2(coded.states[0]) - 31
    assert abs(exact - ideal) < 0.01
    assert abs(length - ideal) < 0.1  # of 4,860


def test_a_vocabulary_of_one_id_costs_nothing():
    table = quantise(torch.zeros(1, 1), 24)
    starts, lengths = np.zeros((500, 1), np.uint32), np.full((500, 1), 1 << 24, np.uint32)
    coded = encode(starts, lengths, 1, 24)
    assert len(coded.words) == 0
    decoder = Decoder(coded, 24)
    assert all(decoder.step(table) == [0] for _ in range(500))
    assert decoder.finished()


def test_nothing_coded():
    none = np.zeros((0, 1), np.uint32)
    coded = encode(none, none, 1, 24)
    assert coded.states.tolist() == [LOW]
    assert Decoder(coded, 24).finished()


def test_other_tables_and_missing_words_show():
    tables, ids, starts, lengths = case(3, 4, 200, 4, 30, 24)
    coded = encode(starts, lengths, 4, 24)

    def comes_back(coded: Coded, tables: np.ndarray) -> bool:
        decoder = Decoder(coded, 24)
        return all(decoder.step(table) is not None for table in tables) and decoder.finished()

    assert comes_back(coded, tables)
    assert not comes_back(Coded(coded.states, coded.words[:-1]), tables)
    other = tables.copy()  # one frequency differs by 1 of 16,777,216
    index = ids[20, 1]
    other[20, 1, index] += 1
    other[20, 1, other[20, 1].argmax() if other[20, 1].argmax() != index else index - 1] -= 1
    assert not comes_back(coded, other)
