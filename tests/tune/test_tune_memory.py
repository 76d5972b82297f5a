"""The sampler's memory: what it forgets, hears late or twice, and what comes of it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tune.spaces import SPACE, begun, search
from unrolled.compare.tune import Board, Limit, work
from unrolled.compare.tune.board import Trial
from unrolled.compare.tune.halving import Rungs, survives
from unrolled.compare.tune.memory import JOURNAL, Memory, check_storage, open_memory
from unrolled.core.errors import UnrolledError, UsageError

RANDOM = SPACE.replace("random = 3", 'sampler = "random"')


@pytest.fixture(autouse=True)
def _no_fsync(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)


def opened(board: Board) -> Memory:
    return open_memory(board, None)


def given(board: Board, memory: Memory, count: int) -> list[Trial]:
    """So many trials, asked for and written down."""
    trials = []
    for _ in range(count):
        trial = memory.ask()
        board.add(trial)
        trials.append(trial)
    return trials


def done(
    board: Board, number: int, value: float | None, status: str = "finished", share: float = 0.25
) -> dict[str, Any]:
    """A result made by hand."""
    settings = board.trials()[number].settings
    parts = {"share": share, "step": 6} if status == "pruned" else {}
    return board.write(
        board.trial_job(number),
        {
            "number": number,
            "settings": settings,
            "status": status,
            "value": value,
            "cpu_seconds": 1.0,
            "seed": 1,
            "parameters": 1000,
            "tokens": 960,
            **parts,
        },
    )


def states(memory: Memory) -> list[tuple[str, float | None]]:
    return [(one.state.name, one.value) for one in memory._trials()]


def test_the_torn_tail(tmp_path: Path) -> None:
    """A line without its end is cut off and kept; the file stays readable after the next append."""
    board = begun(tmp_path)
    first = given(board, opened(board), 2)
    path = board.folder / JOURNAL
    whole = path.read_bytes()
    path.write_bytes(whole + b'{"op_code":5,"worker_id":"')
    memory = opened(board)
    assert path.read_bytes() == whole
    (torn,) = board.folder.glob(f"{JOURNAL}.torn-*")
    assert torn.read_bytes() == b'{"op_code":5,"worker_id":"'
    given(board, memory, 1)
    again = opened(board)
    assert len(states(again)) == 3
    assert [one.settings for one in first] == [one.params for one in again._trials()[:2]]
    assert all(json.loads(line) for line in path.read_text().splitlines())
    assert not path.with_name(f"{JOURNAL}.lock").exists()


def test_a_tail_that_tears_while_others_have_the_file_open(tmp_path: Path) -> None:
    board = begun(tmp_path)
    memory = opened(board)
    given(board, memory, 1)
    for _ in range(2):  # twice in one second: both tails are kept
        with (board.folder / JOURNAL).open("ab") as file:
            file.write(b'{"op_code":')
        given(board, memory, 1)
    assert len(list(board.folder.glob(f"{JOURNAL}.torn-*"))) == 2
    assert len(states(opened(board))) == 3


def test_lines_that_are_lost_are_entered_again(tmp_path: Path) -> None:
    """The files know what was given and what came out; a journal cut back hears of it again."""
    board = begun(tmp_path, RANDOM)
    trials = given(board, opened(board), 3)
    done(board, 0, 2.0)
    done(board, 1, 3.0, "pruned")
    path = board.folder / JOURNAL
    lines = path.read_bytes().splitlines(keepends=True)
    for kept in (1, len(lines) // 2, len(lines) - 1):  # the study alone; in the middle of a trial; all but one
        path.write_bytes(b"".join(lines[:kept]))
        fresh = Board(board.study)
        memory = opened(fresh)
        trial = memory.ask()
        assert trial.number == 3
        found = memory._trials()
        assert states(memory) == [("COMPLETE", 2.0), ("PRUNED", 3.0), ("RUNNING", None), ("RUNNING", None)]
        assert [one.params for one in found[:3]] == [one.settings for one in trials]


def test_a_worker_that_dies_between_asking_and_writing(tmp_path: Path) -> None:
    board = begun(tmp_path, RANDOM)
    lost = opened(board).ask()
    trial = opened(board).ask()
    assert trial == lost, "the next one is given the same"
    board.add(trial)
    assert opened(board).ask().number == 1


def test_draws_depend_on_seed_and_number_alone(tmp_path: Path) -> None:
    board, other = begun(tmp_path, RANDOM), begun(tmp_path, RANDOM, out="other")
    first = given(board, opened(board), 5)
    again = [given(other, opened(other), 1)[0] for _ in range(5)]  # a new worker for each
    assert first == again
    reseeded = begun(tmp_path, RANDOM.replace('sampler = "random"', 'sampler = "random"\nseed = 2'), out="seed")
    assert given(reseeded, opened(reseeded), 5)[1:] != first[1:]


def test_it_learns(tmp_path: Path) -> None:
    """After the random trials it draws near the best; without learning it does not."""
    found = {}
    for name, text in (("tpe", SPACE.replace("random = 3", "random = 10")), ("random", RANDOM)):
        board = begun(tmp_path, text, out=name)
        memory = opened(board)
        for number in range(25):
            trial = given(board, memory, 1)[0]
            lr = trial.settings["train.optimizer.lr"]
            assert isinstance(lr, float)
            memory.tell(number, done(board, number, abs(lr - 0.04)))
        rates = [float(trial.settings["train.optimizer.lr"]) for trial in board.trials().values()]
        found[name] = sum(abs(rate - 0.04) for rate in rates[12:]) / len(rates[12:])
    assert found["tpe"] < 0.6 * found["random"]


def test_one_worker_repeats_itself(tmp_path: Path) -> None:
    given_to = []
    for name in ("one", "two"):
        board = begun(tmp_path, SPACE, out=name)
        memory = opened(board)
        for number in range(9):
            trial = given(board, memory, 1)[0]
            result = done(
                board, number, float(trial.settings["train.optimizer.lr"]), "pruned" if number % 3 else "finished"
            )
            memory.tell(number, result)
        given_to.append(list(board.trials().values()))
    assert given_to[0] == given_to[1]


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("results/trial.0000.json", '"value": 2.0', '"value": "low"'),
        ("results/trial.0000.json", '"value": 2.0', '"value": null'),
        ("results/trial.0000.json", '"number": 0,', ''), ("results/trial.0000.json", "finished", "done"),
        ("trials/0000.json", '"number": 0', '"number": 1'), ("trials/0000.json", "lr\": 0.01", "lr\": 7.0"),
        ("trials/0000.json", "{", "["),
    ],
)  # fmt: skip
def test_damaged_files_are_sentences(tmp_path: Path, file: str, old: str, new: str) -> None:
    board = begun(tmp_path)
    given(board, opened(board), 1)
    done(board, 0, 2.0)
    path = board.folder / file
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new, 1))
    with pytest.raises(UnrolledError, match="is damaged"):
        Board(board.study).results()


def test_late_tells(tmp_path: Path) -> None:
    board = begun(tmp_path)
    memory, other = opened(board), opened(board)
    given(board, memory, 3)
    result = done(board, 0, 2.0)
    assert memory.tell(0, result) is None
    assert other.tell(0, result) is None, "equal values are no news"
    assert other.tell(0, {**result, "value": 2.5}) == (
        "trial 0 came to 2.5, and somebody else had told 2.0; the first stands for the sampler, and the files say the "
        "second."
    )
    done(board, 1, 3.0, "pruned")
    done(board, 2, None, "diverged")
    assert Memory.tell_all(other) == []
    assert states(memory) == [("COMPLETE", 2.0), ("PRUNED", 3.0), ("PRUNED", None)]
    assert memory.tell(7, result) is None, "one that it does not know yet is told when it is entered"


def test_starts_come_first_and_once(tmp_path: Path) -> None:
    starts = 'start = [{{ "train.optimizer.lr" = 0.02 }}, {{ "model.embedding.size" = 5 }}]'
    board = begun(tmp_path, SPACE.replace("random = 3", starts))
    trials = [given(board, opened(board), 1)[0] for _ in range(4)]
    assert [trial.settings for trial in trials[:3]] == list(board.study.starts)
    assert trials[3].settings not in board.study.starts


def test_conditions_decide_what_is_given(tmp_path: Path) -> None:
    text = RANDOM + '"model.dropout.state" = {{ low = 0.0, high = 0.5, when = "model.dropout.input > 0" }}\n'
    board = begun(tmp_path, text)
    trials = given(board, opened(board), 12)
    both = [("model.dropout.state" in one.settings, one.settings["model.dropout.input"] == 0.2) for one in trials]
    assert set(both) == {(True, True), (False, False)}


def test_the_counts_of_a_rung(tmp_path: Path) -> None:
    assert survives(1.0, [1.0], 0.34)
    assert not survives(2.0, [1.0, 2.0], 0.34)
    assert survives(1.0, [1.0, 1.0, 3.0], 0.34), "ties go on"
    assert survives(2.0, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 0.34)
    assert not survives(3.0, [1.0, 2.0, 3.0, 4.0, 5.0, 6.0], 0.34)
    rungs = Rungs(tmp_path, (1, 2), 0.34)
    assert rungs.decide(1, 0, 2.0, 10).goes_on
    assert not rungs.decide(1, 1, 3.0, 10).goes_on
    assert rungs.stopped(1) == (1, 3.0, 10, False)
    assert rungs.stopped(0) is None
    assert rungs.decide(1, 2, 1.0, 10).goes_on
    assert rungs.decide(1, 0, 2.0, 10).goes_on, "what was decided stays, whoever came since"


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("sqlite:///a.db", "--storage does not take SQLite: with several workers its file locks"),
        ("postgresql://me@here/db", r"with psycopg as its driver, not postgresql://"),
        ("mysql://me@here/db", "--storage takes a PostgreSQL database"),
    ],
)
def test_places_that_are_refused(url: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        check_storage(url)


def test_a_study_stays_where_it_began(tmp_path: Path) -> None:
    board = begun(tmp_path)
    with pytest.raises(UsageError, match="began without --storage; leave it out"):
        work(board.folder, Limit(1), "postgresql+psycopg://me@here/db")


def test_a_sampler_that_cannot_be_told_hears_of_it_later(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SPACE.replace("tokens = 960", "tokens = 240").replace("best = 2, seeds = [11, 12]", "best = 1, seeds = [11]")
    board, told, original = begun(tmp_path, text), [], Memory.tell

    def down(*_: Any) -> None:
        raise UnrolledError("connection refused.")

    monkeypatch.setattr(Memory, "tell", down)
    monkeypatch.setattr(Memory, "tell_all", lambda _: [])
    assert search(board, 1, tell=told.append).complete
    assert any("the sampler will be told later: connection refused." in line for line in told)
    monkeypatch.setattr(Memory, "tell", original)
    monkeypatch.undo()
    monkeypatch.setattr(os, "fsync", lambda _: None)
    assert search(board, 2).complete
    assert [state for state, _ in states(opened(board))] == ["COMPLETE", "COMPLETE"] or len(states(opened(board))) == 2
    assert states(opened(board))[0][0] == "COMPLETE"
