"""Probes: the plan, the rows of the table, a whole one."""

import json
import sys
import tomllib
from pathlib import Path

import pytest

from unrolled.compare import Board, work
from unrolled.compare.plan import PlanConfig
from unrolled.compare.probe import ProbeConfig, begun_probe, list_problems, probe_plan, probe_rows, write_probe
from unrolled.compare.probe.listing import read_probe_points
from unrolled.compare.problems import TRAINED, PlanProblem, figure_name
from unrolled.compare.resolve import resolve
from unrolled.compare.results import Found, RunFound, SystemFound
from unrolled.core.errors import UsageError
from unrolled.core.toml_text import toml_text
from unrolled.data.made import MADE

TINY = {
    "problems": ["group:parity", "sources"], "cells": ["lstm", "mingru"], "rates": [0.01], "seeds": 1, "steps": 12,
    "rows": 20, "size": 3000,
    "settings": ["parity.kind=Z2", "parity.length=[1, 6]", "sources.length=8", "model.layers=1", "train.validations=2"],
    "points": {"parity": {"length": [6, 12]}, "sources": {"length": [8, 16]}},
}  # fmt: skip


def tiny(**changes: object) -> ProbeConfig:
    return ProbeConfig.parse({**TINY, **changes})


def test_the_plan() -> None:
    value = probe_plan(tiny(rates=[0.003, 0.01], match="state", size=64))
    plan = PlanConfig.parse(tomllib.loads(toml_text(value)))
    assert [one.label for one in plan.problem] == ["parity", "sources"]
    assert plan.problem[0].problem.model_dump()["kind"] == "Z2"
    assert plan.problem[0].named_points() == [TRAINED, "length=6", "length=12"]
    assert plan.settings == ("model.layers=1", "train.validations=2")
    assert plan.search is not None
    assert (plan.search.budget.steps, plan.match.budget.steps, plan.match.state) == (4, 12, 64)
    lstm, gru = resolve(plan)[:2]
    assert (lstm.state, lstm.width) == (64, 32)  # h and c
    assert (gru.state, gru.width) == (64, 64)
    assert (lstm.steps, lstm.search_steps) == (12, 4)


@pytest.mark.parametrize("part", [{"per_token": True}, {"corpora": ["pydoc"]}, {"measure": [{"name": "recovery"}]}])
def test_what_is_of_texts_alone_is_refused(part: dict[str, object]) -> None:
    with pytest.raises(UsageError, match=r"a plan of problems has no corpora, no \[\[measure\]\] and no per_token"):
        PlanConfig.parse({**probe_plan(tiny()), **part})


