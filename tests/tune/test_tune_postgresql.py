"""A study whose sampler remembers in a PostgreSQL database: a real server, from Debian's packages."""

import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from tune.spaces import write_space
from tune.test_tune_killed import found, longer, remembered
from tune.working import search_with_kills
from unrolled.compare.tune import Board, Limit, begin, open_study, work
from unrolled.compare.tune.memory import open_memory
from unrolled.core.errors import UnrolledError, UsageError


def _programs() -> Path | None:
    """The folder of the server's programs; Debian keeps them off the path."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


class Server(NamedTuple):
    """url: as --storage takes it. stop: ends it."""

    url: str
    stop: Callable[[], None]


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    """A fresh server that these tests alone use."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (the extra db)")
    programs, user = _programs(), None
    if programs is None:
        pytest.skip("there is no PostgreSQL server; Debian's package postgresql has one")
    if os.getuid() == 0:  # the server refuses to run as root
        user = "postgres"
        if subprocess.run(["id", user], capture_output=True, check=False).returncode:
            pytest.skip("the server does not run as root, and there is no user postgres")
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port = one.getsockname()[1]
    # not below pytest's folder, which is for its own user alone
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if user is not None:
            shutil.chown(folder, user)

        def run(program: str, *options: str) -> None:
            command = [str(programs / program), "-D", str(folder / "data"), *options]
            subprocess.run(command, user=user, check=True, capture_output=True, timeout=120, cwd=folder)

        run("initdb", "-A", "trust", "-U", "tuner", "--no-sync")
        options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        run("pg_ctl", "-o", options, "-l", str(folder / "log"), "-w", "start")

        def stop() -> None:
            if (folder / "data" / "postmaster.pid").exists():
                run("pg_ctl", "-m", "immediate", "-w", "stop")

        try:
            yield Server(f"postgresql+psycopg://tuner@127.0.0.1:{port}/postgres", stop)
        finally:
            stop()


@pytest.mark.slow
def test_a_study_in_a_database_with_kills(tmp_path: Path, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    boards = []
    for name, database in (("alone", False), ("killed", True)):
        begin(write_space(tmp_path, longer()), tmp_path / name, database=database)
        boards.append(Board(open_study(tmp_path / name)))
    alone, killed = boards
    assert work(alone.folder, Limit(8), wait=0.05).complete
    assert search_with_kills(killed.folder, 8, workers=2, kills=6, seed=3, storage=server.url) == 6
    assert found(killed) == found(alone)
    assert remembered(killed, server.url) == remembered(alone)
    assert not (killed.folder / "optuna.journal").exists()
    with pytest.raises(UsageError, match="began with --storage; give the URL of the same database"):
        work(killed.folder, Limit(8))


@pytest.mark.slow
def test_a_database_that_cannot_be_reached(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed (the extra db)")
    begin(write_space(tmp_path), tmp_path / "out", database=True)
    with pytest.raises(UnrolledError, match=r"the database of the study cannot be used \(.*\); start it, or mend the"):
        work(tmp_path / "out", Limit(1), "postgresql+psycopg://nobody@127.0.0.1:1/none")


@pytest.mark.slow
def test_a_database_that_goes_away(tmp_path: Path, server: Server) -> None:
    """Whoever asks or tells hears a sentence. The last of these tests: it stops the server."""
    begin(write_space(tmp_path), tmp_path / "out", database=True)
    board = Board(open_study(tmp_path / "out"))
    memory = open_memory(board, server.url)
    board.add(memory.ask())
    server.stop()
    for asked in (memory.ask, memory.tell_all):
        with pytest.raises(UnrolledError, match="the database of the study cannot be used"):
            asked()
    memory.close()
