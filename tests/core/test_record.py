"""What a run says about itself."""

import json
import subprocess
import sys
import time

import pytest

import unrolled
from unrolled.core import record


def test_environment_is_plain_json() -> None:
    found = record.environment()
    assert json.loads(json.dumps(found)) == found
    assert found["unrolled"] == unrolled.__version__
    assert found["python"] == ".".join(map(str, sys.version_info[:3]))
    assert found["threads"] == 1, "tests run with one thread"
    assert found["cpu"]


def test_cpu_seconds_count_work_and_not_sleep() -> None:
    start = record.cpu_seconds()
    time.sleep(0.1)
    slept = record.cpu_seconds() - start
    while time.process_time() < 1e9 and record.cpu_seconds() - start < slept + 0.05:
        sum(range(10_000))
    assert slept < 0.09


def test_cpu_seconds_count_finished_children() -> None:
    start = record.cpu_seconds()
    own = time.process_time()
    subprocess.run([sys.executable, "-c", "sum(range(3_000_000))"], check=True)
    assert record.cpu_seconds() - start > (time.process_time() - own) + 0.01


def test_wall_seconds_go_on() -> None:
    first = record.wall_seconds()
    time.sleep(0.02)
    assert 0.02 <= record.wall_seconds() - first < 5


def test_an_installed_wheel_has_no_commit(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(record, "__file__", f"{tmp_path}/a/b/c/record.py")
    record._commit.cache_clear()
    try:
        assert record._commit() is None
    finally:
        record._commit.cache_clear()
