"""``unrolled store``: a text's hidden states in a folder, looked up by the other verbs."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import unrolled as ur
from cli.conftest import Command
from unrolled.runs import Run

ON = ["--predict", "neighbours=stores/a", "--set", "neighbours.k=8", "--set", "neighbours.tau=0.1"]


@pytest.fixture
def store(unrolled: Command, trained: Path) -> Path:
    code, out, err = unrolled("store", trained, "--numbers", "float32", "--out", "stores/a", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["split"], told["dtype"], told["columns"]) == ("train", "float32", 1)
    assert told["bytes"] == sum(file.stat().st_size for file in Path("stores/a").iterdir())
    return Path("stores/a")


def test_it_is_what_the_run_makes_of_its_training_text(unrolled: Command, trained: Path, store: Path) -> None:
    _, splits = Run(trained).splits()
    assert np.array_equal(np.load(store / "ids.npy"), splits["train"].ids(0, len(splits["train"])))
    from_store = json.loads(unrolled("eval", trained, *ON, "--limit", 50, "--json").out)
    own = ur.evaluate(trained, limit=50, neighbours={"k": 8, "tau": 0.1})
    assert from_store["nats"] == pytest.approx(own.nats, rel=1e-6)
    assert from_store["nats"] != ur.evaluate(trained, limit=50).nats


def test_half_the_numbers_and_columns(unrolled: Command, trained: Path, store: Path) -> None:
    assert unrolled("store", trained, "--columns", 4, "--limit", 402, "--out", "b").code == 0
    keys, halves = np.load(store / "keys.npy"), np.load("b/keys.npy")
    assert (len(halves), halves.dtype) == (400, np.float16)
    assert np.array_equal(np.load("b/ids.npy"), np.load(store / "ids.npy")[:400])
    assert np.abs(halves[:100] - keys[:100]).max() < 1e-3
    assert np.abs(halves[100:110] - keys[100:110]).max() > 1e-3, "the second column begins anew"


def test_pointers_are_counted_and_searched(unrolled: Command, trained: Path, store: Path) -> None:
    code, out, err = unrolled("eval", trained, *ON, "--set", "neighbours.pointers=true", "--limit", 60, "--json")
    assert code == 0, err
    told = json.loads(out)["provenance"]["told"]["neighbours"]
    assert told["tokens"] == 60
    assert told["saved"] == pytest.approx(1 - told["searches"] / 60)
    assert 0 < told["searches"] < 60
    search = ["--search", "neighbours", "--search-tokens", 20]
    found = json.loads(unrolled("eval", trained, *ON, *search, "--limit", 12, "--json").out)
    tried = found["provenance"]["search"]["neighbours"]["tried"]
    assert {key for one in tried for key in one} == {"neighbours.tau", "neighbours.weight", "nats_per_token"}
    best = min(tried, key=lambda one: one["nats_per_token"])
    assert found["protocol"]["options"]["neighbours"]["tau"] == best["neighbours.tau"]
    assert "searches" in unrolled("eval", trained, *ON, "--set", "neighbours.pointers=true", "--limit", 20).out


def test_clusters(unrolled: Command, refused: Callable[..., str], trained: Path, store: Path) -> None:
    more = ["--set", "neighbours.pointers=true", "--set", "neighbours.clusters=true"]
    assert "--clusters" in refused("eval", trained, *ON, *more)
    assert unrolled("store", trained, "--clusters", 50, "--out", "c").code == 0
    told = [
        json.loads(unrolled("eval", trained, "--predict", "neighbours=c", *more, "--limit", 40, "--json").out)["nats"],
        json.loads(unrolled("eval", trained, "--predict", "neighbours=c", *more[:2], "--limit", 40, "--json").out)[
            "nats"
        ],
    ]
    assert told[0] != told[1]


def test_what_is_refused(unrolled: Command, refused: Callable[..., str], trained: Path, store: Path) -> None:
    assert "exists" in refused("store", trained, "--out", store)
    assert "float16 or float32" in refused("store", trained, "--out", "d", "--numbers", "int8")
    assert "each token finds itself" in refused("eval", trained, *ON, "--split", "train")
    assert "no store" in refused("eval", trained, "--predict", "neighbours=nowhere")
    other = Path(shutil.copytree(trained, "other"))
    shutil.copy(next((other / "train_state").iterdir()) / "tensors.safetensors", other / "tensors.safetensors")
    assert "another model" in refused("eval", other, *ON, "--weights", "raw")
    assert not Path("d").exists()


@pytest.mark.parametrize("name", ["keys.npy", "ids.npy", "begins.npy", "store.json"])
def test_damage_is_told(refused: Callable[..., str], trained: Path, store: Path, name: str) -> None:
    whole = (store / name).read_bytes()
    for data in (b"", whole[: len(whole) // 2], b"x" + whole[1:], whole[:-4] + b"\xff\xff\xff\x7f", None):
        (store / name).unlink()
        if data is not None:
            (store / name).write_bytes(data)
        if name == "begins.npy" and data is not None and data[-4:] == b"\xff\xff\xff\x7f":
            assert "damaged" in refused("eval", trained, *ON, "--limit", 5, code=1)
            continue
        said = refused("eval", trained, *ON, "--limit", 5, code=2 if name == "store.json" and data is None else 1)
        assert "store" in said


def test_a_count_model_has_none(refused: Callable[..., str], text: Path) -> None:
    values = {"corpus": {"path": str(text)}, "tokenizer": {"name": "word"}, "counts": {"order": 2}}
    ur.train(values, "counted", "cpu")
    assert "no hidden states" in refused("store", "counted", "--out", "d")
