"""Registering a plan, changing it in the open, and not otherwise."""

import json
from pathlib import Path

import pytest

from compare.plans import PLAN, registered, write_plan
from unrolled.compare import Board, amend, open_lock, register
from unrolled.core.errors import UnrolledError, UsageError


def test_a_plan_is_frozen(tmp_path: Path) -> None:
    lock = registered(tmp_path)
    assert [(one.system, one.corpus) for one in lock.systems] == [("LSTM", "text"), ("GRU", "text")]
    assert len(lock.sha256) == 64
    assert lock.locked("GRU", "text").experiment().model.cell.name == "gru"  # type: ignore[union-attr]
    with pytest.raises(UsageError, match="holds a registered plan already"):
        register(tmp_path / "plan.toml", tmp_path / "out")


def test_the_recipe_may_change_afterwards(tmp_path: Path) -> None:
    lock = registered(tmp_path)
    (tmp_path / "tiny.toml").write_text("title = 'another'\n")
    assert open_lock(tmp_path / "out").systems == lock.systems


def test_an_edited_plan_is_refused_until_it_is_amended(tmp_path: Path) -> None:
    lock = registered(tmp_path)
    old = [job.id for job in Board(lock).todo()]
    plan = tmp_path / "out" / "plan.toml"
    plan.write_text(plan.read_text().replace("name=gru", "name=rnn"))
    with pytest.raises(UsageError, match=r"has changed since it was registered \(system 'GRU': set.*--amend"):
        open_lock(tmp_path / "out")
    changed = amend(tmp_path / "out", "", "an RNN is enough", plan)
    assert [entry["reason"] for entry in changed.amendments] == ["an RNN is enough"]
    assert changed.sha256 != lock.sha256
    new = [job.id for job in Board(changed).todo()]
    # the runs of the system that is as it was are the same jobs, those of the other are not
    assert {job for job in old if ".LSTM." in job} == {job for job in new if ".LSTM." in job}
    assert not {job for job in old if ".GRU." in job} & {job for job in new if ".GRU." in job}


def test_seeds_are_added_in_the_open(tmp_path: Path) -> None:
    registered(tmp_path)
    lock = amend(tmp_path / "out", "seeds 2-3", "more power", seeds=[2, 3])
    assert lock.plan.seeds == (1, 2, 3)
    assert open_lock(tmp_path / "out").amendments[0]["what"] == "seeds 2-3"
    with pytest.raises(UsageError, match="has these seeds already"):
        amend(tmp_path / "out", "", "", seeds=[3])
    # and stay when the plan is edited later
    plan = tmp_path / "out" / "plan.toml"
    plan.write_text(plan.read_text().replace("tokens = 700", "tokens = 800"))
    assert amend(tmp_path / "out", "", "longer", plan).plan.seeds == (1, 2, 3)


def test_a_changed_lock_is_told(tmp_path: Path) -> None:
    registered(tmp_path)
    path = tmp_path / "out" / "plan.lock.json"
    value = json.loads(path.read_text())
    value["systems"][0]["config"]["model"]["width"] = 99
    path.write_text(json.dumps(value))
    with pytest.raises(UnrolledError, match="was changed after it was registered"):
        open_lock(tmp_path / "out")


def test_no_comparison(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is no comparison"):
        open_lock(tmp_path)


def test_the_lock_does_not_depend_on_when(tmp_path: Path) -> None:
    """Two folders of one plan have the same jobs."""
    path = write_plan(tmp_path, PLAN)
    boards = [Board(register(path, tmp_path / name)) for name in ("one", "two")]
    assert boards[0].todo() == boards[1].todo()
