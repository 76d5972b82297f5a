"""One function a kind of input: it draws a damaged one and says what to run on it."""

import json
import random
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from fuzz.command import Outcome
from fuzz.frames import frames
from fuzz.mutate import damage_bytes, damage_json, damage_tensors
from fuzz.seeds import Seeds
from fuzz.settings import setting
from fuzz.trees import trees
from unrolled.core.files import sha256_file

__all__ = ["KINDS", "Case"]


def _nothing(_: Outcome) -> str:
    return ""


class Case(NamedTuple):
    """arguments: of the command. check: what is wrong with a result of it, empty for nothing."""

    arguments: list[object]
    check: Callable[[Outcome], str] = _nothing


def _settings(draw: random.Random, seeds: Seeds, folder: Path) -> Case:
    """Recipes and settings: read, or trained for a few steps."""
    data, chosen = seeds.recipe.read_bytes(), []
    if draw.random() < 0.6:
        data = damage_bytes(data, draw)
    else:
        for _ in range(draw.choice((1, 1, 2))):
            chosen += ["--set", setting(draw)]
    (folder / "r.toml").write_bytes(data)
    arguments: list[object] = ["train", folder / "r.toml", *chosen, "--device", "cpu"]
    if draw.random() < 0.6:
        return Case([*arguments, "--dry-run", "--json"])
    # the damage may ask for years of training: these settings come last
    short = ["train.steps=2", "train.then=[]", "train.validations=1", "train.accumulate=1", "train.threads=1"]
    for last in short:
        arguments += ["--set", last]
    return Case([*arguments, "--out", folder / "run", "--sample", 0])


