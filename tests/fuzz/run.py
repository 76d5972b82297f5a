"""``python -m fuzz.run`` in the folder of the tests: so many damaged inputs, and a table of how they ended."""

import argparse
import contextlib
import faulthandler
import random
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch

from fuzz import command
from fuzz.kinds import KINDS
from fuzz.seeds import Seeds, make_seeds

__all__ = ["MOST_GROWTH", "Tally", "fuzz", "seeded"]

MOST_GROWTH = 500_000_000


@dataclass
class Tally:
    """How the inputs of one kind ended; faults: what to look at, with the seed that makes it again."""

    counts: Counter[str] = field(default_factory=Counter)
    growth: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    faults: list[str] = field(default_factory=list)


@contextlib.contextmanager
def seeded(home: Path) -> Iterator[Seeds]:
    """Whole inputs of every kind; the current folder is ``home`` inside."""
    torch.set_num_threads(1)
    with contextlib.chdir(home):
        seeds = make_seeds(home)
        outcome = command.run(["eval", seeds.chars, "--limit", 200, "--per-token", seeds.scores, "--device", "cpu"])
        assert outcome.code == 0, outcome
        yield seeds


def fuzz(seeds: Seeds, kind: str, numbers: range, seed: int, limit: float = 30.0) -> Tally:
    """Draw and run the inputs of these numbers."""
    tally = Tally()
    for number in numbers:
        folder = seeds.home / "now"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        case = KINDS[kind](random.Random(f"{seed} {kind} {number}"), seeds, folder)
        outcome = command.run(case.arguments, limit)
        tally.growth, tally.seconds = max(tally.growth, outcome.growth), tally.seconds + outcome.seconds
        tally.slowest = max(tally.slowest, outcome.seconds)
        what, fault = _judge(case.check(outcome) if outcome.code == 0 else "", outcome)
        tally.counts[what] += 1
        if fault:
            tally.faults.append(f"{kind} {number} (seed {seed}), {' '.join(map(str, case.arguments))[:300]}:\n{fault}")
    torch.set_num_threads(1)
    return tally


def _judge(wrong: str, outcome: command.Outcome) -> tuple[str, str]:
    """How an input ended, and what is wrong with that."""
    if outcome.code == 4:
        return "hang", outcome.fault
    if outcome.code == 3:
        return "traceback", outcome.fault
    if outcome.growth > MOST_GROWTH:
        return "growth", f"grew by {outcome.growth:,} bytes; {outcome.err[-300:]}"
    if outcome.code == 0:
        return ("wrong", f"{wrong}: {outcome.out[-300:]}") if wrong else ("accepted", "")
    said = [line for line in outcome.err.splitlines() if line.startswith("unrolled: ")]
    usage = outcome.code == 2 and "Usage:" in outcome.err
    if outcome.code not in (1, 2) or (not usage and (len(said) != 1 or outcome.err.splitlines()[-1] != said[0])):
        return "no sentence", f"code {outcome.code}: {outcome.err[-600:]}"
    if said and len(said[0]) > 3000:
        return "no sentence", f"{len(said[0])} characters: {said[0][:300]}"
    return f"exit {outcome.code}", ""


def _main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=900, help="inputs in all, spread evenly over the kinds")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0, help="number of the first input of every kind")
    parser.add_argument("--kinds", nargs="+", default=list(KINDS), choices=list(KINDS))
    parser.add_argument("--faults", type=int, default=20, help="faults of a kind that are shown")
    given = parser.parse_args()
    faulthandler.enable()
    columns = ("accepted", "exit 1", "exit 2", "traceback", "hang", "growth", "wrong", "no sentence")
    print("kind", "inputs", *columns, "MB", "slowest", "seconds", sep="\t")  # noqa: T201
    bad = 0
    with tempfile.TemporaryDirectory() as home, seeded(Path(home)) as seeds:
        for kind in given.kinds:
            begun, each = time.monotonic(), -(-given.count // len(given.kinds))
            faulthandler.dump_traceback_later(3600, exit=True)
            tally = fuzz(seeds, kind, range(given.first, given.first + each), given.seed)
            counts = (tally.counts[name] for name in columns)
            numbers = f"{tally.growth / 1e6:.0f}", f"{tally.slowest:.1f}", f"{time.monotonic() - begun:.0f}"
            print(kind, each, *counts, *numbers, sep="\t", flush=True)  # noqa: T201
            for fault in tally.faults[: given.faults]:
                print(fault, file=sys.stderr)  # noqa: T201
            bad += len(tally.faults)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    _main()