def test_points_that_a_problem_suggests() -> None:
    value = probe_plan(tiny(points={}))
    assert value["problem"][0]["points"] == {"length": list(MADE["group"](MADE.parse("group")).sweep()["length"])}


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"problems": ["mqr"]}, "unknown problem 'mqr'; did you mean 'mqar'"),
        ({"points": {"mqar": {"length": [4]}}}, "unknown problem to measure at points 'mqar'"),
        ({"problems": ["copy", "copy"], "points": {}}, "a problem is there twice"),
        ({"cpu_minutes": 1.0}, "give one of them"),
        ({"cells": ["lstmm"]}, "system 'lstmm': unknown cell 'lstmm'; did you mean"),
        ({"recipe": "ptb-char-cpu"}, "the recipe of a plan of synthetic problems is of the task made"),
        ({"points": {"parity": {"lenght": [4]}}}, "has no setting 'lenght'"),
        ({"points": {"parity": {"kind": ["Z3"]}}}, "changes the symbols"),
        ({"settings": ["train.steps=5"]}, "a probe says train.steps with --steps; leave it out of --set."),
        ({"settings": ["train.cpu_minutes=1"]}, "says train.cpu_minutes with --cpu-minutes;"),
        ({"settings": ["train.tokens=5"]}, "says train.tokens with --steps or --cpu-minutes;"),
        ({"settings": ["train.threads=2"]}, "--workers"),
        ({"settings": ["seed=2"]}, "says seed with --seeds;"),
        ({"settings": ["train.optimizer.lr=0.1"]}, "says train.optimizer.lr with --lr;"),
        ({"settings": ["model.width=9"]}, "says model.width with --size"),
        ({"settings": ["model.cell.name=gru"]}, "says model.cell.name with --cells or --cell;"),
        ({"settings": ["task.problem.kind=Z2"]}, "says task.problem by its arguments"),
        ({"rates": [0.1, 0.1]}, "--lr has 0.1 twice; keep one of them."),
        ({"cells": ["lstm", "lstm"]}, "--cells has lstm twice; keep one of them."),
        ({"size": 400, "cells": ["lstm"]}, "fits better: give --size "),
        ({"size": 10}, "no width fits 10 parameters: width 1 already has"),
    ],
)  # fmt: skip
def test_sentences(changes: dict[str, object], sentence: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        begun_probe(tiny(**changes), tmp_path / "out")
    assert sentence in str(refused.value)
    assert all(part not in str(refused.value) for part in ("plan.toml", "match.", "[[system]]"))
    assert not (tmp_path / "out" / "plan.toml").exists()


def test_a_size_that_was_named_is_taken(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as refused:
        begun_probe(tiny(size=400, cells=["lstm"]), tmp_path / "out")
    named = int(str(refused.value).split("--size ")[1].split(",")[0])
    assert begun_probe(tiny(size=named, cells=["lstm"]), tmp_path / "out").systems[0].parameters == named


def test_points_on_a_command_line() -> None:
    assert read_probe_points(["length=4,8", "a.depth=0.5"], ["copy:a", "mqar"]) == {
        "a": {"length": (4, 8), "depth": (0.5,)}, "mqar": {"length": (4, 8)},
    }  # fmt: skip
    with pytest.raises(UsageError, match="--points needs the form"):
        read_probe_points(["length"], ["mqar"])


def test_what_is_listed() -> None:
    found = list_problems()
    assert [row.name for row in found] == list(MADE)
    assert all(row.summary.endswith(".") and row.sweep for row in found)


def found_of(shares: dict[str, list[float]], kind: str = "accuracy") -> Found:
    """A system on parity, with so many seeds."""
    seeds = range(len(next(iter(shares.values()))))
    figures = [{figure_name(kind, point): values[seed] for point, values in shares.items()} for seed in seeds]
    runs = [RunFound(seed, "finished", None, 0.1, figures=figures[seed]) for seed in seeds]
    system = SystemFound("lstm", "parity", 100, 4, 200, 1000, runs=tuple(runs), state=8)
    return Found("title", "0" * 64, (0,), (system,))


PARITY = PlanProblem.parse(
    {"label": "parity", "problem": {"name": "group", "kind": "Z2", "length": [1, 6]}, "points": {"length": [6, 12]}}
)


def test_rows_of_the_table() -> None:
    chance, exact, row = probe_rows(
        found_of({TRAINED: [1.0, 0.6], "length=6": [0.99, 0.5], "length=12": [0.8, 0.5]}), [PARITY]
    )
    assert (chance.system, chance.shares["length=12"].value) == ("chance", 0.5)
    assert exact.shares[TRAINED].value == 1
    assert row.shares["length=6"] == (pytest.approx(0.745), 0.5, 0.99)
    assert (row.learned, row.said) == (True, "does not extrapolate")
    (_, _, other) = probe_rows(found_of({TRAINED: [0.9, 0.6], "length=12": [0.8, 0.5]}), [PARITY])
    assert (other.learned, other.said) == (False, "not learned")
    # one seed has it everywhere, whatever the mean with those that never learned it
    (_, _, one) = probe_rows(
        found_of({TRAINED: [1.0, 0.5], "length=6": [1.0, 0.5], "length=12": [0.99, 0.5]}), [PARITY]
    )
    assert one.said == ""
    empty = SystemFound("lstm", "parity", 100, 4, 200, 1000, state=8)
    (_, _, none) = probe_rows(Found("title", "0" * 64, (0,), (empty,)), [PARITY])
    assert none.said == "not run"


@pytest.mark.slow
def test_a_whole_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.fsync", lambda _: None)
    lock = begun_probe(tiny(), tmp_path / "out")
    assert work(lock.folder).complete
    rows, _ = write_probe(Board(lock), lock.folder)
    assert [(row.problem, row.system) for row in rows if row.learned is not None] == [
        ("parity", "lstm"), ("parity", "mingru"), ("sources", "lstm"), ("sources", "mingru"),
    ]  # fmt: skip
    for row in rows[2:4]:
        assert list(row.shares) == [TRAINED, "length=6", "length=12"]
        assert all(0 <= cell.low <= cell.value <= cell.high <= 1 for cell in row.shares.values())
    for row in rows[-2:]:
        assert set(row.excess) == {TRAINED, "length=8", "length=16"}
    record = json.loads((lock.folder / "probe.json").read_text())
    assert len(record["rows"]) == 8
    table = (lock.folder / "table.tsv").read_text().splitlines()
    assert len({line.count("\t") for line in table}) == 1
    assert "| lstm |" in (lock.folder / "probe.md").read_text()
    # the same command goes on, another one is refused
    assert begun_probe(tiny(), lock.folder).sha256 == lock.sha256
    with pytest.raises(UsageError, match="holds a probe with other settings"):
        begun_probe(tiny(steps=13), lock.folder)


def test_figures_that_are_no_numbers_count_as_diverged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run whose training saw nothing wrong, and that makes no numbers of longer rows."""
    monkeypatch.setattr("os.fsync", lambda _: None)

    def found(run: object, one: PlanProblem) -> dict[str, float]:
        return dict.fromkeys((figure_name("nats", point) for point in one.named_points()), float("nan"))

    monkeypatch.setattr(sys.modules["unrolled.compare.execute"], "measure_problem", found)
    lock = begun_probe(tiny(cells=["lstm"]), tmp_path / "out")
    assert work(lock.folder).complete
    results = [json.loads(path.read_text()) for path in (lock.folder / "results").glob("run.*.json")]
    assert [one["status"] for one in results] == ["diverged", "diverged"]
