"""What there is to do: the order, the search with its edges, divergence, timing."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from compare.plans import PLAN, found, registered, write_plan
from unrolled.compare import Board, register
from unrolled.compare import found as found_of
from unrolled.compare.lock import open_lock
from unrolled.compare.packing import pack, take_over
from unrolled.compare.sealed import write_sealed
from unrolled.compare.search import Choice
from unrolled.core.errors import UnrolledError
from unrolled.core.files import read_json


def board_of(folder: Path, *changes: tuple[str, str]) -> Board:
    text = PLAN
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    return Board(registered(folder, text))


def searched(board: Board, system: str, nats: dict[float, float | None]) -> None:
    for job in board.todo():
        if job.kind == "search" and job.system == system and job.value in nats:
            found(board, job, nats[job.value])  # type: ignore[index]


def choice_of(board: Board, system: str) -> Choice:
    found = board.choice(board.lock.locked(system, "text"))
    assert found is not None
    return found


def test_searches_come_first_and_then_runs_seed_by_seed(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    jobs = board.todo()
    assert [job.kind for job in jobs] == ["search"] * 6
    flops = [board.locked(job).flops_per_token for job in jobs]
    assert flops == sorted(flops, reverse=True)
    for system in ("LSTM", "GRU"):
        searched(board, system, {0.005: 2.0, 0.01: 1.5, 0.02: 1.7})
    jobs = board.todo()
    assert [(job.kind, job.system, job.seed, job.value) for job in jobs] == [
        ("run", "LSTM", 1, 0.01), ("run", "GRU", 1, 0.01), ("run", "LSTM", 2, 0.01), ("run", "GRU", 2, 0.01),
    ]  # fmt: skip
    config = jobs[1].experiment(board.locked(jobs[1]))
    assert (config.seed, config.train.tokens, config.train.steps) == (1, 700, None)
    assert config.train.optimizer.lr == 0.01  # type: ignore[attr-defined]
    assert board.expected() == 10


def test_ties_go_to_the_smaller_value_and_an_edge_is_flagged(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    searched(board, "LSTM", {0.005: 1.5, 0.01: 1.5, 0.02: 1.7})
    chosen = choice_of(board, "LSTM")
    assert chosen.value == 0.005
    assert chosen.at_edge
    assert board.choice(board.lock.locked("GRU", "text")) is None


def test_an_edge_is_extended_twice_at_most(tmp_path: Path) -> None:
    board = board_of(tmp_path, ('edge = "report"', 'edge = "extend"'))
    searched(board, "GRU", {0.005: 1.9, 0.01: 1.7, 0.02: 1.5})
    assert [job.value for job in board.todo() if job.system == "GRU"] == [0.04]
    searched(board, "GRU", {0.04: 1.4})
    assert [job.value for job in board.todo() if job.system == "GRU"] == [0.08]
    searched(board, "GRU", {0.08: 1.3})
    chosen = choice_of(board, "GRU")
    assert (chosen.value, chosen.at_edge) == (0.08, True)
    assert [one.added for one in chosen.tried] == [False, False, False, True, True]
    searched(board, "LSTM", {0.005: 1.2, 0.01: 1.7, 0.02: 1.5})
    searched(board, "LSTM", {0.0025: None})
    chosen = choice_of(board, "LSTM")
    assert (chosen.value, chosen.at_edge) == (0.005, False)


def test_an_edge_may_be_refused(tmp_path: Path) -> None:
    board = board_of(tmp_path, ('edge = "report"', 'edge = "refuse"'))
    searched(board, "GRU", {0.005: 1.9, 0.01: 1.7, 0.02: 1.5})
    assert board.refusals() == [
        "the best train.optimizer.lr of system 'GRU' is 0.02, at the edge of what was tried; give it more values, or "
        'say search.edge = "extend".'
    ]


def test_a_diverged_search_counts_as_infinite(tmp_path: Path) -> None:
    board = board_of(tmp_path, ("seeds = [901]", "seeds = [901, 902]"))
    nats: dict[float | int | str | None, float] = {0.005: 2.0, 0.01: 1.0, 0.02: 1.8}
    for job in board.todo():
        if job.system == "GRU":
            found(board, job, None if (job.value, job.seed) == (0.01, 902) else nats[job.value])
    chosen = choice_of(board, "GRU")
    assert chosen.value == 0.02
    assert math.isinf(chosen.tried[1].nats_per_token)


def test_everything_diverged(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    searched(board, "GRU", {0.005: None, 0.01: None, 0.02: None})
    assert "diverged with every train.optimizer.lr that was tried (0.005, 0.01, 0.02)" in board.refusals()[0]


def test_a_full_run_that_diverges_sets_all_of_them_aside(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    searched(board, "GRU", {0.005: 1.9, 0.01: 1.7, 0.02: 1.5})
    first, second = (job for job in board.todo() if job.system == "GRU")
    found(board, first, 1.4)
    found(board, second, None)
    chosen = choice_of(board, "GRU")
    assert (chosen.value, chosen.set_aside) == (0.01, (0.02,))
    again = [job for job in board.todo() if job.system == "GRU"]
    assert [(job.value, job.seed) for job in again] == [(0.01, 1), (0.01, 2)]
    for job in again:
        found(board, job, None)
    assert choice_of(board, "GRU").value == 0.005


def test_cpu_seconds_become_tokens_by_one_timing(tmp_path: Path) -> None:
    board = board_of(tmp_path, ("{{ tokens = 700 }}", "{{ cpu_seconds = 3 }}"))
    (timing,) = [job for job in board.todo() if job.kind == "time"]
    assert board.todo()[0] == timing
    found(board, timing, 0.0, seconds_per_token={"LSTM": 0.01, "GRU": 0.005})
    tokens = {one.system: board.tokens(one) for one in board.lock.systems}
    assert tokens == {"LSTM": 300, "GRU": 600}


def test_the_seconds_of_a_reference(tmp_path: Path) -> None:
    board = board_of(tmp_path, ("[match]", '[match]\nreference = "GRU"'))
    (timing,) = [job for job in board.todo() if job.kind == "time"]
    found(board, timing, 0.0, seconds_per_token={"LSTM": 0.01, "GRU": 0.005})
    assert {one.system: board.tokens(one) for one in board.lock.systems} == {"LSTM": 350, "GRU": 700}


def test_results_of_the_same_jobs_are_taken_over(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = board_of(tmp_path / "a")
    searched(first, "LSTM", {0.005: 2.0, 0.01: 1.5, 0.02: 1.7})
    found(first, next(job for job in first.todo() if job.kind == "run"), 1.3)
    plan = (tmp_path / "a" / "plan.toml").read_text().replace("tokens = 700", "tokens = 1400")
    (tmp_path / "a" / "longer.toml").write_text(plan)
    second = Board(register(tmp_path / "a" / "longer.toml", tmp_path / "second"))
    assert take_over(second, first.folder) == 3  # the search, not the run, which is longer here
    assert choice_of(second, "LSTM").value == 0.01


def test_results_in_one_file_are_taken_over(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = board_of(tmp_path / "a")
    for system in ("LSTM", "GRU"):
        searched(first, system, {0.005: 2.0, 0.01: 1.5, 0.02: 1.7})
    found(first, next(job for job in first.todo() if job.kind == "run"), 1.3)
    early = Board(register(tmp_path / "a" / "plan.toml", tmp_path / "early"))
    assert take_over(early, first.folder / "results.jsonl") == 7, "before a report has written the file"
    pack(first, first.folder)
    second = Board(register(tmp_path / "a" / "plan.toml", tmp_path / "second"))
    assert take_over(second, first.folder / "results.jsonl") == 7
    assert second.todo() == first.todo()
    lines = (first.folder / "results.jsonl").read_text().splitlines(keepends=True)
    for text, said in (
        ("", "does not hold the results of a comparison"),
        ("[]\n[]\n", "does not hold the results of a comparison"),
        ("".join(lines[1:]), "does not begin with the plan"),
        (lines[0].replace("GRU", "gru") + lines[1], "changed after it was registered"),
    ):
        (tmp_path / "odd.jsonl").write_text(text)
        with pytest.raises(UnrolledError, match=said):
            take_over(second, tmp_path / "odd.jsonl")


@pytest.mark.parametrize(
    ("change", "taken"),
    [
        (lambda one: one["config"]["model"]["dropout"].pop("inner"), 3),  # as before there was such a setting
        (lambda one: one["config"]["model"]["dropout"].update(inner=0.1), 0),
        (lambda one: one["config"]["stream"].update(columns=7), 0),
        (lambda one: one["text"].update(training_tokens=7), 0),
        (lambda one: one, 3),
    ],
)
def test_results_of_another_release_are_taken_over_where_settings_agree(
    tmp_path: Path, change: Callable[[dict[str, Any]], Any], taken: int
) -> None:
    (tmp_path / "a").mkdir()
    first = board_of(tmp_path / "a")
    value = read_json(first.folder / "plan.lock.json")
    change(next(one for one in value["systems"] if one["system"] == "LSTM"))
    write_sealed(first.folder / "plan.lock.json", value)
    first = Board(open_lock(first.folder))
    name = first.lock.systems[0].system
    searched(first, name, {0.005: 2.0, 0.01: 1.5, 0.02: 1.7})
    pack(first, first.folder)
    for at, source in enumerate((first.folder, first.folder / "results.jsonl")):
        second = Board(register(tmp_path / "a" / "plan.toml", tmp_path / f"second{at}"))
        assert take_over(second, source) == taken
    renamed = tmp_path / "a" / "renamed.toml"
    renamed.write_text((tmp_path / "a" / "plan.toml").read_text().replace('"LSTM"', '"other"'))
    assert take_over(Board(register(renamed, tmp_path / "renamed")), first.folder) == 0


def test_a_damaged_result_is_told(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    job = board.todo()[0]
    found(board, job, 1.0)
    whole = json.loads(board.path(job).read_text())
    for damage in (
        {"kind": "something"}, {"version": 2}, {"status": "fine"}, {"nats_per_token": None}, {"nats_per_token": "1"},
        {"curve": [{"tokens": 1}]}, {"curve": 3}, {"tokens": -1}, {"backends": []}, {"cpu_seconds": "x"},
        {"id": "run.x"},
    ):  # fmt: skip
        board.path(job).write_text(json.dumps({**whole, **damage}))
        with pytest.raises(UnrolledError, match="delete it, and run it again"):
            Board(board.lock).todo()


def test_a_damaged_timing_is_told(tmp_path: Path) -> None:
    board = board_of(tmp_path, ("{{ tokens = 700 }}", "{{ cpu_seconds = 3 }}"))
    (timing,) = [job for job in board.todo() if job.kind == "time"]
    for seconds in (
        {"LSTM": 0.01},
        {"LSTM": 0.01, "GRU": 0.0},
        {"LSTM": 0.01, "GRU": -1.0},
        [],
        {"LSTM": 1, "GRU": "x"},
    ):
        found(board, timing, 0.0, seconds_per_token=seconds)
        with pytest.raises(UnrolledError, match="delete it, and run it again"):
            Board(board.lock).todo()


def test_what_is_set_aside_does_not_depend_on_the_number_of_workers(tmp_path: Path) -> None:
    """Several workers may have made runs of later seeds before they saw that one diverged."""
    board = board_of(tmp_path, ("seeds = [1, 2]", "seeds = [1, 2, 3]"))
    searched(board, "GRU", {0.005: 1.9, 0.01: 1.7, 0.02: 1.5})
    first, second, third = (job for job in board.todo() if job.system == "GRU")
    found(board, third, None)
    assert choice_of(board, "GRU").value == 0.02  # an earlier one may diverge yet
    found(board, first, 1.4)
    found(board, second, None)
    assert choice_of(board, "GRU").value == 0.01
    (system,) = (one for one in found_of(board).systems if one.name == "GRU")
    assert [(run.seed, run.status) for run in system.set_aside] == [(1, "finished"), (2, "diverged")]


def test_runs_set_aside_are_taken_over_too(tmp_path: Path) -> None:
    board = board_of(tmp_path)
    searched(board, "GRU", {0.005: 1.9, 0.01: 1.7, 0.02: 1.5})
    searched(board, "LSTM", {0.005: 1.9, 0.01: 1.7, 0.02: 1.5})
    found(board, next(job for job in board.todo() if job.system == "GRU"), None)
    for job in board.todo():
        found(board, job, 1.3)
    pack(board, board.folder)
    second = Board(register(tmp_path / "plan.toml", tmp_path / "second"))
    take_over(second, board.folder / "results.jsonl")
    assert second.todo() == []
    assert choice_of(second, "GRU").set_aside == (0.02,)


def test_a_single_value_has_no_edge(tmp_path: Path) -> None:
    gru = 'set = ["model.cell.name=gru"]'
    board = board_of(tmp_path, ('edge = "report"', 'edge = "refuse"'), (gru, f"{gru}\nvalues = [0.01]"))
    searched(board, "GRU", {0.01: 1.7})
    assert (choice_of(board, "GRU").at_edge, board.refusals()) == (False, [])


def test_the_reference_gets_its_tokens_exactly(tmp_path: Path) -> None:
    board = board_of(tmp_path, ("[match]", '[match]\nreference = "GRU"'), ("{{ tokens = 700 }}", "{{ tokens = 711 }}"))
    (timing,) = [job for job in board.todo() if job.kind == "time"]
    seconds = next(x for x in (i / 1e4 for i in range(1, 9999)) if int(711 * x / x) != 711)
    found(board, timing, 0.0, seconds_per_token={"LSTM": 0.01, "GRU": seconds})
    assert {one.system: board.tokens(one) for one in board.lock.systems}["GRU"] == 711


def test_names_of_jobs_are_short_enough_for_files(tmp_path: Path) -> None:
    deep = tmp_path / "/".join(["a" * 60] * 4)
    deep.mkdir(parents=True)
    write_plan(tmp_path)
    for path in (tmp_path / "text").iterdir():
        (deep / path.name).write_bytes(path.read_bytes())
    board = board_of(tmp_path, ("[match]", f'corpora = ["{deep}"]\n[match]'))
    assert max(len(job.id) for job in board.todo()) < 200
