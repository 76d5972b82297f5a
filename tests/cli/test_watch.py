"""``unrolled watch``."""

import json
from collections.abc import Callable
from pathlib import Path

from cli.conftest import Command


def test_a_finished_run_is_shown_once(unrolled: Command, trained: Path) -> None:
    code, out, err = unrolled("watch", trained)
    assert (code, err) == (0, "")
    assert "finished" in out
    assert "100%" in out
    lines = [json.loads(line) for line in (trained / "metrics.jsonl").read_text().splitlines()]
    last = [line["nats"] for line in lines if line["type"] == "valid"][-1]
    assert f"{last:.4f}" in out


def test_lines_of_json(unrolled: Command, begun: Path) -> None:
    code, out, _ = unrolled("watch", begun, "--once", "--json")
    assert code == 0
    found = json.loads(out)
    assert found["kind"] == "unrolled watch"
    assert found["runs"][0]["status"] == "running"
    assert found["runs"][0]["folder"] == str(begun)


def test_it_follows_until_the_end(unrolled: Command, trained: Path) -> None:
    """The record comes while it is watched."""
    import threading

    record = (trained / "record.json").read_text()
    (trained / "record.json").unlink()
    end = threading.Timer(0.4, lambda: (trained / "record.json").write_text(record))
    end.start()
    code, out, _ = unrolled("watch", trained, "--every", 0.1, "--json")
    end.join()
    assert code == 0
    assert [json.loads(line)["runs"][0]["status"] for line in out.splitlines()] == ["running", "finished"]


def test_refusals(refused: Callable[..., str], tmp_path: Path) -> None:
    assert "there is no folder" in refused("watch", tmp_path / "none")


def test_a_comparison_that_has_not_begun(unrolled: Command, tmp_path: Path) -> None:
    from compare.plans import registered

    registered(tmp_path)
    code, out, _ = unrolled("watch", tmp_path / "out", "--once")
    assert code == 0
    assert out.startswith(f"{tmp_path / 'out'}: 0 of ")
    assert "0 under way; 0.0 CPU hours spent" in out
