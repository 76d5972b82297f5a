"""Rules, the answer, and every sentence of a verdict."""

from dataclasses import replace

import numpy as np
import pytest

from compare.made import contrast, crossed, found, system
from unrolled.compare.answer import analyse
from unrolled.compare.results import Found, SystemFound
from unrolled.compare.sentences import number, p_value, sentence, signed
from unrolled.compare.statistics import CrossedDifference
from unrolled.compare.verdicts import ContrastFound

pytest.importorskip("scipy", reason="scipy is not installed (the extra report)")

BASE = CrossedDifference(
    difference=-0.0123, v_seed=1e-6, v_block=0.0, v_rest=0.0, variance=1e-6, freedoms=(11.0, 400.0),
    covers="seeds and text", paired=True, counts=(12, 12), blocks=401, sd=(0.003, 0.004), correlation=0.2, common=12,
    seeds_better=11, seed_variance=1.2e-5,
)  # fmt: skip
ROW = ContrastFound(
    "sharing", "S", "U", ("ptb-char",), "nats_per_token", "valid", "bits per character", True, True, True, 0.005,
    BASE, None, 0.0123, 0.9, "better",
)  # fmt: skip


def told(verdict: str = "better", p: float = 0.01, marks: tuple[str, ...] = (), **more: object) -> str:
    own = {key: more.pop(key) for key in list(more) if key in BASE.__dataclass_fields__}
    row = replace(ROW, found=replace(BASE, **own), verdict=verdict, p_holm=p, marks=marks, **more)
    return sentence(row)


def test_better_and_worse() -> None:
    assert told() == (
        "S is better than U on ptb-char: 0.0123 bits per character lower, 95 % interval 0.0101 to 0.0145 (12 seeds, "
        "S lower at 11 of 12, p = 0.01 after Holm)."
    )
    assert told("worse", 1e-6, difference=0.0123, seeds_better=0, covers="seeds") == (
        "S is worse than U on ptb-char: 0.0123 bits per character higher, 95 % interval over seeds 0.0101 to 0.0145 "
        "(12 seeds, S lower at 0 of 12, p < 0.0001 after Holm). The plan had registered that it is better."
    )
    assert told(difference=-0.003, smallest=0.02, split="test").endswith(
        "The difference is smaller than 0.02, below which the plan says nobody cares."
    )
    assert told(split="test").startswith("S is better than U on the test split of ptb-char: ")
    assert told(figure="train_nats").startswith("S is better than U on the training text of ptb-char: ")
    assert told(corpora=("x", "y")).startswith("S is better than U on x, y pooled: ")


def test_equivalent() -> None:
    assert told("equivalent", 0.8, difference=0.0003, counts=(12, 11), paired=False) == (
        "S and U are equivalent on ptb-char: the 90 % interval of their difference, -0.0015 to +0.0021 bits per "
        "character, lies within ± 0.005 (12 and 11 seeds, S lower at 11 of 12)."
    )


def test_undecided() -> None:
    assert told("undecided", 0.3, difference=-0.001, seeds_to_decide=23) == (
        "Undecided between S and U on ptb-char: difference -0.0010 bits per character, 95 % interval -0.0032 to "
        "+0.0012 (12 seeds, S lower at 11 of 12, p = 0.3 after Holm); about 23 seeds per system would decide."
    )
    assert told("undecided", 0.3, counts=(4, 12), paired=False, seeds_to_decide=23).endswith(
        "; about 23 seeds per system would decide (a rough guess, since 4 seeds hardly tell how much seeds differ)."
    )
    assert told("undecided", 0.3, v_block=1e-5).endswith(
        "; no number of seeds would decide on this text: it is too short for a difference as small as this."
    )
    assert told("undecided", 0.3).endswith("; more than 100,000 seeds per system would be needed.")
    assert told("undecided", 0.3, registered=False).endswith("after Holm).")
    assert "(12 seeds each, not the same, S lower" in told("undecided", 0.3, paired=False)
    assert told("undecided", covers="text", v_seed=0.0, v_block=1e-6, freedoms=(None, 400.0)).endswith(
        "bits per character, 95 % interval over the text alone -0.0143 to -0.0103; one seed of a system says nothing "
        "of other seeds, so add seeds."
    )
    assert told("undecided", covers="nothing", freedoms=(None, None)) == (
        "Undecided between S and U on ptb-char: difference -0.0123 bits per character; one seed of a system says "
        "nothing of other seeds, so add seeds."
    )
    assert sentence(replace(ROW, found=None, verdict="undecided")) == (
        "Undecided between S and U on ptb-char: there are no figures of both to compare."
    )


