"""Where columns begin, and columns whose state is dropped."""

from typing import Any

import numpy as np
import pytest

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.data import Stream, StreamConfig

END = 3


class Lines:
    """Lines of various lengths that end with END."""

    starts = None

    def __init__(self, ends: bool = True):
        generator = np.random.default_rng(1)
        parts = [np.append(generator.integers(4, 30, size), END) for size in generator.integers(1, 25, 400)]
        self.all = np.concatenate(parts) if ends else generator.integers(4, 30, 5000)

    def __len__(self) -> int:
        return len(self.all)

    def ids(self, start: int, stop: int) -> np.ndarray:
        return self.all[start:stop].astype(np.int64)


def make(lines: Any, own: range | None = None, **options: Any) -> Stream:
    config = StreamConfig.parse({"columns": 8, "window": 20, **options})
    return Stream(lines, config, RandomStreams(5), END, own)


@pytest.mark.parametrize("options", [{}, {"jitter": 60}, {"random_offset": True, "jitter": 60}])
def test_aligned_columns_begin_after_an_end_symbol(options: dict[str, Any]) -> None:
    lines = Lines()
    for epoch in range(3):
        window = make(lines, align="line", **options).window(epoch, 0)
        assert (window.inputs[:, 0] == END).all()
    plain = make(lines, **options).window(1, 0)
    assert not (plain.inputs[:, 0] == END).all()


def test_alignment_moves_a_column_to_the_next_line() -> None:
    lines = Lines()
    plain, aligned = make(lines), make(lines, align="line")
    for column in range(8):
        begin = column * (len(lines) // 8)
        while begin and lines.all[begin - 1] != END:
            begin += 1
        expected = lines.all[begin : begin + 20]
        assert aligned.window(0, 0).targets[column].tolist() == expected.tolist()
    assert aligned.windows_per_epoch() == plain.windows_per_epoch()


def test_alignment_runs_around_the_end() -> None:
    lines = Lines()
    lines.all[-40:] = 7
    stream = make(lines, align="line", columns=1, jitter=0)
    assert stream._planner._line_start(len(lines) - 20) == int(np.flatnonzero(lines.all == END)[0]) + 1


def test_a_text_without_lines_cannot_be_aligned() -> None:
    with pytest.raises(UsageError, match=r"stream\.align=line needs a text with lines"):
        make(Lines(ends=False), align="line").window(0, 0)


def test_states_are_dropped_at_the_stated_rate_and_reproducibly() -> None:
    lines = Lines()
    stream = make(lines, state_drop=0.25, columns=40, window=10)
    windows = [stream.window(epoch, i) for epoch in range(20) for i in range(stream.windows_per_epoch())]
    drops = sum(0 if w.restart is None else int(w.restart.sum()) for w in windows)
    assert drops / (40 * len(windows)) == pytest.approx(0.25, abs=0.02)
    assert all(w.restart is None for w in (make(lines).window(0, i) for i in range(5)))
    again = make(lines, state_drop=0.25, columns=40, window=10).window(3, 2).restart
    there = stream.window(3, 2).restart
    assert again is not None
    assert there is not None
    assert again.tolist() == there.tolist()
    whole = make(lines, state_drop=0.25, columns=8).window(1, 1).restart
    halves = [make(lines, range(low, low + 4), state_drop=0.25).window(1, 1).restart for low in (0, 4)]
    assert whole is not None
    assert whole.tolist() == [flag for half in halves for flag in ([False] * 4 if half is None else half.tolist())]


def test_a_state_is_carried_unless_the_config_says_otherwise() -> None:
    carried = [make(Lines()).window(0, i).carried for i in range(3)]
    afresh = [make(Lines(), carry=False).window(0, i) for i in range(3)]
    assert carried == [False, True, True]
    assert [window.carried for window in afresh] == [False] * 3
    assert all((a.inputs == make(Lines()).window(0, i).inputs).all() for i, a in enumerate(afresh)), "the same text"
