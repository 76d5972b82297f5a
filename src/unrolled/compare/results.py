"""What a comparison has found, as values: everything that statistics and reports read, and nothing else.

A comparison's folder is read into these; they are also made by hand, in tests and simulations.
"""

from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from unrolled.compare.contrast import ContrastConfig, RuleConfig

__all__ = ["CurvePoint", "Found", "RunFound", "SearchFound", "SystemFound"]


@dataclass(frozen=True)
class CurvePoint:
    """A validation during training: tokens read, CPU seconds since the start, nats per token."""

    tokens: int
    cpu_seconds: float
    nats_per_token: float


@dataclass(frozen=True)
class RunFound:
    """One full run of a system.

    Attributes:
        nats_per_token: of the saved model, whole validation split, default protocol; None where it diverged.
        bits_per_character: of the same; None too where the text has no characters to count.
        blocks: (blocks,) mean nats per token of each block of ``block`` tokens of that split, the last one shorter;
            empty where it diverged. All runs on one corpus have equally many.
        train_nats: mean of the training loss over the last tenth of the run.
        recovery: further figures by name that contrasts may be asked of, such as the excess after a corruption.
    """

    seed: int
    status: Literal["finished", "diverged"]
    value: float | str | None
    nats_per_token: float | None = None
    bits_per_character: float | None = None
    train_nats: float | None = None
    tokens: int = 0
    cpu_seconds: float = 0.0
    wall_seconds: float = 0.0
    machine: str = ""
    backends: dict[str, str] = field(default_factory=dict)
    blocks: np.ndarray = field(default_factory=lambda: np.zeros(0))
    curve: tuple[CurvePoint, ...] = ()
    figures: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class SearchFound:
    """A value of the searched setting, over the search's seeds; ``nats_per_token`` is infinite where one diverged."""

    value: float | str
    nats_per_token: float
    seeds: int
    edge: bool = False
    """Whether it was added beyond the plan's list because the best lay at its edge."""


@dataclass(frozen=True)
class SystemFound:
    """One system on one corpus.

    Attributes:
        state: numbers that its layers carry from step to step.
        chosen: the value that its search chose; None without a search.
        at_edge: the chosen value is the least or largest that was tried.
        runs: those with the chosen value. set_aside: full runs with an earlier choice that diverged.
    """

    name: str
    corpus: str
    parameters: int
    width: int
    flops_per_token: int
    tokens: int
    chosen: float | str | None = None
    at_edge: bool = False
    search: tuple[SearchFound, ...] = ()
    runs: tuple[RunFound, ...] = ()
    set_aside: tuple[RunFound, ...] = ()
    state: int = 0


@dataclass(frozen=True)
class Found:
    """A whole comparison as far as it has come.

    Attributes:
        title, question: from the plan. sha256: of the locked plan.
        wanted: seeds that the plan (with its amendments) asks for.
        block: tokens of a block, by corpus. split_tokens: of the whole validation split, by corpus; its last block has
            what is left. Absent, all blocks count alike. characters: whether tokens are characters, by corpus. units:
            what a loss is of, by corpus, where it is no token or character.
        matched, free: sentences: what was held equal over all systems, and what a plan lets differ.
        described: what each system is, in words, in the order of the plan.
        contrasts, rules: as in the plan.
        amendments: {utc, what, reason} in order.
        code: version, commit and machines.
        test: scores on the test split, by (system, corpus, seed), once they were made; nats per token.
    """

    title: str
    sha256: str
    wanted: tuple[int, ...]
    systems: tuple[SystemFound, ...]
    contrasts: tuple[ContrastConfig, ...] = ()
    rules: tuple[RuleConfig, ...] = ()
    search_setting: str | None = None
    block: dict[str, int] = field(default_factory=dict)
    split_tokens: dict[str, int] = field(default_factory=dict)
    characters: dict[str, bool] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    matched: tuple[str, ...] = ()
    free: tuple[str, ...] = ()
    described: tuple[str, ...] = ()
    amendments: tuple[dict[str, str], ...] = ()
    code: dict[str, object] = field(default_factory=dict)
    test: dict[tuple[str, str, int], float] = field(default_factory=dict)
    test_reasons: tuple[str, ...] = ()
