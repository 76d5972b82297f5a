"""Tables equal a plain form of the rule, and cost what they should."""

import math
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.compress.frequencies import intervals, quantise, total_bits
from unrolled.core.errors import UnrolledError


def plain_table(share: list[float], bits: int) -> list[int]:
    """The rule in exact arithmetic, for shares that sum to 1 in any float type."""
    exact = [Fraction(value) for value in share]
    scale = Fraction((1 << bits) - len(share)) / sum(exact)
    table = [math.floor(value * scale) + 1 for value in exact]
    table[table.index(max(table))] += (1 << bits) - sum(table)
    return table


def plain_interval(row: list[int], index: int) -> tuple[int, int]:
    return sum(row[:index]), row[index]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([-math.inf, -50.0, -7.3, -1.0, -0.5, 0.0, 3.2]), min_size=1, max_size=40))
def test_tables_equal_the_plain_rule(nats):
    if max(nats) == -math.inf:
        nats[0] = 0.0
    bits = total_bits(len(nats))
    share = np.exp(np.array(nats) - max(nats))
    table = quantise(torch.tensor([nats], dtype=torch.float64), bits)[0].tolist()
    expected = plain_table(share.tolist(), bits)
    assert sum(table) == 1 << bits
    assert min(table) >= 1
    # float64 may fall on the other side of an integer than exact arithmetic, once in about 1e9 values; the
    # largest takes up what that leaves
    assert max(abs(a - b) for a, b in zip(table, expected, strict=True)) <= len(nats)
    largest = table.index(max(table))
    assert all(abs(a - b) <= 1 for n, (a, b) in enumerate(zip(table, expected, strict=True)) if n != largest)


@pytest.mark.parametrize(("size", "bits"), [(1, 24), (256, 24), (4095, 24), (4096, 25), (33278, 28), (793471, 30)])
def test_totals(size, bits):
    assert total_bits(size) == bits
    assert math.log2((1 << bits) / ((1 << bits) - size)) < 0.0011


def test_ties_go_to_the_lowest_id():
    table = quantise(torch.zeros(1, 3, dtype=torch.float64), 24)
    assert table.tolist() == [[5592406, 5592405, 5592405]]
    table = quantise(torch.tensor([[-5.0, 0.0, 0.0, -5.0]]), 24)[0]
    assert table[1] > table[2]
    assert table[0] == table[3]


def test_scale_does_not_matter_and_types_do_not_break_it():
    nats = torch.randn(3, 50, dtype=torch.float64)
    for dtype in (torch.float64, torch.float32, torch.bfloat16):
        table = quantise(nats.to(dtype).requires_grad_(), 24)
        assert table.dtype == np.int64
        assert (table.sum(1) == 1 << 24).all()
    np.testing.assert_array_equal(quantise(nats - 1000, 24), quantise((nats - 1000) + 0.0, 24))
    assert abs(quantise(nats + 100, 24) - quantise(nats, 24)).max() <= 50


def test_the_sum_holds_for_sharp_and_flat_rows():
    rows = torch.zeros(200, 1000, dtype=torch.float64)
    generator = torch.Generator().manual_seed(3)
    for number, row in enumerate(rows):
        row.copy_(torch.randn(1000, generator=generator, dtype=torch.float64) * number)
    for bits in (24, 30):
        table = quantise(rows, bits)
        assert (table.sum(1) == 1 << bits).all()
        assert table.min() == 1


@pytest.mark.parametrize("size", [256, 10000])
def test_the_loss_is_small(size):
    """Expected bits under the true distribution, with the table's probabilities in place of the true ones."""
    generator = torch.Generator().manual_seed(4)
    rows = torch.log_softmax(3 * torch.randn(100, size, generator=generator, dtype=torch.float64), -1)
    bits = total_bits(size)
    used = torch.from_numpy(quantise(rows, bits)).double().log() - bits * math.log(2)
    entropy = -(rows.exp() * rows).sum()
    assert 0 <= float(-(rows.exp() * used).sum() - entropy) < 1e-3 * float(entropy)


@pytest.mark.parametrize("bad", [[math.nan, 0.0], [math.inf, 0.0], [-math.inf, -math.inf]])
def test_no_finite_probabilities_are_refused(bad):
    with pytest.raises(UnrolledError, match="no finite probabilities"):
        quantise(torch.tensor([[0.0, 0.0], bad]), 24)


def test_intervals_equal_the_plain_form():
    table = quantise(torch.randn(5, 9), 24)
    ids = np.array([0, 3, 8, 8, 1])
    starts, lengths = intervals(table, ids)
    for row, index, start, length in zip(table.tolist(), ids.tolist(), starts, lengths, strict=True):
        assert plain_interval(row, index) == (start, length)