def test_marks_follow() -> None:
    text = told(marks=("2 of 12 runs of U diverged and are left out", "the value chosen for U is the least"))
    assert text.endswith("Holm). 2 of 12 runs of U diverged and are left out. The value chosen for U is the least.")


def test_numbers() -> None:
    assert [signed(value) for value in (0.0, -0.01234, 0.00042)] == ["+0.0000", "-0.0123", "+0.00042"]
    assert [p_value(p) for p in (0.04, 0.00012, 1e-5)] == ["= 0.04", "= 0.00012", "< 0.0001"]
    assert [number(None), number(1.23456), number(3.14159, 1)] == ["", "1.2346", "3.1"]


def systems(shift: float, seeds: int = 8) -> list[SystemFound]:
    rng = np.random.default_rng(0)
    blocks = 0.01 * rng.standard_normal(40)
    return [system("a", crossed(rng, seeds, 0, blocks)), system("b", crossed(rng, seeds, shift, blocks))]


RULES = {
    "sharing helps": {"a - b": ["better"]},
    "sharing does nothing or harms": {"a - b": ["equivalent", "worse"]},
}


def plan(shift: float, seeds: int = 8, rules: dict[str, dict[str, list[str]]] | None = None, wanted: int = 0) -> Found:
    return found(systems(shift, seeds), [contrast()], RULES if rules is None else rules, wanted or seeds)


def test_the_first_rule_that_holds_is_the_answer() -> None:
    assert analyse(plan(0.03)).answer == "sharing helps"
    assert analyse(plan(-0.03)).answer == "sharing does nothing or harms"
    both = {"first": {"a - b": ["better"]}, "second": {"a - b": ["better"]}}
    assert analyse(plan(0.03, rules=both)).answer == "first"
    assert analyse(plan(0.03, rules={"never": {"of another name": ["better"]}, **both})).answer == "first"


def test_undecided_with_what_would_decide() -> None:
    few = analyse(plan(0.005, 3))
    assert few.contrasts[0].verdict == "undecided"
    assert few.answer == (
        f"Undecided: about {few.contrasts[0].seeds_to_decide} seeds per system would decide 'a - b' "
        "(a rough guess, since 3 seeds hardly tell how much seeds differ)."
    )
    assert analyse(plan(0.03, 1)).answer == (
        "Undecided: 'a - b' would be decided by more seeds; with one or none nothing can be said of others."
    )
    assert analyse(plan(0.03, rules={"harm": {"a - b": ["worse"]}})).answer == (
        "Undecided: no rule of the plan fits what was found (a - b: better)."
    )
    rng = np.random.default_rng(1)
    own = [system("a", crossed(rng, 4)), system("b", crossed(rng, 4))]
    assert analyse(found(own, [contrast(smallest=1e-4)], RULES)).answer == (
        "Undecided: 'a - b' cannot all be decided on this text by any number of seeds; take a longer one."
    )


def test_without_rules_the_verdicts_are_the_answer() -> None:
    found_ = analyse(plan(0.03, rules={}))
    assert found_.answer == sentence(found_.contrasts[0])
    assert analyse(found(systems(0.03))).answer == (
        "The plan asks for no contrast; the table of systems is all that it has."
    )


def test_an_answer_that_may_still_change_says_so() -> None:
    early = analyse(plan(0.03, 8, wanted=12))
    assert (early.complete, early.missing) == (False, 8)
    assert early.answer == "Not final, since 8 runs have not ended: sharing helps"
    one = analyse(replace(plan(0.03), systems=(systems(0.03)[0], systems(0.03, 7)[1])))
    assert one.answer == "Not final, since 1 run has not ended: sharing helps"
    assert analyse(plan(0.03)).complete
