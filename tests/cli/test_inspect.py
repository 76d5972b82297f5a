"""``unrolled inspect recovery``: tables, JSON, files, plots, refusals."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command

SMALL = ["inspect", "recovery", "--places", 20, "--lags", 12]
PLOTS = {"recovery.png", "recovery.svg"}
FIGURES = [
    *(f"excess_bits_{lag}" for lag in (0, 1, 2, 5, 10)),
    "total_bits", "half_lag", "tenth_lag", "correlation_0.9_lag", "correlation_0.99_lag",
]  # fmt: skip


def test_json_and_files(unrolled: Command, trained: Path) -> None:
    shutil.copytree(trained, "again")
    code, out, err = unrolled(*SMALL, trained, "again", "--json", "--out", "made/probe")
    assert code == 0, err
    found = json.loads(out)
    assert found == json.loads(Path("made/probe/record.json").read_text())
    assert found["config"] == {
        "split": "test", "limit": None, "places": 20, "length": 1, "corruption": "flip", "lags": 12, "columns": 1,
        "batch": 64, "seed": 1,
    }  # fmt: skip
    assert [run["name"] for run in found["runs"]] == ["trained", "again"]
    assert found["runs"][0]["figures"] == found["runs"][1]["figures"]
    assert list(found["runs"][0]["figures"]) == FIGURES
    assert found["runs"][0]["figures"]["excess_bits_0"]["value"] != 0
    (difference,) = found["differences"]
    assert (difference["name"], difference["less"], difference["unpaired"]) == ("again", "trained", None)
    assert difference["figures"]["total_bits"] == {"value": 0, "low": 0, "high": 0}

    head, *rows = [line.split("\t") for line in Path("made/probe/recovery.tsv").read_text().splitlines()]
    assert head[:5] == ["run", "lag", "excess", "excess, low", "excess, high"]
    assert {"correlation", "cosine", "correlation, layer 1", "cosine, layer 1, high"} < set(head)
    assert [row[:2] for row in rows] == [[name, str(lag)] for name in ("trained", "again") for lag in range(13)]
    shown = found["runs"][0]["figures"]["excess_bits_5"]
    assert [float(cell) for cell in rows[5][2:5]] == pytest.approx(list(shown.values()))
    assert all(len(row) == len(head) for row in rows)


def test_the_settings_arrive(unrolled: Command, trained: Path) -> None:
    def total(*options: object) -> float:
        code, out, err = unrolled(*SMALL, trained, "--json", *options)
        assert code == 0, err
        return json.loads(out)["runs"][0]["figures"]["total_bits"]["value"]

    usual = total()
    assert total() == usual
    assert total("--batch", 3) == pytest.approx(usual, abs=1e-4)
    changed = [
        ("--corruption", "delete"), ("--corruption", "random"), ("--length", 3), ("--seed", 2), ("--split", "valid"),
        ("--limit", 300), ("--columns", 7), ("--lags", 30), ("--places", 30),
    ]  # fmt: skip
    assert len({usual, *(total(*options) for options in changed)}) == 10


def test_text(unrolled: Command, trained: Path) -> None:
    code, out, err = unrolled(*SMALL, trained)
    assert (code, err) == (0, "")
    lines = [line.split("\t") for line in out.splitlines()]
    assert lines[0] == ["mean and 95 % interval", "trained"]
    assert lines[1][0] == "excess at lag 0, bits"
    assert len(lines) == 1 + len(FIGURES)


def test_runs_that_read_other_tokens_are_not_paired(unrolled: Command, trained: Path, text: Path) -> None:
    settings = ["train.steps=6", "model.width=8", "stream.columns=4", "stream.window=12", "train.final_eval=false"]
    settings += ["tokenizer.name=byte"]
    arguments = [part for setting in settings for part in ("--set", setting)]
    assert unrolled("train", "--corpus", text, *arguments, "--out", "bytes", "--sample", 0).code == 0
    code, out, err = unrolled(*SMALL, trained, "bytes")
    assert (code, err) == (0, "")
    assert out.splitlines()[-1] == "bytes reads other tokens than trained: no paired difference."
    assert "less trained" not in out
    shutil.copytree(trained, "other/trained")
    _, out, _ = unrolled(*SMALL, trained, "other/trained")
    assert f"less {trained}\tother/trained" in out, "two folders of one name are told apart"


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
def test_plots(unrolled: Command, trained: Path) -> None:
    code, _, err = unrolled(*SMALL, trained, "--out", "made")
    assert (code, err) == (0, "")
    assert {path.name for path in Path("made").iterdir()} == PLOTS | {"record.json", "recovery.tsv"}
    assert Path("made/recovery.png").read_bytes().startswith(b"\x89PNG")
    drawn = Path("made/recovery.svg").read_text()
    for words in ("trained", "excess loss, bits per token", "lag, tokens after the corruption"):
        assert words in drawn
    unrolled(*SMALL, trained, "--out", "twice")
    assert Path("twice/recovery.svg").read_text() == drawn, "equal figures give equal bytes"


def test_without_matplotlib(unrolled: Command, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from unrolled.analyse import plot_recovery, plots
    from unrolled.core.errors import UnrolledError

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(plots.importlib, "import_module", absent)
    code, out, err = unrolled(*SMALL, trained, "--out", "made", "--json")
    assert code == 0
    assert json.loads(out)["kind"] == "recovery"
    assert err == 'the plot needs matplotlib and is left out; install it with: pip install "unrolled[report]"\n'
    assert {path.name for path in Path("made").iterdir()} == {"record.json", "recovery.tsv"}
    with pytest.raises(UnrolledError, match="pip install"):
        plot_recovery("x", [], [])


def test_refusals(refused: Callable[..., str], unrolled: Command, trained: Path, text: Path) -> None:
    assert "no/run is not a run" in refused(*SMALL, trained, "no/run")
    assert "has no split 'tset'" in refused(*SMALL, trained, "--split", "tset")
    assert "config key 'corruption': input should be 'flip'" in refused(*SMALL, trained, "--corruption", "swap")
    assert "use fewer --places, fewer --lags or more text" in refused(*SMALL, trained, "--lags", 99_999)
    assert "device 'tpu9' is not available" in refused(*SMALL, trained, "--device", "tpu9")
    Path("file").write_text("in the way")
    assert "is a file, not a folder" in refused(*SMALL, trained, "--out", "file")
    Path("counts.toml").write_text('corpus.name = "pydoc"\ntokenizer.name = "word"\n[counts]\norder = 2\n')
    assert unrolled("train", "counts.toml", "--corpus", text, "--out", "counted", "--sample", 0).code == 0
    assert "is a count model, which has no neural weights" in refused(*SMALL, trained, "counted")
    assert unrolled("inspect", "recovery").code == 2
    assert unrolled(*SMALL, trained, "--places", 9).code == 2
