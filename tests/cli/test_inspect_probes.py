"""``unrolled inspect`` trace, gates, units, errors, memory, length: tables, JSON, files, plots, refusals."""

import importlib.util
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from cli.conftest import Command

SMALL = {
    "gates": ["--limit", 400],
    "units": ["--limit", 400, "--property", "word_end", "--property", "line_position"],
    "errors": ["--limit", 400, "--order", 4],
    "memory": ["--limit", 400, "--longest", 8, "--lags", 12, "--places", 10, "--gradients", 4],
    "length": ["--limit", 400, "--length", 40, "--texts", 5, "--trained", 8],
}
TABLES = {
    "gates": {"gates.tsv"},
    "units": {"units.tsv", "curves.tsv"},
    "errors": {"errors.tsv"},
    "memory": {"contexts.tsv", "gradients.tsv", "autocorrelation.tsv"},
    "length": {"positions.tsv", "norms.tsv"},
}


def read_tsv(path: Path | str) -> list[list[str]]:
    return [line.split("\t") for line in Path(path).read_text().splitlines()]


@pytest.mark.parametrize("verb", SMALL)
def test_json_files_and_text(unrolled: Command, trained: Path, verb: str) -> None:
    code, out, err = unrolled("inspect", verb, trained, *SMALL[verb], "--json", "--out", "made/x")
    assert code == 0, err
    found = json.loads(out)
    assert found == json.loads(Path("made/x/record.json").read_text())
    assert found["kind"] == verb
    run = found if verb == "units" else found["runs"][0]
    assert (run["tokens"], run["split"], run["step"]) == (400, "test", 12)
    assert TABLES[verb] <= {path.name for path in Path("made/x").iterdir()}
    for name in TABLES[verb]:
        head, *rows = read_tsv(f"made/x/{name}")
        assert rows
        assert all(len(row) == len(head) for row in rows)
    code, out, err = unrolled("inspect", verb, trained, *SMALL[verb])
    assert (code, err) == (0, "")
    assert len(out.splitlines()) > 3


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="matplotlib is not installed")
@pytest.mark.parametrize("verb", SMALL)
def test_plots(unrolled: Command, trained: Path, verb: str) -> None:
    for folder in ("one", "two"):
        assert unrolled("inspect", verb, trained, *SMALL[verb], "--out", folder).err == ""
    assert Path(f"one/{verb}.png").read_bytes().startswith(b"\x89PNG")
    assert Path(f"one/{verb}.svg").read_text() == Path(f"two/{verb}.svg").read_text(), "equal figures, equal bytes"


