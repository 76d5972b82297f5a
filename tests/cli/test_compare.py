"""``unrolled compare`` from the command line."""

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command
from compare.plans import PLAN, write_plan
from unrolled.compare import Outcome

Refused = Callable[..., str]
SMALL = PLAN.replace("[0.005, 0.01, 0.02]", "[0.01, 0.02]").replace("parameters = 3000", "parameters = 1500")


def test_from_a_plan_to_its_answer(unrolled: Command, tmp_path: Path) -> None:
    before, _, after = SMALL.replace("seeds = [1, 2]", "seeds = [1]").partition("[search]")
    plan = write_plan(tmp_path, before + after[after.index("[[system]]") :])
    found = json.loads(unrolled("compare", "check", plan, "--json").out)
    assert (found["searches"], found["runs"]) == (0, 2)
    assert [system["system"] for system in found["systems"]] == ["LSTM", "GRU"]
    assert found["power"][0]["needed"] == 7
    shown = unrolled("compare", "check", plan, "--sd", "0.02").out
    assert "jobs: 0 of the search, 2 full runs" in shown
    assert "gates: 1 seeds show a true difference of 0.01 bits" in shown
    folder = tmp_path / "out"
    registered = json.loads(unrolled("compare", "register", plan, "--out", folder, "--json").out)
    assert registered["folder"] == str(folder)
    status = json.loads(unrolled("compare", "status", folder, "--json").out)
    assert (status["done"], status["expected"]) == (0, 2)
    done = unrolled("compare", "run", folder, "--json")
    assert (done.code, json.loads(done.out)["done"]) == (0, 2)
    assert "run.LSTM.text.s1" in done.err
    watched = unrolled("compare", "status", folder, "--watch")  # of one that is complete it ends at once
    assert "2 of 2 jobs" in watched.out
    assert "run.GRU" in (folder / "live.html").read_text()
    assert "complete; read it with" in unrolled("compare", "run", folder).out
    told = unrolled("compare", "report", folder)
    assert told.code == 0
    assert (folder / "report.md").is_file()
    assert (folder / "results.jsonl").read_text().count("\n") == 3  # the plan and its runs
    assert json.loads(unrolled("compare", "report", folder, "--json").out)["complete"] is True
    again = json.loads(unrolled("compare", "add", folder, "--seeds", "2-3,7", "--reason", "power", "--json").out)
    assert again["seeds"] == [1, 2, 3, 7]
    assert unrolled("compare", "report", folder).out.startswith("Not final, since 6 runs have not ended")


def test_sentences(refused: Refused, tmp_path: Path) -> None:
    plan = write_plan(tmp_path, SMALL)
    assert refused("compare", "check", "sharin").startswith("unknown plan 'sharin'; did you mean 'sharing'?")
    assert "there is no plan nowhere.toml" in refused("compare", "check", "nowhere.toml")
    assert "is no comparison" in refused("compare", "status", tmp_path)
    assert "is no comparison" in refused("compare", "run", tmp_path)
    assert "--again goes with --test" in refused("compare", "report", tmp_path, "--again", "why")
    assert "is no comparison" in refused("compare", "add", tmp_path, "--seeds", "4")
    assert "such as 6-10 or 6,7,12" in refused("compare", "add", tmp_path, "--seeds", "4..9")
    assert "holds no results of a comparison" in refused(
        "compare", "register", plan, "--out", tmp_path / "out", "--reuse", tmp_path
    )
    assert "is registered already; leave out --out and --set" in refused(
        "compare", "run", tmp_path / "out", "--set", "seeds=[5]"
    )
    assert "holds a registered plan already" in refused("compare", "register", plan, "--out", tmp_path / "out")
    other = tmp_path / "other.toml"
    other.write_text(plan.read_text().replace("tokens = 700", "tokens = 800"))
    assert f"out holds another plan than {other} (match.budget.tokens); choose another --out" in refused(
        "compare", "run", other, "--out", tmp_path / "out"
    )
    assert "is as it was registered; edit it first" in refused(
        "compare", "register", plan, "--out", tmp_path / "out", "--amend", "why"
    )
    assert "the test split is opened once, at the end" in refused("compare", "report", tmp_path / "out", "--test")


def test_workers_that_end_early_are_told_by_the_exit_code(
    unrolled: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They have said why; there is no job that is parked."""
    worker = sys.modules[Outcome.__module__]
    monkeypatch.setattr(worker, "work_many", lambda *_: 1)
    plan = write_plan(tmp_path, SMALL)
    assert unrolled("compare", "run", plan, "--out", tmp_path / "out", "--workers", "2").code == 1
    probe = ("probe", "copy", "--cells", "lstm", "--size", "2000", "--out", tmp_path / "probe", "--workers", "2")
    done = unrolled(*probe)
    assert done.code == 1
    assert "not run" in done.out
    assert "heat.svg" not in done.out
    monkeypatch.setattr(worker, "faults", lambda *_: ["job a failed 3 times.", "job b too."])
    done = unrolled(*probe)
    assert (done.code, "job a failed 3 times." in done.err, "job b too." in done.err) == (1, True, True)