def _neural(draw: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A neural run with a damaged file: measured, generated from, scored, or resumed."""
    resumed = draw.random() < 0.35
    run = Path(shutil.copytree(seeds.begun if resumed else draw.choice((seeds.chars, seeds.bytes)), folder / "run"))
    state = next((run / "train_state").iterdir())
    files = ["config.json", "tokenizer.json", "model.safetensors"]
    if resumed:
        files += [f"train_state/{state.name}/progress.json", f"train_state/{state.name}/tensors.safetensors"] * 2
        files.append("metrics.jsonl")
    else:
        files.append("record.json")
    _damage_file(run / draw.choice(files), draw)
    if resumed:
        return Case(["train", "--resume", run, "--device", "cpu"])
    return Case(draw.choice(_uses(run)), _finite)


def _made(draw: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A run of a synthetic problem with a damaged file: measured, also at points, or generated from."""
    run = Path(shutil.copytree(seeds.made, folder / "run"))
    _damage_file(run / draw.choice(("config.json", "config.json", "tokenizer.json", "record.json")), draw)
    points: list[object] = ["eval", run, "--points", "length=2,4", "--rows", 3, "--json", "--device", "cpu"]
    return Case(draw.choice([*_uses(run), points]), _finite)


def _counted(draw: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A count model with a damaged file; its checksum may be made to fit again."""
    run = Path(shutil.copytree(draw.choice((seeds.words, seeds.counts)), folder / "run"))
    name = draw.choice(
        ("ngrams.json", "ngrams.json", "ngrams.safetensors", "config.json", "tokenizer.json", "record.json")
    )
    _damage_file(run / name, draw)
    if name == "ngrams.safetensors" and draw.random() < 0.8:
        config = json.loads((run / "ngrams.json").read_text())
        config["tables_sha256"] = sha256_file(run / name)
        (run / "ngrams.json").write_text(json.dumps(config))
    return Case(draw.choice(_uses(run)), _finite)


def _uses(run: Path) -> list[list[object]]:
    device = ["--device", "cpu"]
    return [
        ["eval", run, "--split", "test", "--limit", 60, "--json", *device],
        ["generate", run, "--tokens", 5, "--json", *device],
        ["eval", run, "--split", "test", "--limit", 60, "--json", *device],
    ]


def _finite(outcome: Outcome) -> str:
    """Every number of a result is finite: JSON has no others, and Python writes them only when asked."""
    try:
        json.loads(outcome.out, parse_constant=lambda text: 1 / 0)
    except (ValueError, ZeroDivisionError):
        return "no JSON, or a number that is not finite"
    return ""


def _damage_file(path: Path, draw: random.Random) -> None:
    data = path.read_bytes()
    if path.suffix == ".safetensors":
        path.write_bytes(damage_tensors(data, draw))
    elif path.suffix == ".json" and draw.random() < 0.8:
        path.write_bytes(damage_json(json.loads(data), draw).encode("utf-8", "surrogatepass"))
    else:
        path.write_bytes(damage_bytes(data, draw))


def _arpa(draw: random.Random, seeds: Seeds, folder: Path) -> Case:
    """An ARPA file, from which a count model is made."""
    (folder / "a.arpa").write_bytes(damage_bytes(seeds.arpa.read_bytes(), draw))
    settings = {"corpus.path": seeds.text, "tokenizer.name": "word", "counts.order": 3, "weights.layout": "arpa"}
    (folder / "r.toml").write_text(
        "".join(f"{key} = {json.dumps(value, default=str)}\n" for key, value in settings.items())
    )
    chosen = ["--set", f"weights.file={folder / 'a.arpa'}"]
    return Case(["train", folder / "r.toml", *chosen, "--out", folder / "run", "--sample", 0])


def _container(draw: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A compressed file, with its checksums made to fit again or not."""
    run = draw.choice(list(seeds.packed))
    data = seeds.packed[run].read_bytes()
    length = struct.unpack_from("<I", data, 10)[0]
    header, body = json.loads(zlib.decompress(data[18 : 18 + length])), data[18 + length :]
    way = draw.random()
    if way < 0.25:
        data = damage_bytes(data, draw)
    else:
        if way < 0.6:
            body = damage_bytes(body, draw)
            header["crc32"] = zlib.crc32(body)
            header["words"] = max(0, len(body) - 8) // 4 - header["checks"]
        text = json.dumps(header) if way < 0.5 else damage_json(header, draw)
        packed = zlib.compress(text.encode("utf-8", "surrogatepass"))
        if draw.random() < 0.1:
            packed = damage_bytes(packed, draw)
        data = data[:8] + struct.pack("<HII", 1, len(packed), zlib.crc32(packed)) + packed + body
    (folder / "a.unr").write_bytes(data)

    def same(_: Outcome) -> str:
        return "" if (folder / "back").read_bytes() == seeds.plain.read_bytes() else "wrong text"

    return Case(["decompress", run, folder / "a.unr", "--out", folder / "back", "--json", "--device", "cpu"], same)


def _per_token(draw: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A per-token file, compared or mixed."""
    from fuzz.sealing import sealed

    data = damage_bytes(seeds.scores.read_bytes(), draw)
    if draw.random() < 0.5:
        data = sealed(data)
    if draw.random() < 0.5:
        (folder / "a.tsv").write_bytes(data)
        return Case(["difference", seeds.scores, folder / "a.tsv", "--json"])
    (folder / "e" / "test").mkdir(parents=True)
    (folder / "e" / "valid").mkdir()
    shutil.copy(seeds.scores, folder / "e" / "valid" / "a.tsv")
    (folder / "e" / "test" / "a.tsv").write_bytes(data)
    return Case(["ensemble", folder / "e", "--json"])


def _pairs(draw: random.Random, seeds: Seeds, folder: Path) -> Case:
    """Minimal pairs, in a file, a folder or an archive."""
    run = draw.choice((seeds.chars, seeds.words))
    if draw.random() < 0.3:
        (folder / "p.zip").write_bytes(damage_bytes((seeds.home / "pairs.zip").read_bytes(), draw))
        return Case(["pairs", run, folder / "p.zip", "--json", "--device", "cpu"])
    data = (seeds.pairs / "a.jsonl").read_bytes()
    if draw.random() < 0.5:
        lines = data.decode().splitlines()
        lines[draw.randrange(len(lines))] = damage_json(json.loads(lines[0]), draw)
        data = "\n".join(lines).encode("utf-8", "surrogatepass")
    else:
        data = damage_bytes(data, draw)
    (folder / "p.jsonl").write_bytes(data)
    return Case(["pairs", run, draw.choice((folder, folder / "p.jsonl")), "--json", "--device", "cpu"])


def _table(draw: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A table of words, scored word by word."""
    run = draw.choice((seeds.chars, seeds.bytes, seeds.words))
    (folder / "t.tsv").write_bytes(damage_bytes(seeds.table.read_bytes(), draw))
    more = draw.choice(([], ["--break", "sentence"], ["--keep", "id"], ["--unit", "token"], ["--format", "jsonl"]))
    return Case(["score", run, folder / "t.tsv", "--column", "word", *more, "--device", "cpu"])


def _study(draw: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A search with a damaged file, read; or a damaged space, whose settings are looked at before anything is tried."""
    study = Path(shutil.copytree(seeds.study, folder / "study"))
    if draw.random() < 0.3:
        (folder / "space.toml").write_bytes(damage_bytes((study / "space.toml").read_bytes(), draw))
        # the damage may ask for years of training: a study of it is begun in a folder that is none
        return Case(["tune", "run", folder / "space.toml", "--out", folder / "space.toml" / "out", "--trials", 1])
    names = ["space.toml", "space.lock.json", *(f"trials/{path.name}" for path in (study / "trials").iterdir())]
    names += [f"results/{path.name}" for path in (study / "results").iterdir()] * 2
    _damage_file(study / draw.choice(sorted(names)), draw)
    verb = draw.choice((["status", study, "--json"], ["report", study, "--json"], ["best", study], ["status", study]))
    return Case(["tune", *verb])


def _folder(draw: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A folder of transformers with a damaged file, imported or told of."""
    theirs = Path(shutil.copytree(draw.choice(seeds.folders), folder / "theirs"))
    _damage_file(theirs / draw.choice(sorted(path.name for path in theirs.iterdir())), draw)
    if draw.random() < 0.2:
        return Case(["info", f"hf:{theirs}", "--json"])
    return Case(["import", theirs, "--out", folder / "run", "--json"])


def _store(draw: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A store with a damaged file, looked up in."""
    store = Path(shutil.copytree(seeds.store, folder / "store"))
    _damage_file(
        store / draw.choice(("store.json", "store.json", "keys.npy", "ids.npy", "begins.npy", "clusters.npy")), draw
    )
    on = ["--predict", f"neighbours={store}", "--set", "neighbours.pointers=true", "--set", "neighbours.clusters=true"]
    return Case(["eval", seeds.chars, *on, "--limit", 20, "--json", "--device", "cpu"], _finite)


def _corpus(draw: random.Random, seeds: Seeds, folder: Path) -> Case:
    """A text, trained on, measured, scored or compressed."""
    data = (seeds.text / "test.txt").read_bytes()
    way = draw.random()
    if way < 0.1:
        data = data.decode().encode(draw.choice(("utf-16", "utf-16-le", "utf-32", "utf-8-sig", "cp037")))
    elif way < 0.2:
        data = data.replace(b"\n", draw.choice((b"\r\n", b"\r", b"\n\n\n", b"\0", b" ", b"", b"\xe2\x80\xa8")))
    elif way < 0.25:
        data = draw.choice((b"", b"\n", b" ", b"\0", b"\xff", b"a", b"a" * 60_000, b"a " * 20_000, b"\n" * 20_000))
    else:
        data = damage_bytes(data, draw)
    file = folder / draw.choice(("t.txt", "t.txt", "t", "t.gz", "t.xz", "t.bz2"))
    file.write_bytes(data)
    run = draw.choice((seeds.chars, seeds.bytes, seeds.words, seeds.counts))
    kind = draw.choice(("byte", "char", "word"))
    tiny = ["--set", "stream.columns=1", "--set", "stream.window=4"]
    ways: list[list[object]] = [
        ["train", seeds.recipe, "--corpus", file, "--set", f"tokenizer.name={kind}", *tiny, "--dry-run"],
        ["eval", run, "--corpus", file, "--split", "whole", "--limit", 40, "--json"],
        ["score", run, file],
        ["compress", draw.choice((seeds.counts, seeds.bytes)), file, "--out", folder / "t.unr"],
        ["generate", run, "--prompt-file", file, "--tokens", 3],
    ]
    chosen = draw.choice(ways)
    if chosen[0] == "compress" and len(data) > 30_000:
        chosen = ways[1]
    return Case([*chosen, "--device", "cpu"])


KINDS: dict[str, Callable[[random.Random, Seeds, Path], Case]] = {
    "settings": _settings,
    "neural runs": _neural,
    "problem runs": _made,
    "count runs": _counted,
    "ARPA": _arpa,
    "containers": _container,
    "per-token": _per_token,
    "pairs": _pairs,
    "tables": _table,
    "texts": _corpus,
    "studies": _study,
    "folders": _folder,
    "stores": _store,
    "frames": lambda draw, seeds, folder: Case(frames(draw, seeds, folder)),
    "trees": lambda draw, seeds, folder: Case(trees(draw, folder)),
}
