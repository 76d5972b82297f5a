"""Streams: every token once, resumable anywhere, resets where documents begin."""

from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data import Stream, StreamConfig, TokenSplit, UnitTables, Window, rows

TABLES = UnitTables.from_pieces([b"x"])
START = 10_000


def split_of(total: int, starts: list[int] | None = None) -> TokenSplit:
    """Tokens that tell their position: 0, 1, 2, ..."""
    return TokenSplit(np.arange(total), TABLES, starts=None if starts is None else np.array(starts))


def stream_of(total: int = 103, starts=None, seed: int = 1, own: range | None = None, **fields) -> Stream:
    config = StreamConfig.parse({"columns": 4, "window": 7} | fields)
    return Stream(split_of(total, starts), config, RandomStreams(seed), START, own, short=True)


def epoch_of(stream: Stream, epoch: int = 0) -> list[Window]:
    return [stream.window(epoch, index) for index in range(stream.windows_per_epoch(epoch))]


def joined(windows: list[Window], field: str) -> torch.Tensor:
    return torch.cat([getattr(window, field) for window in windows], 1)


CONFIGS = st.fixed_dictionaries(
    {
        "columns": st.integers(1, 6),
        "window": st.integers(1, 20),
        "variable_windows": st.booleans(),
        "random_offset": st.booleans(),
        "order": st.sampled_from(["corpus", "shuffled"]),
    }
)


@settings(max_examples=80, deadline=None)
@given(CONFIGS, st.integers(6, 200), st.sets(st.integers(1, 200), max_size=12), st.integers(0, 3))
def test_every_token_is_a_target_once_and_follows_its_input(config: dict, total: int, more: set[int], epoch: int):
    starts = [0, *sorted(s for s in more if s < total)]
    stream = stream_of(total, starts, **config)
    windows = epoch_of(stream, epoch)
    targets, inputs, reset = (joined(windows, field) for field in ("targets", "inputs", "reset"))
    length = total // config["columns"]
    assert targets.shape == (config["columns"], length)
    assert len(set(targets.flatten().tolist())) == targets.numel(), "no token twice"
    assert reset.flatten().tolist() == [t in starts for t in targets.flatten().tolist()]
    expected = torch.where(reset, START, targets - 1)
    assert torch.equal(inputs, expected)
    assert [window.carried for window in windows] == [False] + [True] * (len(windows) - 1)
    assert all(window.inputs.dtype == window.targets.dtype == torch.int64 for window in windows)
    if config["order"] == "corpus" and not config["random_offset"]:
        assert targets.flatten().tolist() == list(range(config["columns"] * length))


@settings(max_examples=40, deadline=None)
@given(CONFIGS, st.integers(0, 40), st.integers(0, 9))
def test_any_window_can_be_resumed_from(config: dict, skip: int, jitter: int):
    config |= {"jitter": jitter}
    starts = [0, 5, 50, 51, 90]
    whole = list(islice(stream_of(120, starts, **config), skip + 5))
    first = stream_of(120, starts, **config)
    for _ in range(skip):
        next(first)
    second = stream_of(120, starts, **config)
    second.seek(first.state())
    for number, expected in enumerate(whole[skip:], skip):
        for found in (next(second), first.at(number)):
            assert (found.epoch, found.index) == (expected.epoch, expected.index)
            assert torch.equal(found.inputs, expected.inputs)
            assert torch.equal(found.targets, expected.targets)
    assert first.position(*first.locate(skip)) == skip


def test_windows_have_the_length_asked_for_and_the_last_is_the_rest():
    assert [w.targets.shape[1] for w in epoch_of(stream_of(103, columns=4, window=7))] == [7, 7, 7, 4]


def test_a_split_without_starts_has_no_resets_and_begins_with_the_start_symbol():
    window = stream_of(103).window(0, 0)
    assert window.reset is None
    assert window.weight is None
    assert window.inputs[:, 0].tolist() == [START, 24, 49, 74]


def test_variable_windows_follow_the_published_draw():
    stream = stream_of(2_000_000, columns=1, window=70, variable_windows=True)
    sizes = np.array([w.targets.shape[1] for w in map(stream.at, range(3000))])
    halved = sizes < 52
    assert halved.mean() == pytest.approx(0.05, abs=0.015)
    assert sizes[~halved].mean() == pytest.approx(69.5, abs=0.5)
    assert sizes[halved].mean() == pytest.approx(34.5, abs=2)
    assert sizes[~halved].std() == pytest.approx(5, abs=0.5)
    capped = stream_of(100_000, columns=1, window=70, variable_windows=True, window_cap=72)
    assert max(w.targets.shape[1] for w in epoch_of(capped)) == 72
    short = stream_of(10_000, columns=1, window=5, variable_windows=True)
    assert min(w.targets.shape[1] for w in epoch_of(short)[:-1]) == 5
    assert stream.windows_per_epoch(0) != stream.windows_per_epoch(1)


