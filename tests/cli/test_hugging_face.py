"""Export to and import from folders of transformers, and tasks of the harness, on the command line."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command

Refused = Callable[..., str]


def test_out_told_of_and_in_again(unrolled: Command, trained: Path) -> None:
    code, out, err = unrolled("export", trained, "out", "--to", "huggingface", "--remote-code", "--json")
    assert (code, err) == (0, "")
    assert json.loads(out)["remote_code"] is True
    assert Path("out/modeling_unrolled.py").is_file()
    code, out, _ = unrolled("export", trained, "plain", "--to", "huggingface")
    assert (code, "`hf upload NAME plain` publishes it" in out) == (0, True)
    told = json.loads(unrolled("info", "hf:out", "--json").out)
    assert (told["model_type"], told["cells"], told["width"]) == ("unrolled", ["lstm"], 8)
    assert f"parameters: {told['parameters']}" in unrolled("info", "hf:out").out
    code, out, _ = unrolled("import", "out", "--out", "again")
    assert (code, "run again" in out) == (0, True)
    done = json.loads(unrolled("import", "plain", "--out", "other", "--json").out)
    assert done["parameters"] == told["parameters"]
    texts = [unrolled("generate", run, "--prompt", "the ", "-n", 20, "--seed", 3).out for run in (trained, "again")]
    assert texts[0] == texts[1]


def test_folders_that_are_refused(
    refused: Refused, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "--remote-code is no option of the format arpa" in refused("export", trained, "x.arpa", "--remote-code")
    assert "exists already" in refused("export", trained, trained, "--to", "huggingface")
    assert "exists already" in refused("import", trained, "--out", trained)
    assert "no config of transformers" in refused("import", trained, "--out", "x", code=1)
    assert "write hf:out" in refused("info", "out")
    assert "there is no folder ./none" in refused("info", "hf:./none")
    monkeypatch.setattr("huggingface_hub.snapshot_download", _no_network)
    assert "owner/name could not be fetched (no network)" in refused("import", "owner/name", "--out", "x", code=1)
    assert not Path("x").exists()


def _no_network(*_: object, **__: object) -> str:
    raise OSError("no network.\nmore")


def test_other_tasks_are_no_models_of_transformers(unrolled: Command, refused: Refused, text: Path) -> None:
    Path("counts.toml").write_text('title = "c"\ncorpus.name = "pydoc"\ntokenizer.name = "word"\n[counts]\norder = 2\n')
    assert unrolled("train", "counts.toml", "--corpus", text, "--out", "counted", "--sample", 0).code == 0
    assert "use a run of a neural language model" in refused("export", "counted", "x", "--to", "huggingface")


def test_harness_options_that_are_refused(refused: Refused, trained: Path, tmp_path: Path) -> None:
    assert "leave out --split" in refused("eval", trained, "--harness", "x", "--split", "test")
    assert "--include-path and --prepare are for --harness" in refused("eval", trained, "--prepare", "ptb")
    assert "did you mean 'split'" in refused("eval", trained, "--harness", "x", "--prepare", "splt")
    assert "there is no folder none" in refused("eval", trained, "--harness", "x", "--include-path", "none")
    assert "unknown dtype" in refused("eval", trained, "--harness", "x", "--dtype", "float8")


@pytest.mark.slow
def test_tasks_on_the_command_line(unrolled: Command, refused: Refused, trained: Path, tmp_path: Path) -> None:
    import datasets.config as settings

    from serve.tasks import write_tasks

    folder = write_tasks(tmp_path / "tasks")
    settings.HF_DATASETS_CACHE = tmp_path / "hf"
    given = ["--harness", "tiny_texts, tiny_choices", "--include-path", folder]
    code, out, _ = unrolled("eval", trained, *given, "--out", "record.json")
    assert code == 0
    assert "tiny_texts\t3\tbits_per_byte\t" in out
    assert "tiny_choices\t3\tties\t" in out
    record = json.loads(Path("record.json").read_text())
    assert json.loads(unrolled("eval", trained, *given, "--json").out) == record
    cooler = json.loads(unrolled("eval", trained, *given, "--temperature", 0.5, "--limit", 1, "--json").out)
    assert cooler["protocol"]["options"] == {"temperature": 0.5}
    assert cooler["protocol"]["comparable_key"] != record["protocol"]["comparable_key"]
    assert "unknown task 'tiny_text'" in refused("eval", trained, "--harness", "tiny_text", "--include-path", folder)
