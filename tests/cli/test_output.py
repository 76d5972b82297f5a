"""What the verbs print: one JSON document or text on standard output, progress and errors on standard error."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import BytesIO, TextIOWrapper
from pathlib import Path

import pytest

from cases.process import Process
from cli.conftest import Command
from cli.tiny import tiny
from unrolled.bench import BenchConfig, peak_speed

UNROLLED = [sys.executable, "-m", "unrolled"]


@pytest.mark.parametrize("verb", [["cells"], ["info"], ["corpora", "list"], ["corpora", "show", "pydoc"]], ids=" ".join)
def test_json(unrolled: Command, verb: list[str]) -> None:
    code, out, err = unrolled(*verb, "--json")
    assert (code, err) == (0, "")
    json.loads(out)
    text = unrolled(*verb)
    assert text.code == 0
    assert text.out
    assert text.err == ""


def test_json_of_runs(unrolled: Command, text: Path, trained: Path) -> None:
    code, out, err = unrolled(
        "train", "--corpus", text, "--json", "--out", "new", *tiny(), "--set", "train.final_eval=true"
    )
    assert (code, err) == (0, "")
    record = json.loads(out)
    assert record["run"] == "new"
    assert record["status"] == "finished"
    assert record["valid_exact"]["tokens"] == len((text / "valid.txt").read_bytes())
    for key in (
        "environment",
        "backends",
        "checksums",
        "parameters",
        "tokens",
        "wall_seconds",
        "cpu_seconds",
        "precision",
    ):
        assert record[key], key
    assert {"unrolled", "commit", "python", "torch", "cpu", "cores", "threads"} <= set(record["environment"])
    assert set(record["checksums"]) == {"train", "valid", "test"}

    code, out, err = unrolled("train", "--corpus", text, "--json", "--dry-run", *tiny(), "--out", "dry")
    assert (code, err) == (0, "")
    assert json.loads(out)["steps"] == 6
    assert not Path("dry").exists()

    code, out, err = unrolled("eval", trained, "--json", "--out", "made/result.json")
    assert (code, err) == (0, "")
    assert json.loads(out) == json.loads(Path("made/result.json").read_text())

    code, out, err = unrolled("generate", trained, "--json", "--tokens", 5, "--samples", 2)
    assert (code, err) == (0, "")
    assert [len(one["tokens"]) for one in json.loads(out)] == [5, 5]


def test_train_prints_results(unrolled: Command, text: Path) -> None:
    code, out, err = unrolled("train", "--corpus", text, *tiny(), "--sample", 20)
    assert code == 0
    assert out.startswith("validation ")
    assert "run runs/default-1\nsample:\n" in out
    assert "phase 1: 6 steps" in err
    assert "sample" not in err
    config = json.loads(Path("runs/default-1/config.json").read_text())
    assert config["tokenizer"]["name"] == "byte"
    unrolled("train", "--corpus", text, *tiny(), "--sample", 0, "--set", "tokenizer.name=char")
    config = json.loads(Path("runs/default-2/config.json").read_text())
    assert config["tokenizer"]["name"] == "char"


def test_prompt_from_standard_input(unrolled: Command, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the locale says otherwise, and the text has a mark at its start
    monkeypatch.setattr(sys, "stdin", TextIOWrapper(BytesIO(b"\xef\xbb\xbfthe cat"), encoding="cp1252"))
    assert unrolled("generate", trained, "--prompt", "-", "--tokens", 3).out.startswith("the cat")
    Path("prompt.txt").write_text("the dog")
    assert unrolled("generate", trained, "--prompt-file", "prompt.txt", "--tokens", 3).out.startswith("the dog")


def test_text_comes_out_as_it_is(unrolled: Command, tmp_path: Path) -> None:
    """Neither markup nor emoji codes, and no line is wrapped."""
    line = "[bold]x[/bold] :smile: [/] " + "long " * 60 + "end"
    (tmp_path / "odd.txt").write_text("\n".join([line] * 40) + "\n")
    assert unrolled("corpora", "show", "odd.txt", "-n", 1).out == line + "\n"


def test_broken_pipe() -> None:
    command = " ".join([*UNROLLED, "corpora", "show", "pydoc"])
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; ({command} -n 40000; echo code $? >&2) | head -1"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.count("\n") == 1
    assert done.stderr == "code 141\n"


@pytest.mark.parametrize("first", ["SIGINT", "SIGTERM"])
def test_signals(first: str, text: Path, tmp_path: Path, unrolled: Command) -> None:
    arguments = ["train", "--corpus", str(text), *tiny(), "--set", "train.steps=9000", "--out", "run", "--sample", "0"]
    arguments += ["--set", "train.validations=500"]
    with (tmp_path / "out").open("wb") as out, (tmp_path / "err").open("wb") as said:
        process = Process(arguments, None, out.fileno(), said.fileno())
        began = time.monotonic()
        while time.monotonic() < began + 60 and not (tmp_path / "run" / "model.safetensors").exists():
            time.sleep(0.02)
        os.kill(process.number, getattr(signal, first))
        assert process.wait() == {"SIGINT": 130, "SIGTERM": 143}[first]
    assert (tmp_path / "out").read_bytes() == b""
    err = (tmp_path / "err").read_text()
    last = err.splitlines()[-1]
    assert last.startswith(f"unrolled: stopped by {first} at step ")
    assert last.endswith("continue with: unrolled train --resume run")
    assert "Traceback" not in err
    record = json.loads((tmp_path / "run" / "record.json").read_text())
    assert record["status"] == "stopped"
    assert unrolled("eval", "run", "--json").code == 0


def test_divergence(refused: Callable[..., str], unrolled: Command, text: Path) -> None:
    settings = [*tiny(), "--set", "train.steps=400", "--set", "train.validations=200", "--set", "train.clip=1e30"]
    settings += [
        "--set",
        "train.optimizer={name='sgd', lr=1000.0}",
        "--set",
        "train.schedule={name='linear', warmup=0.9}",
    ]
    outcome = unrolled("train", "--corpus", text, *settings, "--out", "run", "--json")
    assert outcome.code == 1
    assert outcome.out == ""
    assert "training diverged after step" in outcome.err
    assert outcome.err.count("\n") == 1
    assert json.loads(Path("run/record.json").read_text())["status"] == "diverged"
    result = json.loads(unrolled("eval", "run", "--json").out)
    assert result["figures"]["nats_per_token"] < 20


def test_eval_adapts_and_searches_and_models_are_compared(unrolled: Command, trained: Path) -> None:
    code, out, err = unrolled("eval", trained, "--per-token", "static.tsv.gz", "--json")
    assert (code, err) == (0, "")
    static = json.loads(out)
    arguments = ["--dynamic", "sgd", "--set", "dynamic.lr=0.02", "--cache", 30]
    arguments += ["--search", "cache", "--search-tokens", 50]
    code, out, err = unrolled("eval", trained, *arguments, "--per-token", "dynamic.tsv", "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert found["protocol"]["kind"] == "dynamic + cache"
    assert found["protocol"]["options"]["dynamic"]["lr"] == 0.02
    assert len(found["provenance"]["search"]["cache"]["tried"]) == 16
    difference = (found["nats"] - static["nats"]) / static["tokens"]
    code, out, _ = unrolled("difference", "dynamic.tsv", "static.tsv.gz", "--json")
    assert json.loads(out)["nats_per_token"] == pytest.approx(difference, abs=1e-9)
    code, out, _ = unrolled("difference", "static.tsv.gz", "static.tsv.gz")
    assert code == 0
    assert "perplexity" in out
    for split in ("valid", "test"):
        for name, temperature in (("cool", 0.8), ("hot", 1.3)):
            code, _, _ = unrolled(
                "eval", trained, "--split", split, "--temperature", temperature, "--per-token", f"e/{split}/{name}.tsv"
            )
            assert code == 0
    code, out, _ = unrolled("ensemble", "e", "--json")
    assert code == 0
    mixed = json.loads(out)
    assert set(mixed["weights"]) == {"cool", "hot"}
    assert sum(mixed["weights"].values()) == pytest.approx(1)
    code, out, _ = unrolled("ensemble", "e")
    assert "weights fitted on valid" in out


def test_export_and_a_count_model(unrolled: Command, text: Path) -> None:
    Path("counts.toml").write_text(
        'title = "counts"\ncorpus.name = "pydoc"\ntokenizer.name = "word"\n[counts]\norder = 2\n'
    )
    code, out, err = unrolled("train", "counts.toml", "--corpus", text, "--out", "counted", "--sample", 5)
    assert code == 0, err
    assert "perplexity" in out
    code, out, _ = unrolled("train", "counts.toml", "--corpus", text, "--dry-run", "--json")
    assert (code, json.loads(out)["order"]) == (0, 2)
    code, out, _ = unrolled("export", "counted", "made/x.arpa")
    assert code == 0
    assert Path("made/x.arpa").read_text().startswith("\\data\\")
    assert unrolled("eval", "counted", "--json").code == 0


def test_compress_and_back(unrolled: Command, text: Path, tmp_path: Path) -> None:
    settings = [*tiny(), "--set", "tokenizer.name=byte"]
    assert unrolled("train", "--corpus", text, "--out", "bytes", "--sample", 0, *settings).code == 0
    Path("a.bin").write_bytes(bytes(range(0, 256, 2)))
    code, out, err = unrolled("compress", "bytes", "a.bin", "--dynamic", "sgd", "--set", "dynamic.lr=0.1", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["bytes"] == 128
    assert "a.bin exists" in unrolled("decompress", "bytes", "a.bin.unr").err
    code, out, _ = unrolled("decompress", "bytes", "a.bin.unr", "--out", "b.bin")
    assert code == 0
    assert Path("b.bin").read_bytes() == Path("a.bin").read_bytes()
    assert "another model" in unrolled("decompress", _other(unrolled, text, settings), "a.bin.unr", "-o", "c").err
    assert not Path("c").exists()


def _other(unrolled: Command, text: Path, settings: list[str]) -> str:
    unrolled("train", "--corpus", text, "--out", "other", "--sample", 0, *settings, "--set", "seed=5")
    return "other"


def test_eval_on_minimal_pairs(unrolled: Command, refused: Callable[..., str], trained: Path) -> None:
    lines = [
        {"good": f"the {word} sleeps", "bad": f"sleeps{word} the hllti", "UID": "order"} for word in ["cat", "dog"]
    ]
    lines += [{"good": "under the hill", "bad": "under the hill", "UID": "same"}]
    Path("mine.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    keys = ["--set", "pairs.good=good", "--set", "pairs.bad=bad"]
    code, out, err = unrolled("pairs", trained, "mine.jsonl", *keys, "--out", "new/pairs.json")
    assert (code, err) == (0, "")
    rows = [line.split("\t") for line in out.splitlines()]
    assert [row[0] for row in rows] == ["", "order", "same", "all"]
    assert rows[2][1:7] == ["50.0%", "5.5% to 94.5%", "1", "1", "1", "0"]
    record = json.loads(Path("new/pairs.json").read_text())
    assert rows[3][1] == f"{record['overall']['accuracy']:.1%}"
    code, out, _ = unrolled("pairs", trained, "mine.jsonl", *keys, "--json")
    assert json.loads(out) == record
    assert record["protocol"]["prepare"] == "none"
    found = json.loads(unrolled("pairs", trained, "mine.jsonl", *keys, "--json", "--normalize", "tokens").out)
    assert found["protocol"]["normalize"] == "tokens"
    task = ["pairs", trained, "mine.jsonl"]
    assert "has no sentence 'sentence_good'" in refused(*task)
    assert "config key 'prepare'" in refused(*task, "--prepare", "wsj")
    assert "which leaves nothing to cache" in refused(*task, *keys, "--predict", "cache=3")
    assert "put the 67 .jsonl files" in refused("pairs", trained, "blimp")


def test_profile(unrolled: Command, text: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = peak_speed  # of a product that takes seconds
    small = BenchConfig(peak_size=64, least_seconds=0.001)
    monkeypatch.setattr("unrolled.bench.peak_speed", lambda config, kind: whole(small, kind, seconds=0.05))
    arguments = ["train", "--corpus", text, *tiny(), "--profile", 2, "--out", "not-made"]
    code, out, _ = unrolled(*arguments)
    assert code == 0
    assert [line.split("\t")[0] for line in out.splitlines()[:5]] == ["part", "data", "masks", "forward", "loss"]
    found = json.loads(unrolled(*arguments, "--json").out)
    assert found["steps"] == 2
    assert found["peak"] > 0
    assert found["seconds"] == pytest.approx(sum(part["seconds"] for part in found["parts"]))
    assert not Path("not-made").exists()


def test_what_is_typed_is_text(unrolled: Command, text: Path) -> None:
    """A prompt that begins as a PDF document does is no document."""
    assert unrolled("train", "--corpus", text, *tiny(), "--out", "run", "--sample", 0).code == 0
    assert unrolled("generate", "run", "--prompt", "%PDF-", "--tokens", 2).out.startswith("%PDF-")
