"""A study whose sampler remembers in a PostgreSQL database: a real server, from Debian's packages."""

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tune.spaces import write_space
from tune.test_tune_killed import found, longer, remembered
from tune.working import search_with_kills
from unrolled.compare.tune import Board, Limit, begin, open_study, work
from unrolled.core.errors import UnrolledError, UsageError


def _programs() -> Path | None:
    """The folder of the server's programs; Debian keeps them off the path."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in folders if (folder / "initdb").exists()), None)


def _installed() -> Path | None:
    """The programs, fetched from Debian where that can be done."""
    if (folder := _programs()) is None and shutil.which("apt-get") and os.getuid() == 0:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            for command in (["update"], ["install", "-y", "--no-install-recommends", "postgresql"]):
                subprocess.run(["apt-get", *command], capture_output=True, timeout=300, check=False)
        folder = _programs()
    return folder


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    """URL of a fresh server that this test alone uses."""
    pytest.importorskip("psycopg", reason="psycopg is not installed (the extra db)")
    programs, user = _installed(), None
    if programs is None:
        pytest.skip("there is no PostgreSQL server, and none could be installed")
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
        try:
            yield f"postgresql+psycopg://tuner@127.0.0.1:{port}/postgres"
        finally:
            run("pg_ctl", "-m", "immediate", "-w", "stop")


@pytest.mark.slow
def test_a_study_in_a_database_with_kills(tmp_path: Path, server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    boards = []
    for name, database in (("alone", False), ("killed", True)):
        begin(write_space(tmp_path, longer()), tmp_path / name, database=database)
        boards.append(Board(open_study(tmp_path / name)))
    alone, killed = boards
    assert work(alone.folder, Limit(8), wait=0.05).complete
    assert search_with_kills(killed.folder, 8, workers=2, kills=6, seed=3, storage=server) == 6
    assert found(killed) == found(alone)
    assert remembered(killed, server) == remembered(alone)
    assert not (killed.folder / "optuna.journal").exists()
    with pytest.raises(UsageError, match="began with --storage; give the URL of the same database"):
        work(killed.folder, Limit(8))


@pytest.mark.slow
def test_a_database_that_cannot_be_reached(tmp_path: Path) -> None:
    pytest.importorskip("psycopg", reason="psycopg is not installed (the extra db)")
    begin(write_space(tmp_path), tmp_path / "out", database=True)
    with pytest.raises(UnrolledError, match=r"the database of the study cannot be used \(.*\); start it, or mend the"):
        work(tmp_path / "out", Limit(1), "postgresql+psycopg://nobody@127.0.0.1:1/none")
