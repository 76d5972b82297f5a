"""``unrolled bench`` as it is typed."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Command
from unrolled.kernels import cell_loop

TINY = [
    "--width", 8, "--batch", 2, "--window", 3, "--repeats", 2,
    "--set", "peak_size=16", "--set", "copy_bytes=400", "--set", "least_seconds=1e-6",
]  # fmt: skip


def test_text_json_and_files(unrolled: Command) -> None:
    files = ["--out", "new/a.json", "--markdown", "new/a.md"]
    code, out, err = unrolled("bench", "rnn", "--backend", "generic", *TINY, *files)
    assert code == 0
    assert err.splitlines()[0] == "checking rnn, generic, float32"
    assert err.splitlines()[-1].startswith("repetition 2 of at most 2, which takes about ")
    assert len(set(err.splitlines())) == len(err.splitlines())
    lines = out.splitlines()
    assert lines[0].startswith("processor: ")
    assert "threads: 1" in lines[0]
    assert "native library: " in lines[1]
    assert lines[2].startswith("peak of float32 products: ")
    assert lines[2].endswith(", of 16 x 16")
    assert lines[3].startswith("repetitions: 2 of 2, in "), "no peak that no row is bound by"
    rows = [line.split("\t") for line in lines[4:]]
    assert rows[0][:8] == ["cell", "backend", "precision", "width", "batch", "window", "pass", "ms"]
    assert [row[:7] for row in rows[1:]] == [
        ["rnn", "generic", "float32", "8", "2", "3", "both"],
        ["rnn", "reference", "float32", "8", "2", "3", "both"],
        ["rnn", "published", "float32", "8", "2", "3", "both"],
        ["torch.nn.LSTM", "torch.nn", "float32", "8", "2", "3", "both"],
    ]
    assert {len(row) for row in rows} == {len(rows[0])}
    record = json.loads(Path("new/a.json").read_text())
    assert (record["kind"], record["repetitions"], record["config"]["seed"]) == ("bench", 2, 0)
    page = Path("new/a.md").read_text()
    assert "| rnn | generic | float32 | 8 | 2 | 3 | both | " in page

    code, out, err = unrolled(
        "bench", "rnn", "--backend", "generic", *TINY, "--json", "--out", "b.json", "--threads", 2
    )
    assert code == 0
    assert err.startswith("checking rnn, generic, float32\n")
    record = json.loads(out)
    assert record == json.loads(Path("b.json").read_text())
    assert record["environment"]["threads"] == 2

    code, out, err = unrolled("bench", "--compare", "new/a.json", "b.json", "--markdown", "c.md", "--out", "c.json")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert lines[0].startswith("A: ")
    assert "threads 2" in lines[1]
    assert len(lines) == 3 + 4
    assert "| rnn | generic |" in Path("c.md").read_text()
    code, out, _ = unrolled("bench", "--compare", "new/a.json", "b.json", "--json")
    assert json.loads(out) == json.loads(Path("c.json").read_text())
    assert len(json.loads(out)["pairs"]) == 4


def test_every_option_acts(unrolled: Command) -> None:
    several = ["--width", 9, "--batch", 3, "--window", 2, "--pass", "forward", "--pass", "step", "--precision", "bf16"]
    several += ["--precision", "float32", "--backend", "generic", "--backend", "torch", "--no-peers", "--json"]
    limits = ["--seconds", 1e-9, "--repeats", 50, "--set", "seed=4"]
    code, out, _ = unrolled("bench", "rnn", "diag_scan", *TINY, *several, *limits)
    record = json.loads(out)
    assert code == 0, "what a backend cannot do is no failure"
    keys = ("width", "batch", "window", "mode", "precision", "backend")
    found = [tuple(row[key] for key in keys) for row in record["rows"] if row["subject"] == "rnn"]
    assert len(found) == len(set(found)) == 2**6
    assert {row["subject"] for row in record["rows"]} == {"rnn", "diag_scan"}
    status = {(row["backend"], row["precision"]): row["status"] for row in record["rows"] if row["subject"] == "rnn"}
    assert status == {
        ("generic", "float32"): "measured",
        ("generic", "bf16"): "measured",
        ("torch", "float32"): "measured",
        ("torch", "bf16"): "cannot",
    }
    assert record["repetitions"] == 1, "the least, whatever the time"
    assert record["config"]["seed"] == 4
    assert record["config"]["peak_size"] == 16


@pytest.mark.parametrize(
    "cell", ['{name="mogrifier",rounds=2,rank=4}', '{"name": "mogrifier", "rounds": 2, "rank": 4}']
)
def test_cells_as_tables(unrolled: Command, cell: str) -> None:
    code, out, _ = unrolled("bench", cell, "--backend", "generic", "--no-peers", *TINY, "--json")
    assert code == 0
    (row,) = json.loads(out)["rows"]
    assert row["name"] == "mogrifier(rounds=2, rank=4)"
    assert (row["config"]["rounds"], row["config"]["rank"]) == (2, 4)


@pytest.mark.parametrize("form", [[], ["--json"]], ids=["text", "json"])
def test_a_wrong_backend_is_shown_and_fails(
    unrolled: Command, monkeypatch: pytest.MonkeyPatch, form: list[str]
) -> None:
    right = cell_loop.BACKENDS["generic"]

    def wrong(*arguments: Any) -> Any:
        y, final = right.run(*arguments)
        return y * 1.01, final

    monkeypatch.setitem(cell_loop.BACKENDS, "generic", right._replace(run=wrong))
    code, out, _ = unrolled("bench", "rnn", "--backend", "generic", *TINY, *form, "--out", "a.json")
    assert code == 1
    rows = json.loads(Path("a.json").read_text())["rows"]
    assert (rows[0]["status"], rows[0]["seconds"]) == ("refused", None)
    assert rows[1]["status"] == "measured"
    if form:
        assert json.loads(out)["rows"] == rows
    else:
        assert "rnn, generic, float32: refused: output differs from the reference's by" in out
        assert "rnn\tgeneric\tfloat32\t8\t2\t3\tboth\trefused\t" in out


REFUSED: list[tuple[list[Any], str]] = [
    (["lstn"], "unknown cell or operation 'lstn'; did you mean 'lstm'?"),
    (["diag_scna"], "did you mean 'diag_scan'?"),
    (["{name='mlstn'}"], "unknown cell 'mlstn'; did you mean 'mlstm'?"),
    (["{name='mlstm', facter=3}"], "unknown config key 'cells.0.facter'; did you mean 'factor'?"),
    (["{name=lstm"], "is no cell: write its name, or a table"),
    (["3"], "config key 'cells.0': give the name of a cell"),
    (["{name='mgru', reset='before', factor=3}"], "its size must be the width 8, not 3."),
    (["lstm", "--backend", "fusd"], "unknown backend 'fusd'; did you mean 'fused'?"),
    (["lstm", "--pass", "backward"], "config key 'passes.0'"),
    (["lstm", "--precision", "fp8"], "config key 'precisions.0'"),
    (["lstm", "--seconds", 0], "config key 'seconds'"),
    (["lstm", "--set", "peaksize=3"], "unknown config key 'peaksize'; did you mean 'peak_size'?"),
    (["lstm", "--out", "."], "is a folder; name a file."),
    (["lstm", "--markdown", "."], "is a folder; name a file."),
    (["--compare", "a.json", "b.json"], "--compare measures nothing; leave out cells and all options but"),
]


@pytest.mark.parametrize(
    ("arguments", "sentence"), REFUSED, ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else ""
)
def test_refusals(refused: Callable[..., str], arguments: list[Any], sentence: str) -> None:
    assert sentence in refused("bench", *arguments, *TINY)


def test_files_that_are_no_records(refused: Callable[..., str]) -> None:
    assert "does not exist" in refused("bench", "--compare", "a.json", "b.json", code=1)
    Path("a.json").write_text("{}")
    assert "is no 'bench' file" in refused("bench", "--compare", "a.json", "b.json", code=1)
    assert "leave out cells" in refused("bench", "lstm", "--compare", "a.json", "b.json")
    assert "leave out cells" in refused("bench", "--threads", 1, "--compare", "a.json", "b.json")
