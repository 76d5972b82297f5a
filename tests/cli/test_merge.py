"""``unrolled merge``: runs become a run."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

import unrolled as ur
from cli.conftest import Command
from train.runs import experiment
from unrolled.core.tree import load_tensors

Refused = Callable[..., str]


def continued(text: Path, folder: Path, **parts: object) -> Path:
    return ur.train(experiment(text, train={"steps": 12, "validations": 1}, **parts), folder, device="cpu")


def test_a_merged_run_is_opened_measured_and_knows_its_parts(unrolled: Command, text: Path, tmp_path: Path):
    base = continued(text, tmp_path / "base")
    begun = {"file": str(base / "model.safetensors"), "tokenizer": True}
    ends = [
        ur.train(
            experiment(text, train={"steps": 12, "validations": 1}).model_copy(
                update={"seed": seed, "weights": ur.ExperimentConfig.parse({"weights": begun}).weights}
            ),
            tmp_path / f"end{seed}",
            device="cpu",
        )
        for seed in (1, 2)
    ]
    given = [part for end in ends for part in ("--add", f"0.5={end}")]
    done = unrolled("merge", base, *given, "--out", tmp_path / "middle", "--json")
    assert done.code == 0, done.err
    assert [one["factor"] for one in json.loads(done.out)["merged"]] == [0.5, 0.5]
    one, two, middle = (load_tensors(run / "model.safetensors") for run in (*ends, tmp_path / "middle"))
    for name, value in middle.items():
        torch.testing.assert_close(value, (one[name] + two[name]) / 2, rtol=1e-6, atol=1e-8)
    record = json.loads((tmp_path / "middle" / "record.json").read_text())
    assert [part["run"] for part in record["merged"]] == [str(end) for end in ends]
    assert "valid" not in record, "figures of the base are not those of the merged run"
    assert unrolled("eval", tmp_path / "middle", "--split", "valid").code == 0
    assert unrolled("generate", tmp_path / "middle", "-n", "5").code == 0

    plain = unrolled("merge", base, "--add", f"0={ends[0]}", "--out", tmp_path / "same")
    assert plain.code == 0, plain.err
    assert (tmp_path / "same/model.safetensors").read_bytes() == (base / "model.safetensors").read_bytes()

    soup = unrolled(
        "merge", base, "--soup", "--limit", "300", "--add", ends[0], "--add", ends[1], "--out", tmp_path / "soup",
        "--json",
    )  # fmt: skip
    assert soup.code == 0, soup.err
    told = json.loads(soup.out)
    assert told["soup"]["nats_per_token"] == sorted(told["soup"]["nats_per_token"], reverse=True)
    found = ur.evaluate(tmp_path / "soup", split="valid", limit=300, device="cpu")
    assert found.nats_per_token == pytest.approx(told["soup"]["nats_per_token"][-1], rel=1e-6)


def test_what_cannot_be_merged_is_refused(refused: Refused, text: Path, tmp_path: Path):
    base = continued(text, tmp_path / "base")
    wide = continued(text, tmp_path / "wide", model={"width": 9})
    assert "model.width" in refused("merge", base, "--add", f"1={wide}", "--out", tmp_path / "x")
    assert "a number and a run" in refused("merge", base, "--add", base, "--out", tmp_path / "x")
    assert "is there already" in refused("merge", base, "--add", f"1={base}", "--out", base)
    assert "--soup" in refused("merge", base, "--add", f"1={base}", "--limit", 9, "--out", tmp_path / "x")
    (tmp_path / "other").mkdir()
    for split in ("train", "valid", "test"):
        (tmp_path / "other" / f"{split}.txt").write_text("other signs\n" * 60)
    signs = continued(tmp_path / "other", tmp_path / "signs")
    assert "other tokenizers" in refused("merge", base, "--add", f"1={signs}", "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()
    shutil.rmtree(signs)
    assert "is not a run" in refused("merge", base, "--add", f"1={signs}", "--out", tmp_path / "x")


def test_sequences_become_tokens(unrolled: Command, refused: Refused, text: Path, tmp_path: Path):
    base = ur.train(
        experiment(text, train={"steps": 4, "validations": 1}, tokenizer={"name": "word", "min_count": 1}),
        tmp_path / "base", device="cpu",
    )  # fmt: skip
    done = unrolled("merge", base, "--vocabulary", "3", "--out", tmp_path / "longer", "--json")
    assert done.code == 0, done.err
    sequences = json.loads(done.out)["sequences"]
    assert len(sequences) == 3
    assert all(" " in one for one in sequences)
    own, new = (ur.Run(run, "cpu") for run in (base, tmp_path / "longer"))
    size = own.tokenizer.vocab_size
    rows, more = (dict(run.model.named_parameters())["embedding.weight"] for run in (own, new))
    torch.testing.assert_close(more[:size], rows, rtol=0, atol=0)
    parts = [own.tokenizer.encode(one) for one in sequences]
    torch.testing.assert_close(more[size:], torch.stack([rows[ids].double().mean(0).float() for ids in parts]))
    before, after = (ur.evaluate(run, split="valid", device="cpu") for run in (base, tmp_path / "longer"))
    assert after.tokens < before.tokens
    assert (after.words, after.bytes) == (before.words, before.bytes)
    assert unrolled("generate", tmp_path / "longer", "-n", "5").code == 0
    begun = {"file": str(tmp_path / "longer/model.safetensors"), "tokenizer": True}
    settings = experiment(text, train={"steps": 4, "validations": 1}).model_copy(
        update={"weights": ur.ExperimentConfig.parse({"weights": begun}).weights}
    )
    assert ur.Run(ur.train(settings, tmp_path / "on", device="cpu"), "cpu").tokenizer.kind == "multiword"

    assert "ask for fewer" in refused("merge", base, "--vocabulary", 100_000, "--out", tmp_path / "x")
    assert "each with --add" in refused("merge", base, "--out", tmp_path / "x")
    assert "each with --add" in refused("merge", base, "--vocabulary", 3, "--add", f"1={base}", "--out", tmp_path / "x")
    assert "--soup" in refused("merge", base, "--vocabulary", 3, "--soup", "--out", tmp_path / "x")
    assert "above one of" in refused("merge", tmp_path / "longer", "--vocabulary", 3, "--out", tmp_path / "x")
    assert not (tmp_path / "x").exists()
