"""What a plan comes to: sizes, jobs, hours; and whether a folder keeps the promises that claims rest on."""

import os
import secrets
import time
from pathlib import Path
from typing import NamedTuple

from unrolled.compare.contrast import ContrastConfig
from unrolled.compare.plan import PlanConfig
from unrolled.compare.power import power_at, seeds_needed
from unrolled.compare.resolve import Resolved, resolve
from unrolled.core.errors import UsageError
from unrolled.core.files import make_folder
from unrolled.train.dry_run import product_speed

__all__ = ["Estimate", "Power", "check_folder", "estimate", "power_of_plan"]

_BOTH_PASSES = 3


class Estimate(NamedTuple):
    """What a plan comes to.

    Attributes:
        jobs: searches, full runs. operations: of all matrix products; None where a timing job is to say how many
            tokens there are. cpu_hours: at the speed of a large product on this machine, so at least these; None too.
    """

    systems: tuple[Resolved, ...]
    searches: int
    runs: int
    operations: float | None
    cpu_hours: float | None


def estimate(plan: PlanConfig) -> Estimate:
    """Resolve a plan and count; nothing is trained and nothing written.

    Raises:
        UsageError: a plan that cannot be run, in one sentence.
    """
    systems = resolve(plan)
    searches = runs = 0
    operations: float | None = 0.0
    for one in systems:
        values = plan.values_of(one.system)
        tried = len(values) * len(plan.search.seeds) if plan.search is not None else 0
        searches, runs = searches + tried, runs + len(plan.seeds)
        tokens = tried * (one.search_tokens or 0)
        if one.tokens is None or operations is None:
            operations = None
        else:
            tokens += len(plan.seeds) * one.tokens
            operations += _BOTH_PASSES * one.flops_per_token * tokens
            # every run is scored once on the whole validation split
            operations += one.flops_per_token * one.text.validation_tokens * len(plan.seeds)
    hours = None if operations is None else operations / product_speed() / 3600
    budget = plan.match.budget
    if budget.cpu_seconds is not None:
        hours = len(systems) * len(plan.seeds) * budget.cpu_seconds / 3600
    return Estimate(tuple(systems), searches, runs, operations, hours)


class Power(NamedTuple):
    """What a contrast of a plan can show: chance of showing a true difference of ``smallest`` with the plan's seeds,
    and the seeds that have 80 %; None for more than can be had."""

    contrast: str
    smallest: float
    sd: float
    seeds: int
    power: float
    needed: int | None

    def __str__(self) -> str:
        needed = "no number of seeds has" if self.needed is None else f"{self.needed} seeds have"
        return (
            f"{self.contrast}: {self.seeds} seeds show a true difference of {self.smallest:g} bits with "
            f"{self.power:.0%} at a standard deviation of {self.sd:g}; {needed} 80 %"
        )


def power_of_plan(plan: PlanConfig, sd: float) -> list[Power]:
    """Power of every contrast of losses that names the smallest difference anybody cares about, in the first step of
    Holm's method over all, with independent seeds and by seeds alone: what the text adds is not known before.

    Args:
        sd: over the seeds of a system, in bits per token.
    """
    many, seeds = sum(_rows(plan, one) for one in plan.contrast), len(plan.seeds)
    return [
        Power(
            one.name, one.smallest, sd, seeds,
            power_at(one.smallest, sd, seeds, many) if seeds > 1 else 0.0,
            seeds_needed(one.smallest, sd, many),
        )
        for one in plan.contrast
        if one.smallest is not None and one.figure == "nats_per_token" and sd > 0
    ]  # fmt: skip


def _rows(plan: PlanConfig, contrast: ContrastConfig) -> int:
    """How many rows a contrast has: one a corpus, and one for all of several."""
    corpora = len(contrast.corpora or plan.corpora or plan.problem) or 1
    return corpora + (corpora > 1)


def check_folder(folder: Path) -> None:
    """Try what claims rest on: that a file is made by one alone, renamed by one alone, and that times of change follow
    the order of writing. Takes some hundredths of a second.

    Raises:
        UsageError: the file system does not keep one of them; the sentence says which.
    """
    make_folder(folder)
    path = folder / f".check-{secrets.token_hex(6)}"
    fault = None
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o644))
            fault = "lets two programs create one file"
        except FileExistsError:
            pass
        first = path.stat().st_mtime
        time.sleep(0.02)
        os.utime(path)
        if path.stat().st_mtime < first:
            fault = "sets times of change that run backwards"
        moved = path.with_suffix(".moved")
        path.rename(moved)
        if path.exists() or not moved.exists():
            fault = "does not rename at once"
        moved.unlink()
    except OSError as error:
        fault = f"failed ({error.strerror or error})"
    finally:
        path.unlink(missing_ok=True)
    if fault is not None:
        raise UsageError(
            f"the file system of {folder} {fault}, so that workers could not agree there; choose a folder on another."
        )
