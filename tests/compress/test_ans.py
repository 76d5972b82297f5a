"""The coder equals its definition, one number of any size, and costs what the tables say."""

import math

import numpy as np
import pytest
import torch

from unrolled.compress.ans import Coded, Decoder, encode
from unrolled.compress.frequencies import intervals, quantise

LOW = 1 << 32


def endless_encode(text: list[tuple[int, int]], bits: int) -> int:
    """The definition: (start, length) of every id to one integer without bounds, no words."""
    x = LOW
    for start, length in reversed(text):
        x = (x // length << bits) + start + x % length
    return x


def endless_decode(x: int, tables: list[list[int]], bits: int) -> tuple[list[int], int]:
    """The inverse: ids, and what is left of the integer."""
    ids = []
    for table in tables:
        slot, start, index = x % (1 << bits), 0, 0
        while start + table[index] <= slot:
            start, index = start + table[index], index + 1
        ids.append(index)
        x = table[index] * (x >> bits) + slot - start
    return ids, x


def case(seed: int, count: int, size: int, bits: int, spread: float = 3.0):
    """Tables (count, V), ids drawn from them, and their intervals."""
    generator = torch.Generator().manual_seed(seed)
    nats = spread * torch.randn(count, size, generator=generator, dtype=torch.float64)
    ids = torch.multinomial(nats.softmax(-1), 1, generator=generator).squeeze(1).numpy()
    table = quantise(nats, bits)
    return table, ids, *intervals(table, ids)


@pytest.mark.parametrize(("count", "size", "bits"), [(300, 256, 24), (1, 2, 24), (500, 2, 24), (200, 300, 30)])
def test_ids_come_back_as_from_the_definition(count, size, bits):
    table, ids, starts, lengths = case(1, count, size, bits)
    text = list(zip(starts.tolist(), lengths.tolist(), strict=True))
    assert endless_decode(endless_encode(text, bits), table.tolist(), bits) == (ids.tolist(), LOW)

    coded = encode(starts, lengths, bits)
    assert coded.words.dtype == np.uint32
    assert LOW <= coded.state < 1 << 64
    for rows in (1, 7, count):
        decoder, found = Decoder(coded, bits), []
        for low in range(0, count, rows):
            assert not decoder.finished()
            taken = decoder.take(table[low : low + rows])
            assert taken is not None
            found += taken.tolist()
        assert found == ids.tolist()
        assert decoder.finished()


@pytest.mark.parametrize(("size", "bits"), [(50, 24), (1000, 28), (1000, 30)])
def test_length_is_the_sum_over_the_tables(size, bits):
    _, _, starts, lengths = case(2, 2000, size, bits)
    ideal = sum(bits - math.log2(length) for length in lengths.tolist())
    text = list(zip(starts.tolist(), lengths.tolist(), strict=True))
    assert abs(math.log2(endless_encode(text, bits)) - 32 - ideal) < 0.01
    coded = encode(starts, lengths, bits)
    assert abs(32 * len(coded.words) + math.log2(coded.state) - 32 - ideal) < 1e-4 * ideal


def test_blocks_do_not_show(monkeypatch):
    _, _, starts, lengths = case(4, 250, 30, 24)
    whole = encode(starts, lengths, 24)
    for size in (1, 7, 250):
        monkeypatch.setattr("unrolled.compress.ans._BLOCK", size)
        assert encode(starts, lengths, 24).state == whole.state
        assert encode(starts, lengths, 24).words.tolist() == whole.words.tolist()


def test_a_vocabulary_of_one_id_costs_nothing():
    table = quantise(torch.zeros(1, 1), 24)
    coded = encode(np.zeros(500, np.uint32), np.full(500, 1 << 24, np.uint32), 24)
    assert len(coded.words) == 0
    decoder = Decoder(coded, 24)
    assert all(decoder.take(table) == [0] for _ in range(500))
    assert decoder.finished()


def test_nothing_coded():
    coded = encode(np.zeros(0, np.uint32), np.zeros(0, np.uint32), 24)
    assert coded.state == LOW
    assert Decoder(coded, 24).finished()


def test_other_tables_and_missing_words_show():
    table, ids, starts, lengths = case(3, 800, 30, 24)
    coded = encode(starts, lengths, 24)

    def comes_back(coded: Coded, table: np.ndarray) -> bool:
        decoder = Decoder(coded, 24)
        return decoder.take(table) is not None and decoder.finished()

    assert comes_back(coded, table)
    assert not comes_back(Coded(coded.state, coded.words[:-1]), table)
    other = table.copy()  # one frequency differs by 1 of 16,777,216
    other[80, ids[80]] += 1
    other[80, ids[80] - 1] -= 1
    assert not comes_back(coded, other)
