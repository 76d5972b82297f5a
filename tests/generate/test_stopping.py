"""Stop strings that arrive in pieces."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from unrolled.generate.stopping import StopWatch

WORDS = st.text("ab", max_size=12)


@given(text=WORDS, stops=st.lists(st.text("ab", min_size=1, max_size=4), max_size=3), cuts=st.sets(st.integers(0, 12)))
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
    first = min((at for at in map(text.find, stops) if at >= 0), default=None)
    assert stopped == (first is not None)
    assert (shown if stopped else shown + watch.finish()) == text[:first]


def test_held_text_comes_at_the_end():
    watch = StopWatch(["\n\n"])
    assert watch.push("a\n") == ("a", False)
    assert watch.push("b\n") == ("\nb", False)
    assert watch.finish() == "\n"
    assert watch.finish() == ""
