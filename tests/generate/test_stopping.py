"""Stop strings that arrive in pieces."""

import itertools

from hypothesis import example, given
from hypothesis import strategies as st

from unrolled.generate.stopping import StopWatch

WORDS = st.text("ab", max_size=12)


@given(text=WORDS, stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), cuts=st.sets(st.integers(0, 12)))
@example(text="aba", stops=["b", "aba"], cuts={2})
@example(text="aba", stops=["b", "aba"], cuts=set())
def test_what_is_shown_is_the_text_before_the_first_stop(text, stops, cuts):
    watch, shown, stopped = StopWatch(stops), "", False
    borders = [0, *sorted(cut for cut in cuts if cut < len(text)), len(text)]
    for low, high in itertools.pairwise(borders):
        part, stopped = watch.push(text[low:high])
        shown += part
        # Nothing shown may turn out later to be part of a stop string.
        before = text[:high]
        ends = [size for stop in stops for size in range(1, len(stop)) if before.endswith(stop[:size])]
        if not stopped:
            assert shown == before[: len(before) - max(ends, default=0)]
        if stopped:
            break
    # Read character by character: the stop string that is complete first, the longest of those that end together.
    ends = (end for end in range(1, len(text) + 1) if text[:end].endswith(tuple(stops)))
    end = next(ends, None) if stops else None
    first = None if end is None else end - max(len(stop) for stop in stops if text[:end].endswith(stop))
    assert stopped == (first is not None)
    assert (shown if stopped else shown + watch.finish()) == text[:first]


def test_held_text_comes_at_the_end():
    watch = StopWatch(["\n\n"])
    assert watch.push("a\n") == ("a", False)
    assert watch.push("b\n") == ("\nb", False)
    assert watch.finish() == "\n"
    assert watch.finish() == ""
