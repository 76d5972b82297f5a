"""Whatever a user does wrong ends with one plain sentence that names the remedy."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from cli.conftest import Command

Refused = Callable[..., str]

CONFIG: list[tuple[str, str]] = [
    ("model.cell.name=lstn", "unknown cell 'lstn'; did you mean 'lstm'?"),
    ("modle.width=3", "unknown config key 'modle'; did you mean 'model'?"),
    ("cell.name=gru", "unknown config key 'cell'; did you mean 'model.cell'?"),
    ("model.widht=3", "unknown config key 'model.widht'; did you mean 'width'?"),
    ("model.cell.biass=one", "unknown config key 'model.cell.biass'; did you mean 'forget_bias'?"),
    ("model.cell=[{name='gru', resett=1}]", "unknown config key 'model.cell.0.resett'"),
    ("model.head={name='softmax', blok=3}", "unknown config key 'model.head.blok'; did you mean 'block'?"),
    ("tokenizer={name='byte', foo=1}", "unknown config key 'tokenizer.foo'; known: name, values."),
    ("tokenizer={min_count=1}", "a tokenizer needs the key 'name', one of: bpe, byte"),
    ("tokenizer={name='word', min_cuont=1}", "unknown config key 'tokenizer.min_cuont'; did you mean 'min_count'?"),
    ("train.optimizer.lrr=1", "unknown config key 'train.optimizer.lrr'; did you mean 'lr'?"),
    ("train.optimizer.name=adan", "unknown optimizer 'adan'; did you mean 'adam'?"),
    ("train.schedule.name=cosin", "config key 'train.schedule.name'"),
    ("train.then=[{stepz=2}]", "unknown config key 'train.then.0.stepz'; did you mean 'steps'?"),
    ("model.width=wide", "config key 'model.width': input should be a valid integer"),
    ("model.width=0", "config key 'model.width': input should be greater than or equal to 1 (got 0)."),
    ("model.cell=3", "config key 'model.cell': give the name of a cell"),
    ("train.optimizer.lr=inf", "config key 'train.optimizer.lr'"),
    ("model.compute.precision=fp8", "config key 'model.compute.precision'"),
    ("model.compute.backend=fusd", "unknown backend 'fusd'; did you mean 'fused'?"),
    ("train.steps=0", "train.steps is 0; a budget must be above zero."),
    ("train.minutes=-2", "train.minutes is -2.0; a budget must be above zero."),
    ("train.then=[{}]", "every phase of train needs a budget"),
    ("train.cpu_minutes=0.0001", "no time is left to train; raise the budget"),
    ("stream.columns=99999999", "columns are more than the text's"),
    ("stream.window=99999999", "less than one window"),
    ("justakey", "--set needs the form key=value"),
]


@pytest.mark.parametrize(("setting", "sentence"), CONFIG)
def test_config(refused: Refused, text: Path, setting: str, sentence: str, tmp_path: Path) -> None:
    assert sentence in refused("train", "--corpus", text, "--set", setting, "--out", "x", "--set", "model.layers=1")
    assert not (tmp_path / "x").exists(), "the name is free for the next attempt"


def test_mogrifier_around_no_step_cell(refused: Refused, text: Path) -> None:
    from unrolled.cells import CELLS, Cell

    class Plain(Cell):
        class Config(CELLS["rnn"].Config):
            name: str = "plain"

    CELLS.add("plain", Plain)  # type: ignore[arg-type]
    try:
        setting = "model.cell={name='mogrifier', cell={name='plain'}}"
        assert "need a StepCell" in refused("train", "--corpus", text, "--set", setting)
    finally:
        CELLS.remove("plain")


def test_two_budgets(refused: Refused, text: Path) -> None:
    settings = ["--set", "train.steps=2", "--set", "train.epochs=2"]
    assert "several budgets (steps, epochs); keep one" in refused("train", "--corpus", text, *settings)
    assert not Path("runs").exists()


def test_recipe(refused: Refused) -> None:
    assert "unknown recipe 'defautl'; did you mean 'default'?" in refused("train", "defautl")
    assert "there is no recipe file none.toml" in refused("train", "none.toml")
    Path("bad.toml").write_text("title = ")
    assert "is not valid TOML" in refused("train", "bad.toml")


def test_device(refused: Refused, text: Path, trained: Path) -> None:
    assert "device 'tpu9' is not available" in refused("train", "--corpus", text, "--device", "tpu9")
    assert "device 'tpu9' is not available" in refused("eval", trained, "--device", "tpu9")


def test_missing_corpus(refused: Refused) -> None:
    assert "corpus text8 is not on this machine" in refused("train", "--set", "corpus.name=text8")
    assert "did you mean 'text8'?" in refused("train", "--corpus", "text9")
    assert "does not exist" in refused("train", "--corpus", "no/where.txt")
    assert not Path("runs/default-1").exists(), "a run that never began leaves no folder"


def test_bad_texts(refused: Refused) -> None:
    empty, short, odd = Path("empty.txt"), Path("short.txt"), Path("odd.txt")
    empty.write_bytes(b"")
    short.write_bytes(b"a few\nwords\nare not\nenough\n")
    odd.write_bytes(b"fine line\n" * 50 + b"\xff\xfe\n" + b"fine line\n" * 50)
    assert "empty.txt is empty" in refused("train", "--corpus", empty)
    sentence = refused("train", "--corpus", short)
    assert "columns" in sentence or "too short to be cut" in sentence
    for tokenizer in ("char", "word"):
        sentence = refused("train", "--corpus", odd, "--set", f"tokenizer.name={tokenizer}")
        assert "is not UTF-8 at byte" in sentence


def test_out(refused: Refused, trained: Path, text: Path) -> None:
    assert "already holds a run" in refused("train", "--corpus", text, "--out", trained)
    Path("file").write_text("in the way")
    assert "is a file, not a folder" in refused("train", "--corpus", text, "--out", "file")
    assert "lies below a file" in refused("train", "--corpus", text, "--out", "file/run")


def test_unwritable(refused: Refused, text: Path, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.access", lambda path, mode: "locked" not in str(path))
    assert "permission denied; choose another folder" in refused("train", "--corpus", text, "--out", "locked")
    assert not Path("locked").exists()


def test_resume(refused: Refused, trained: Path) -> None:
    assert "is finished" in refused("train", "--resume", trained)
    assert "is not a run" in refused("train", "--resume", "nothing")
    assert "leave out the recipe" in refused("train", "--resume", trained, "--set", "model.width=3")
    assert "leave out the recipe" in refused("train", "--resume", trained, "--profile", 2)
    assert "either --dry-run or --profile" in refused("train", "--dry-run", "--profile", 2)


def test_resume_on_another_text(refused: Refused, begun: Path) -> None:
    text = Path(json.loads((begun / "config.json").read_text())["corpus"]["path"]) / "train.txt"
    before = text.read_bytes()
    try:
        text.write_bytes(before[: len(before) // 2])
        assert "is not the one that" in refused("train", "--resume", begun, code=1)
    finally:
        text.write_bytes(before)


def test_no_run(refused: Refused, trained: Path) -> None:
    assert "is not a run" in refused("eval", "nothing")
    assert "is not a run" in refused("generate", "nothing")
    (trained / "model.safetensors").unlink()
    assert "has no checkpoint yet" in refused("eval", trained, code=1)
    assert "has no checkpoint yet" in refused("generate", trained, code=1)


def test_eval_options(refused: Refused, trained: Path) -> None:
    assert "did you mean 'float64'?" in refused("eval", trained, "--dtype", "float46")
    assert "unknown backend 'tritn'" in refused("eval", trained, "--backend", "tritn")
    assert "config key 'precision': input should be 'float32' or 'bf16'" in refused(
        "eval", trained, "--precision", "fp8"
    )
    assert "too few for 99999999 column(s)" in refused("eval", trained, "--columns", 99999999)
    assert "config key 'first'" in refused("eval", trained, "--first", "skipped")
    assert "has no split 'tset'" in refused("eval", trained, "--split", "tset")


def test_missing_split(refused: Refused, trained: Path, text: Path) -> None:
    config = json.loads((trained / "config.json").read_text())
    config["corpus"] |= {"path": None, "train": str(text / "train.txt")}
    (trained / "config.json").write_text(json.dumps(config))
    assert "has no split 'test'; it has: train." in refused("eval", trained)


def test_prompt(refused: Refused, trained: Path) -> None:
    assert "'Ω'" in refused("generate", trained, "--prompt", "theΩ")
    assert "either --prompt or --prompt-file" in refused("generate", trained, "-p", "a", "--prompt-file", "b")
    assert "nothing does not exist" in refused("generate", trained, "--prompt-file", "nothing")
    Path("latin").write_bytes(b"caf\xe9")
    assert "is not UTF-8 at byte 3, in line 1" in refused("generate", trained, "--prompt-file", "latin")


def _state(run: Path) -> Path:
    return next((run / "train_state").iterdir())


def _config(run: Path, **changes: object) -> None:
    path = run / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


BREAKAGE: list[tuple[str, Callable[[Path], object], str, int]] = [
    (
        "truncated weights",
        lambda r: (r / "model.safetensors").write_bytes(b"\x10" * 40),
        "not a readable safetensors",
        1,
    ),
    ("foreign weights", lambda r: save_file({"a": np.ones(3, np.float32)}, r / "model.safetensors"), "does not fit", 1),
    ("random weights", lambda r: (r / "model.safetensors").write_bytes(bytes(range(256)) * 9), "damaged", 1),
    ("empty weights", lambda r: (r / "model.safetensors").write_bytes(b""), "damaged", 1),
    ("foreign config", lambda r: (r / "config.json").write_text('{"model_type": "gpt2"}'), "of another program", 1),
    ("random config", lambda r: (r / "config.json").write_bytes(b"\xff\x00\x01"), "is not valid JSON", 1),
    ("list config", lambda r: (r / "config.json").write_text("[1]"), "of another program", 1),
    ("future config", lambda r: _config(r, version=99), "written by a newer release (format 99", 1),
    ("future cell", lambda r: _config(r, model={"cell": {"name": "lstm9"}}), "unknown cell 'lstm9'", 2),
    ("no tokenizer", lambda r: (r / "tokenizer.json").unlink(), "tokenizer.json does not exist", 1),
    (
        "odd tokenizer",
        lambda r: (r / "tokenizer.json").write_text('{"kind": "tokenizer", "config": 3}'),
        "is not a tok",
        1,
    ),
    ("random tokenizer", lambda r: (r / "tokenizer.json").write_bytes(b"\x80{"), "is not valid JSON", 1),
]


@pytest.mark.parametrize(("name", "damage", "sentence", "code"), BREAKAGE, ids=[row[0] for row in BREAKAGE])
def test_damaged_run(
    refused: Refused, begun: Path, name: str, damage: Callable[[Path], object], sentence: str, code: int
) -> None:
    damage(begun)
    assert sentence in refused("eval", begun, code=code)
    assert sentence in refused("generate", begun, code=code)
    if "weights" not in name:
        assert sentence in refused("train", "--resume", begun, code=code)


def test_nan_weights(refused: Refused, trained: Path) -> None:
    from unrolled.core.tree import load_tensors, save_tensors

    path = trained / "model.safetensors"
    save_tensors(path, {name: torch.full_like(value, torch.nan) for name, value in load_tensors(path).items()})
    assert "not a finite number" in refused("eval", trained, code=1)
    assert "not a finite number" in refused("generate", trained, "--json", code=1)


STATE: list[tuple[str, Callable[[Path], object]]] = [
    ("truncated", lambda s: (s / "tensors.safetensors").write_bytes((s / "tensors.safetensors").read_bytes()[:500])),
    ("foreign", lambda s: save_file({"model.a": np.ones(3, np.float32)}, s / "tensors.safetensors")),
    ("missing", lambda s: (s / "tensors.safetensors").unlink()),
    ("progress-cut", lambda s: (s / "progress.json").write_text('{"phase": 0, "step')),
    ("progress-odd", lambda s: (s / "progress.json").write_text('{"phase": "zero"}')),
    ("progress-missing", lambda s: (s / "progress.json").unlink()),
]


@pytest.mark.parametrize(("name", "damage"), STATE, ids=[row[0] for row in STATE])
def test_damaged_state(refused: Refused, begun: Path, name: str, damage: Callable[[Path], object]) -> None:
    damage(_state(begun))
    sentence = refused("train", "--resume", begun, code=1)
    assert "train_state" in sentence


def test_foreign_optimizer(refused: Refused, begun: Path) -> None:
    from unrolled.core.tree import load_tensors, save_tensors

    path = _state(begun) / "tensors.safetensors"
    save_tensors(path, {**load_tensors(path), "optimizer.99.exp_avg": torch.ones(2)})
    assert "damaged or of another model" in refused("train", "--resume", begun, code=1)


def test_eval_at_test_time(refused: Refused, trained: Path) -> None:
    assert "did you mean 'krause'?" in refused("eval", trained, "--dynamic", "kruase")
    assert "x is not a folder" in refused("ensemble", "x")
    assert "unknown config key 'dynamic.lrr'" in refused("eval", trained, "--dynamic", "sgd", "--set", "dynamic.lrr=1")
    assert "trained without dropout" in refused("eval", trained, "--samples", 3)
    assert "no cache to search" in refused("eval", trained, "--search", "cache")
    assert "unknown weights" in refused("eval", trained, "--weights", "best")


def test_export(refused: Refused, trained: Path) -> None:
    assert "only count models can be exported" in refused("export", trained, "x.arpa")
    assert "has the ending of no format" in refused("export", trained, "x.bin")
    assert "unknown format 'arp'; did you mean 'arpa'?" in refused("export", trained, "x", "--to", "arp")


@pytest.mark.parametrize(
    "arguments",
    [["eval", "N"], ["pairs", "R", "N"], ["eval", "R", "--corpus", "N/"], ["ensemble", "N"],
     ["score", "R", "N"], ["train", "--corpus", "N/"], ["train", "N.toml"], ["generate", "R", "--prompt-file", "N"],
     ["decompress", "R", "N.unr"], ["compress", "R", "N"], ["inspect", "trace", "R", "N", "--out", "x.npz"],
     ["score", "R", "t.txt", "--out", "N"], ["train", "--out", "N", "--corpus", "t.txt"]],
    ids=range(13),
)  # fmt: skip
def test_names_that_are_too_long(unrolled: Command, trained: Path, arguments: list[str]) -> None:
    Path("t.txt").write_text("the cat\n" * 60)
    given = [argument.replace("N", "n" * 3000) if argument != "R" else str(trained) for argument in arguments]
    outcome = unrolled(*given)
    assert outcome.code in (1, 2)
    assert outcome.err.startswith("unrolled: ")
    assert outcome.err.count("\n") == 1
