"""Synthetic problems: generators of rows with known answers, and the table of them.

A new problem is one file and one line here (see docs/adding-a-problem.md). Every batch is made from a seed, the name of
a split and a number alone, so that data are endless, any batch can be made again, and validation depends on no
training.
"""

from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny

from unrolled.core.registry import Registry
from unrolled.data.made.base import Answers, Batch, Problem, ProblemConfig, Span, shared_rows

__all__ = ["MADE", "Answers", "AnyProblemConfig", "Batch", "Problem", "ProblemConfig", "Span", "shared_rows"]

MADE: "Registry[type[Problem]]" = Registry(
    "problem",
    {
        "mqar": "unrolled.data.made.mqar:MultiQuery",
        "recall": "unrolled.data.made.recall:Recall",
        "copy": "unrolled.data.made.copying:Copy",
        "lookup": "unrolled.data.made.copying:Lookup",
        "induction": "unrolled.data.made.copying:Induction",
        "kv_position": "unrolled.data.made.places:KeyPosition",
        "passkey": "unrolled.data.made.places:Passkey",
        "segments": "unrolled.data.made.segments:Segments",
        "memorise": "unrolled.data.made.storage:Memorise",
        "compress": "unrolled.data.made.storage:Compress",
        "flipflop": "unrolled.data.made.flipflop:FlipFlop",
        "group": "unrolled.data.made.group:Group",
        "tomita": "unrolled.data.made.regular:Tomita",
        "regular": "unrolled.data.made.regular:Regular",
        "dyck": "unrolled.data.made.dyck:Dyck",
        "counter": "unrolled.data.made.counter:Counter",
        "chomsky": "unrolled.data.made.chomsky:Chomsky",
        "automaton": "unrolled.data.made.automaton:Automaton",
        "sources": "unrolled.data.made.sources:Sources",
        "istree": "unrolled.data.made.istree:IsTree",
        "recursion": "unrolled.data.made.recursion:Recursion",
    },
)

AnyProblemConfig = Annotated[SerializeAsAny[ProblemConfig], BeforeValidator(MADE.parse)]
"""A field that takes the config of any problem, or its name alone."""
