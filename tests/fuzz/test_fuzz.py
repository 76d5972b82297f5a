"""Some damaged inputs of every kind in each run of the tests, the same ones; thousands in the slow ones.

More: ``cd tests && ../.venv/bin/python -m fuzz.run --count 12000 --seed 2``.
"""

import json
import os
import random
from collections.abc import Iterator

import pytest

from fuzz import command, run
from fuzz.kinds import KINDS
from fuzz.mutate import damage_bytes, damage_json, damage_tensors
from fuzz.seeds import Seeds

FEW, MANY = 45, 1400
# of kinds of which one takes long
FEWER = {"texts": 9, "neural runs": 25}


@pytest.fixture(scope="module")
def seeds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seeds]:
    before = dict(os.environ)
    with run.seeded(tmp_path_factory.mktemp("fuzz")) as made:
        yield made
    os.environ.clear()
    os.environ.update(before)


@pytest.mark.parametrize("kind", KINDS)
def test_a_few(kind: str, seeds: Seeds) -> None:
    tally = run.fuzz(seeds, kind, range(FEWER.get(kind, FEW)), seed=1)
    assert not tally.faults, "\n\n".join(tally.faults)
    assert tally.counts["accepted"], "damage that always ends at the first check tries nothing behind it"


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_many(kind: str, seeds: Seeds) -> None:
    tally = run.fuzz(seeds, kind, range(FEWER.get(kind, FEW), MANY), seed=1)
    assert not tally.faults, "\n\n".join(tally.faults)


def test_whole_inputs_are_accepted(seeds: Seeds) -> None:
    """What is damaged was whole: without the damage every kind ends well."""
    folder, device = seeds.home / "whole", ["--device", "cpu"]
    folder.mkdir()
    settings = {"corpus.path": str(seeds.text), "tokenizer.name": "word", "counts.order": 3, "weights.layout": "arpa"}
    lines = [f"{key} = {json.dumps(value)}\n" for key, value in settings.items()]
    (folder / "r.toml").write_text("".join([*lines, f"weights.file = {json.dumps(str(seeds.arpa))}\n"]))
    run_of = dict(seeds.packed)
    for arguments in (
        ["train", seeds.recipe, "--out", folder / "a", "--sample", 0, *device],
        ["train", folder / "r.toml", "--out", folder / "b", "--sample", 0, *device],
        ["eval", seeds.chars, "--split", "test", "--json", *device],
        ["generate", seeds.words, "--tokens", 5, "--json", *device],
        *(["decompress", made, packed, "--out", folder / f"{made.name}.txt"] for made, packed in run_of.items()),
        ["difference", seeds.scores, seeds.scores, "--json"],
        ["pairs", seeds.chars, seeds.pairs, "--json", *device],
        *(["import", theirs, "--out", folder / f"of_{theirs.name}", "--json"] for theirs in seeds.folders),
        ["pairs", seeds.words, seeds.home / "pairs.zip", "--json", *device],
        ["score", seeds.words, seeds.table, "--column", "word", "--break", "sentence", *device],
    ):
        outcome = command.run(arguments)
        assert outcome.code == 0, (arguments, outcome.err, outcome.fault)
    assert all((folder / f"{made.name}.txt").read_bytes() == seeds.plain.read_bytes() for made in run_of)


@pytest.mark.parametrize("way", ["traceback", "hang", "growth", "sentence", "wrong"])
def test_a_fault_is_noticed(way: str, seeds: Seeds, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> None:
        if way == "traceback":
            raise RecursionError("deep")
        if way == "hang":
            while True:
                pass
        if way == "growth":
            _ = b"x" * 600_000_000
        print("unrolled: one.\nunrolled: two." if way == "sentence" else "")  # noqa: T201
        raise SystemExit(1 if way == "sentence" else 0)

    monkeypatch.setattr("fuzz.command.main", broken)
    tally = run.fuzz(seeds, "count runs", range(3), seed=3, limit=0.3 if way == "hang" else 30)
    names = {"sentence": "no sentence"}
    assert set(tally.counts) == {names.get(way, way)}
    assert len(tally.faults) == 3


def test_damage_is_drawn_again(seeds: Seeds) -> None:
    data, value = seeds.plain.read_bytes(), json.loads((seeds.chars / "config.json").read_text())
    tensors = (seeds.chars / "model.safetensors").read_bytes()
    for how, whole in ((damage_bytes, data), (damage_json, value), (damage_tensors, tensors)):
        first, second = ([how(whole, random.Random(n)) for n in range(50)] for _ in range(2))  # type: ignore[operator]
        assert first == second
        assert len(set(first)) > 40
