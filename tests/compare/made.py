"""Comparisons made by hand: losses with planted differences, and spreads over seeds and blocks."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from unrolled.compare.contrast import ContrastConfig, RuleConfig
from unrolled.compare.results import CurvePoint, Found, RunFound, SearchFound, SystemFound

__all__ = ["BLOCKS", "LAST", "contrast", "crossed", "diverged", "found", "system"]

BLOCKS, LAST = 40, 300
SEED_SD, BLOCK_SD, REST_SD = 0.004, 0.01, 0.005


def crossed(
    rng: np.random.Generator, seeds: int, shift: float = 0.0, blocks: np.ndarray | None = None
) -> list[np.ndarray]:
    """Bits of each seed and block: 2 + shift, and what seeds, blocks and both together add."""
    shared = BLOCK_SD * rng.standard_normal(BLOCKS) if blocks is None else blocks
    rest = REST_SD * rng.standard_normal((seeds, len(shared)))
    return list(2 + shift + SEED_SD * rng.standard_normal((seeds, 1)) + shared + rest)


def _run(seed: int, values: np.ndarray, value: float | str | None) -> RunFound:
    tokens = np.array([1000.0] * (len(values) - 1) + [LAST])
    nats = float(values @ tokens / tokens.sum()) * math.log(2)
    curve = tuple(CurvePoint(1000 * i, 2.5 * i, nats + 1 / i) for i in range(1, 7))
    return RunFound(
        seed=seed, status="finished", value=value, nats_per_token=nats, bits_per_character=nats / math.log(2),
        train_nats=nats - 0.1, tokens=6000, cpu_seconds=15.0, wall_seconds=20.0 + seed, machine="a quiet CPU",
        backends={"cell_loop": "native"}, blocks=values * math.log(2), curve=curve,
    )  # fmt: skip


def diverged(seed: int, value: float | str | None = None) -> RunFound:
    return RunFound(seed=seed, status="diverged", value=value, tokens=700, machine="a quiet CPU")


def system(
    name: str, values: Sequence[np.ndarray], corpus: str = "letters", searched: bool = False, **more: Any
) -> SystemFound:
    """A system with a run a row of values, seeds from one."""
    search: dict[str, Any] = {}
    if searched:
        tried = [(0.001, 1.5), (0.002, 1.4), (0.004, 1.41), (0.008, math.inf)]
        search = {"chosen": 0.002, "search": tuple(SearchFound(value, nats, 2) for value, nats in tried)}
    runs = tuple(_run(seed, row, search.get("chosen")) for seed, row in enumerate(values, 1))
    facts = {"parameters": 1_000_000, "width": 500, "flops_per_token": 2_000_000, "tokens": 6000}
    return SystemFound(name, corpus, **{**facts, **search, "runs": runs, **more})


def contrast(name: str = "a - b", better: str | None = "a", than: str = "b", **more: Any) -> ContrastConfig:
    return ContrastConfig.parse({"name": name, "better": better, "than": than, "smallest": 0.01, **more})


def found(
    systems: Sequence[SystemFound],
    contrasts: Sequence[ContrastConfig] = (),
    rules: Mapping[str, Mapping[str, Sequence[str]]] | None = None,
    seeds: int | None = None,
    **more: Any,
) -> Found:
    """rules: answer -> verdicts by contrast."""
    wanted = seeds if seeds is not None else max((len(one.runs) for one in systems), default=0)
    corpora = {one.corpus for one in systems}
    facts: dict[str, Any] = {
        "title": "Is a better than b?", "sha256": "0" * 64, "wanted": tuple(range(1, wanted + 1)),
        "block": dict.fromkeys(corpora, 1000), "split_tokens": dict.fromkeys(corpora, 1000 * (BLOCKS - 1) + LAST),
        "characters": dict.fromkeys(corpora, True), "matched": ("parameters, to 0.5 %.", "tokens: 6,000."),
        "code": {"unrolled": "0.1.0", "commit": "abc1234"},
    }  # fmt: skip
    told = [RuleConfig.parse({"when": dict(when), "say": say}) for say, when in (rules or {}).items()]
    return replace(Found(systems=tuple(systems), contrasts=tuple(contrasts), rules=tuple(told), **facts), **more)
