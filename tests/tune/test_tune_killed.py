"""Whoever dies and whenever: the same trials with the same parameters and values."""

import contextlib
import os
from pathlib import Path
from typing import Any

import pytest

from tune.spaces import SPACE, begun, search
from tune.working import search_with_kills
from unrolled.compare.claims import Claims
from unrolled.compare.tune import Board, Tuning
from unrolled.compare.tune.memory import open_memory


def found(board: Board) -> set[tuple[Any, ...]]:
    """Number, parameters and value of every trial and every run that confirms."""
    tuning = Tuning(board.folder)
    trials = {(one.number, *sorted(one.settings.items()), one.status, one.value) for one in tuning.trials}
    return trials | {(one.number, *one.values.items()) for one in tuning.confirmed}


def remembered(board: Board, storage: str | None = None) -> set[tuple[Any, ...]]:
    """The same as the sampler knows it."""
    with contextlib.closing(open_memory(board, storage)) as memory:
        trials = memory._trials()
    return {(one.number, *sorted(one.params.items()), one.state.name, one.value) for one in trials}


def longer(text: str = SPACE) -> str:
    """Trials at random, long enough to be killed in, none of them stopped: those depend on who came first."""
    text = text.replace("tokens = 960", "tokens = 12000").replace("rungs = [0.25, 0.5]", "rungs = []")
    return text.replace("random = 3", 'sampler = "random"')


@pytest.mark.slow
def test_workers_of_whom_one_is_killed_twenty_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    alone, killed = begun(tmp_path, longer(), out="alone"), begun(tmp_path, longer(), out="killed")
    assert search(alone, 16).complete
    assert search_with_kills(killed.folder, 16, workers=2, kills=20, seed=5) == 20
    assert found(killed) == found(alone)
    assert remembered(killed) == remembered(alone)
    assert len(remembered(killed)) == 16
    assert Claims(killed.folder).failures() == {}
    assert (killed.folder / "best.toml").exists()


@pytest.mark.slow
def test_kills_with_rungs_and_learning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is stopped depends on who came first; every trial ends once, as the files and the sampler both say."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    board = begun(tmp_path, SPACE.replace("tokens = 960", "tokens = 6000"))
    assert search_with_kills(board.folder, 14, workers=3, kills=8, seed=7) > 3
    trials = Tuning(board.folder).trials
    assert len(trials) == 14
    assert {one.status for one in trials} == {"finished", "pruned"}
    states = {"finished": "COMPLETE", "pruned": "PRUNED"}
    known = {(one.number, *sorted(one.settings.items()), states[one.status], one.value) for one in trials}
    assert remembered(board) == known