@pytest.mark.parametrize("verb", SMALL)
def test_without_matplotlib(unrolled: Command, trained: Path, verb: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from unrolled.analyse import plots

    def absent(name: str) -> None:
        raise ImportError(name)

    monkeypatch.setattr(plots.importlib, "import_module", absent)
    code, _, err = unrolled("inspect", verb, trained, *SMALL[verb], "--out", "made")
    assert code == 0
    assert err == 'the plot needs matplotlib and is left out; install it with: pip install "unrolled[report]"\n'
    assert {path.name for path in Path("made").iterdir()} == TABLES[verb] | {"record.json"}


@pytest.mark.parametrize("verb", ["gates", "errors", "memory"])
def test_runs_side_by_side(unrolled: Command, trained: Path, verb: str) -> None:
    shutil.copytree(trained, "again")
    shutil.copytree(trained, "other/again")
    code, out, err = unrolled("inspect", verb, trained, "again", "other/again", *SMALL[verb], "--json")
    assert code == 0, err
    first, second, third = json.loads(out)["runs"]
    assert [first["name"], second["name"], third["name"]] == ["trained", "again", "other/again"]
    figures = {"gates": "gates", "errors": "categories", "memory": "contexts"}[verb]
    assert first[figures] == second[figures]


def test_trace(unrolled: Command, trained: Path, text: Path) -> None:
    code, out, err = unrolled("inspect", "trace", trained)
    assert (code, err) == (0, "")
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows[0] == ["internal", "role", "units"]
    assert ["0.f", "gate"] in [row[:2] for row in rows]
    Path("mine.txt").write_text((text / "test.txt").read_text()[:50])
    options = ["--layer", 0, "--name", "c", "--name", "f", "--unit", 2, "--unit", 0]
    code, out, err = unrolled("inspect", "trace", trained, "mine.txt", *options, "--out", "made/t.npz", "--json")
    assert (code, err) == (0, "")
    record = json.loads(out)
    assert record["tokens"] == 50
    assert record["internals"] == {"0.f": {"role": "gate", "units": 2}, "0.c": {"role": "state", "units": 2}}
    held = np.load("made/t.npz", allow_pickle=False)
    assert held["0.c"].shape == (50, 2)
    assert bytes(held["text"]).decode() == Path("mine.txt").read_text()
    beside = json.loads(Path("made/t.npz.json").read_text())
    assert len(beside.pop("tokens_text")) == 50
    assert beside == record
    code, _, err = unrolled("inspect", "trace", trained, "mine.txt", "--name", "c", "--out", "t.safetensors")
    assert (code, err) == (0, "")
    from unrolled.core.tree import load_tensors

    assert load_tensors("t.safetensors")["0.c"][:, [2, 0]].numpy() == pytest.approx(held["0.c"])
    _, out, _ = unrolled("score", trained, "mine.txt", "--unit", "token", "--json")
    scored = [json.loads(line)["surprisal_bits"] for line in out.splitlines()]
    assert held["nats"] / math.log(2) == pytest.approx(scored, abs=1e-4), "the losses of unrolled score"


def test_errors_leave_no_remainder(unrolled: Command, trained: Path, text: Path) -> None:
    (run,) = json.loads(unrolled("inspect", "errors", trained, "--order", 4, "--json").out)["runs"]
    parts = run["categories"].values()
    assert math.fsum(part["nats"] for part in parts) == pytest.approx(run["nats"], abs=1e-9)
    assert sum(part["tokens"] for part in parts) == run["tokens"]
    assert run["counted_tokens"] == len((text / "train.txt").read_bytes())
    evaluated = json.loads(unrolled("eval", trained, "--json").out)
    assert run["nats"] == pytest.approx(evaluated["nats"], rel=1e-6), "the loss of unrolled eval"
    (other,) = json.loads(unrolled("inspect", "errors", trained, "--order", 1, "--rare", 10**6, "--json").out)["runs"]
    assert other["count_model_nats"] > run["count_model_nats"]
    assert other["categories"]["word_rest"]["tokens"] == 0
    (less,) = json.loads(unrolled("inspect", "errors", trained, "--train-tokens", 100, "--json").out)["runs"]
    assert less["counted_tokens"] == 100


def test_thresholds_act(unrolled: Command, trained: Path) -> None:
    def left(*options: object) -> float:
        (run,) = json.loads(unrolled("inspect", "gates", trained, "--limit", 200, "--json", *options).out)["runs"]
        return run["gates"]["0.f"]["left"]

    assert left("--low", 0.8) > left()


def test_units(unrolled: Command, trained: Path) -> None:
    Path("mine.txt").write_text("the cat sleeps\n  the hill\n" * 10)
    size = len(Path("mine.txt").read_text())
    Path("mine.tsv").write_text("x\ty\n" + "".join(f"{t}\t{t % 7}\n" for t in range(size)))
    code, out, err = unrolled("inspect", "units", trained, "--text", "mine.txt", "--top", 2)
    assert (code, err) == (0, "")
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows[-1] == ["the same at every token, so left out: quote, depth, round, square, curly"]
    assert [row[0] for row in rows[1:-1:2]] == ["line_position", "word_end", "indent"]
    table = ["inspect", "units", trained, "--text", "mine.txt", "--table", "mine.tsv", "--column", "y", "--json"]
    found = json.loads(unrolled(*table).out)
    assert set(found["properties"]) == {"y"}
    units = found["properties"]["y"]["units"]
    assert len(units) == 5
    by = json.loads(unrolled(*table, "--by", "information", "--name", "h").out)["properties"]["y"]["units"]
    assert {one["internal"] for one in by} == {"0.h"}
    bits = [one["information_bits"] for one in by]
    assert bits == sorted(bits, reverse=True)
    both = json.loads(unrolled(*table, "--property", "indent").out)
    assert set(both["properties"]) == {"indent", "y"}


def test_refusals(refused: Callable[..., str], unrolled: Command, trained: Path, text: Path) -> None:
    inspect = ["inspect"]
    assert "no.txt does not exist" in refused(*inspect, "gates", trained, "--text", "no.txt")
    Path("empty.txt").write_text("")
    assert "empty.txt is empty" in refused(*inspect, "units", trained, "--text", "empty.txt")
    assert "a text or a corpus, not both" in refused(
        *inspect, "gates", trained, "--text", "empty.txt", "--corpus", "pydoc"
    )
    assert "has no split 'tset'" in refused(*inspect, "errors", trained, "--split", "tset")
    assert "0 < low < high < 1" in refused(*inspect, "gates", trained, "--low", 0.95)
    assert "unknown property 'quotes'" in refused(*inspect, "units", trained, "--property", "quotes")
    assert "unknown measure 'r'" in refused(*inspect, "units", trained, "--by", "r")
    assert "give both --table and --column" in refused(*inspect, "units", trained, "--column", "x")
    assert "use fewer places" in refused(*inspect, "memory", trained, "--places", 10**6)
    assert "unknown internal 'q'" in refused(*inspect, "trace", trained, "--name", "q")
    assert "name one that ends in .npz or .safetensors" in refused(*inspect, "trace", trained, "empty.txt")
    assert "x.csv ends neither in" in refused(*inspect, "trace", trained, "--out", "x.csv")
    assert "no/run is not a run" in refused(*inspect, "memory", trained, "no/run")
    Path("file").write_text("in the way")
    assert "is a file, not a folder" in refused(*inspect, "gates", trained, "--out", "file")
    settings = ["--set", "train.steps=2", "--set", "model.width=8", "--set", "train.final_eval=false"]
    settings += ["--set", "stream.columns=4", "--set", "stream.window=12", "--set", "model.cell.name=rnn"]
    assert unrolled("train", "--corpus", text, *settings, "--out", "plain", "--sample", 0).code == 0
    assert "the cell rnn has no gates" in refused(*inspect, "gates", "plain")
    Path("counts.toml").write_text('corpus.name = "pydoc"\ntokenizer.name = "word"\n[counts]\norder = 2\n')
    assert unrolled("train", "counts.toml", "--corpus", text, "--out", "counted", "--sample", 0).code == 0
    for verb in ("trace", "gates", "units", "errors", "memory"):
        assert "is a count model, which has no neural weights" in refused(*inspect, verb, "counted")


def test_length_says_that_the_state_was_carried(unrolled: Command, trained: Path) -> None:
    code, _, err = unrolled("inspect", "length", trained, "--limit", 400, "--length", 60, "--texts", 3)
    assert code == 0
    assert "carried from window to window" in err
    assert "--trained" in err