def test_offsets_differ_by_epoch_and_go_around():
    stream = stream_of(100, columns=4, random_offset=True)
    firsts = [stream.window(epoch, 0).targets[:, 0] for epoch in range(30)]
    assert len({int(first[0]) for first in firsts}) > 10
    for first in firsts:
        assert ((first - first[0]) % 100).tolist() == [0, 25, 50, 75]


def test_jitter_moves_columns_within_its_range():
    stream = stream_of(1000, columns=4, jitter=9)
    firsts = torch.stack([stream.window(epoch, 0).targets[:, 0] for epoch in range(60)])
    moves = firsts - torch.tensor([0, 250, 500, 750])
    assert moves[:, 1:3].abs().max() == 9
    assert set(moves[:, 1].tolist()) == set(range(-9, 10)) & set(moves[:, 1].tolist())
    assert len(set(moves[:, 1].tolist())) > 10
    assert moves[:, 0].min() == 0, "the first column cannot begin before the text"
    assert moves[:, 3].max() == 0, "the last column cannot run beyond it"


def test_shuffled_order_is_a_permutation_of_whole_sentences():
    starts = [0, 3, 10, 11, 20, 60]
    stream = stream_of(80, starts, columns=1, window=9, order="shuffled")
    orders = set()
    for epoch in range(6):
        targets = joined(epoch_of(stream, epoch), "targets")[0].tolist()
        assert sorted(targets) == list(range(80))
        begun = [t for t in targets if t in starts]
        orders.add(tuple(begun))
        ends = dict(zip(starts, [*starts[1:], 80], strict=True))
        assert targets == [t for start in begun for t in range(start, ends[start])]
    assert len(orders) > 3


def test_processes_share_the_columns_of_one_order():
    fields = {"columns": 6, "random_offset": True, "variable_windows": True}
    streams = [stream_of(200, seed=3, own=range(low, low + 2), **fields) for low in (0, 2, 4)]
    whole = stream_of(200, seed=3, **fields)
    assert torch.equal(torch.cat([stream.window(1, 2).targets for stream in streams]), whole.window(1, 2).targets)
    for stream in streams:  # steps, budgets and rates are of the whole run
        assert stream.tokens_per_epoch() == whole.tokens_per_epoch()
        assert stream.full_batch == whole.full_batch


def test_seeds_change_the_order_and_nothing_else_does():
    one, two = (stream_of(100, seed=seed, random_offset=True).window(0, 0).targets for seed in (1, 2))
    again = stream_of(100, seed=1, random_offset=True).window(0, 0).targets
    assert torch.equal(one, again)
    assert not torch.equal(one, two)


def test_texts_that_are_too_short_are_refused():
    config = StreamConfig(columns=20, window=70)
    with pytest.raises(UsageError, match="20 columns are more than the text's 9 tokens"):
        Stream(split_of(9), config, RandomStreams(0), 0)
    with pytest.raises(UsageError, match="less than one window of 70 for each of 20 columns"):
        Stream(split_of(1000), config, RandomStreams(0), 0)
    assert len(epoch_of(Stream(split_of(1000), config, RandomStreams(0), 0, short=True))) == 1
    with pytest.raises(UsageError, match="order=shuffled needs sentences"):
        Stream(split_of(9999), StreamConfig(order="shuffled"), RandomStreams(0), 0)
    with pytest.raises(UsageError, match="there is no window 4"):
        stream_of(103).window(0, 4)


@given(st.lists(st.lists(st.integers(0, 99), min_size=1, max_size=9), max_size=12), st.integers(1, 5))
def test_rows_hold_every_sequence_once_padded_on_the_left(sequences: list[list[int]], batch: int):
    seen = []
    for window, order in rows(sequences, START, batch):
        assert len(order) <= batch
        assert window.weight is not None
        assert window.reset is not None
        for row, number in enumerate(order):
            counts = window.weight[row] > 0
            assert window.targets[row][counts].tolist() == sequences[number]
            assert window.inputs[row][counts].tolist() == [START, *sequences[number][:-1]]
            assert window.reset[row].nonzero().flatten().tolist() == [len(counts) - len(sequences[number])]
            assert counts.tolist() == sorted(counts.tolist()), "padding stands on the left"
        assert window.targets.shape[1] == max(len(sequences[number]) for number in order)
        seen += order
    assert sorted(seen) == list(range(len(sequences)))
    lengths = [len(sequences[number]) for number in seen]
    assert lengths == sorted(lengths)


def test_empty_rows_are_refused():
    with pytest.raises(UsageError, match="row 1 has no token"):
        next(rows([[1], []], START))
