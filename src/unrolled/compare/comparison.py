"""A comparison as an object: what is in its folder, judged."""

import os
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from unrolled.compare.answer import Analysis, analyse
from unrolled.compare.check import check_folder
from unrolled.compare.found import found
from unrolled.compare.jobs import Board
from unrolled.compare.lock import LOCK, PLAN, Lock, amend, open_lock, register
from unrolled.compare.packing import pack
from unrolled.compare.plan import find_plan
from unrolled.compare.report import write_report
from unrolled.compare.results import Found, SystemFound
from unrolled.compare.sealed import difference
from unrolled.compare.verdicts import ContrastFound
from unrolled.core.config import read_toml
from unrolled.core.errors import UsageError

__all__ = ["Comparison", "begun", "default_folder"]


def default_folder(plan: str) -> Path:
    """Where a plan is registered that is given no folder."""
    return Path("comparisons") / Path(plan).stem


def begun(plan: str, out: Path | None = None, settings: Iterable[str] = ()) -> Lock:
    """The registered plan of a folder; or a plan by name or path, which is registered where it is not yet.

    Args:
        out: where; absent: ``comparisons/`` and the plan's name. settings: of a plan that is registered now.
    Raises:
        UsageError: no plan and no comparison; settings or a folder for one that is registered.
    """
    folder = Path(plan)
    if (folder / LOCK).exists():
        if out is not None or tuple(settings):
            raise UsageError(f"{folder} is registered already; leave out --out and --set.")
        return open_lock(folder)
    if folder.is_dir():
        raise UsageError(f"{folder} is no comparison: it has no {LOCK}; register a plan in it first.")
    folder = out or default_folder(plan)
    if not (folder / LOCK).exists():
        path = find_plan(plan)
        check_folder(folder)
        return register(path, folder, settings)
    if tuple(settings):
        raise UsageError(f"{folder} is registered already, with its own settings; leave out --set.")
    lock = open_lock(folder)
    if changed := difference(read_toml(folder / PLAN), read_toml(find_plan(plan))):
        raise UsageError(
            f"{folder} holds another plan than {plan} ({changed}); choose another --out, or say: unrolled compare "
            f'register {plan} --out {folder} --amend "why".'
        )
    return lock


class Comparison:
    """A registered plan and what has been found so far.

    Args:
        folder: of the comparison.
    Raises:
        UsageError: no comparison there, or its plan was edited. UnrolledError: damaged files.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = Path(folder)
        self.board = Board(open_lock(self.folder))

    @cached_property
    def found(self) -> Found:
        """Everything as values, as it was when first asked for."""
        return found(self.board)

    @cached_property
    def analysis(self) -> Analysis:
        """Verdicts and answer. Raises UnrolledError where scipy is not installed."""
        return analyse(self.found)

    @property
    def complete(self) -> bool:
        """Whether every job is done."""
        return not self.board.todo()

    @property
    def systems(self) -> tuple[SystemFound, ...]:
        """Each system on each corpus, with its search and its runs."""
        return self.found.systems

    @property
    def contrasts(self) -> tuple[ContrastFound, ...]:
        """Those that the plan registered, with their verdicts."""
        return self.analysis.contrasts

    @property
    def answer(self) -> str:
        """What the plan's rules make of the verdicts, in a sentence."""
        return self.analysis.answer

    def report(self, out: str | os.PathLike[str] | None = None, png: bool = False) -> Path:
        """Write report, tables, record and figures.

        Args:
            out: a folder; absent: the comparison's own. png: figures as PNG too.
        Returns:
            the report in Markdown.
        """
        folder = self.folder if out is None else Path(out)
        write_report(self.found, folder, png)
        pack(self.board, folder)
        return folder / "report.md"

    def add_seeds(self, seeds: Iterable[int], reason: str) -> "Comparison":
        """The comparison with further seeds, as an amendment that the report shows."""
        seeds = list(seeds)
        amend(self.folder, f"seeds {', '.join(map(str, seeds))}", reason, seeds=seeds)
        return Comparison(self.folder)
