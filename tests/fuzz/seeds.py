"""Whole inputs of every kind, made once, which are then damaged."""

import json
import os
import shutil
import zipfile
from pathlib import Path
from typing import NamedTuple

from fuzz.folders import make_folders
from train.runs import experiment, make_text, write_text
from unrolled.compare.tune import Board, begin
from unrolled.compare.tune.memory import open_memory
from unrolled.compress import CompressConfig, compress_file
from unrolled.counts import write_arpa
from unrolled.evaluate import open_predictor
from unrolled.evaluate.storing import store_text
from unrolled.predict import PredictorConfig
from unrolled.runs import Run
from unrolled.tokenizer.arpa import arpa_words
from unrolled.train import ExperimentConfig, train

__all__ = ["Seeds", "make_seeds"]

_PAIR = {"sentence_good": "the cat runs", "sentence_bad": "", "UID": "agreement", "field": "syntax"}
_OTHERS = ("of", "and", "under", "over", "hill", "memory")


class Seeds(NamedTuple):
    """home: what all of it lies in. text: a folder with train.txt, valid.txt and test.txt. chars, bytes, made,
    words, counts: finished runs, two neural ones of text, one of a synthetic problem and two of counts; begun: one that
    can be resumed. packed: container by its run. study: a search that is complete. folders: of transformers.
    store: of the training text of ``chars``. frames: a run that writes texts."""

    home: Path
    text: Path
    chars: Path
    bytes: Path
    made: Path
    begun: Path
    words: Path
    counts: Path
    packed: dict[Path, Path]
    plain: Path
    scores: Path
    ensemble: Path
    pairs: Path
    table: Path
    arpa: Path
    recipe: Path
    study: Path
    folders: tuple[Path, Path]
    store: Path
    frames: Path


def make_seeds(home: Path) -> Seeds:
    """All of it, in an empty folder; the cache and the current folder are there too."""
    os.environ["UNROLLED_CACHE"] = str(home / "cache")
    os.environ.pop("UNROLLED_DATA", None)
    text = write_text(home / "text")
    small = {
        "steps": 6,
        "validations": 2,
        "log_every": 2,
        "save_minutes": 9.0,
        "averaging": {"name": "ema", "decay": 0.5},
    }
    runs: dict[str, Path] = {}
    for name, kind in (("chars", "char"), ("bytes", "byte")):
        config = experiment(text, tokenizer={"name": kind}, train=small)
        runs[name] = train(config, home / name, "cpu")
    problem = {"name": "copy", "vocab": 3, "length": [2, 3]}
    values = {"task": {"name": "made", "problem": problem, "rows": 2, "valid_rows": 4}, "model": {"width": 4}}
    runs["made"] = train(ExperimentConfig.parse({**values, "train": small}), home / "made", "cpu")
    runs["frames"] = train(ExperimentConfig.parse(_FRAMES), home / "frames", "cpu")
    shutil.copytree(runs["chars"], home / "begun")
    (home / "begun" / "record.json").unlink()
    for name, kind in (("words", "word"), ("counts", "byte")):
        values = {"corpus": {"path": str(text)}, "tokenizer": {"name": kind}, "counts": {"order": 3}}
        runs[name] = train(ExperimentConfig.parse(values), home / name, "cpu")
    plain, packed = home / "plain.txt", {}
    plain.write_bytes(make_text(9, 5))
    for name in ("bytes", "counts"):
        run = Run(runs[name])
        packed[runs[name]] = home / f"{name}.unr"
        with open_predictor(run, PredictorConfig()) as predictor:
            settings = CompressConfig(lanes=3, lane_tokens=1, check_every=64)
            compress_file(plain, packed[runs[name]], predictor, run.tokenizer, settings, identity=run.identity())
    words = Run(runs["words"])
    write_arpa(words.ngrams, arpa_words(words.tokenizer), home / "a.arpa")
    pairs = home / "pairs"
    pairs.mkdir()
    lines = "".join(json.dumps({**_PAIR, "sentence_bad": f"the cat {word}"}) + "\n" for word in _OTHERS)
    (pairs / "a.jsonl").write_text(lines)
    with zipfile.ZipFile(home / "pairs.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.jsonl", lines)
    table = home / "table.tsv"
    rows = [f"{n}\t{word}\t{n % 3}" for n, word in enumerate(make_text(6, 3).decode().split())]
    table.write_text("\n".join(["id\tword\tsentence", *rows]) + "\n")
    recipe = home / "recipe.toml"
    recipe.write_text(_RECIPE.format(text=text))
    store_text(Run(runs["chars"]), home / "store", dtype="float32", clusters=9)
    return Seeds(
        home, text, runs["chars"], runs["bytes"], runs["made"], home / "begun", runs["words"], runs["counts"], packed,
        plain, home / "chars.tsv", home / "ensemble", pairs, table, home / "a.arpa", recipe,
        _study(home, text), make_folders(home, runs["chars"]), home / "store", runs["frames"],
    )  # fmt: skip


def _study(home: Path, text: Path) -> Path:
    """The folder of a small study, without its runs."""
    (home / "searched.toml").write_text(_SEARCHED.format(text=text))
    (home / "space.toml").write_text(_SPACE.format(recipe=home / "searched.toml"))
    board = Board(begin(home / "space.toml", home / "study"))
    memory = open_memory(board, None)
    for number, value in enumerate((2.0, 3.0, None)):
        board.add(trial := memory.ask())
        status = ("finished", "pruned", "diverged")[number]
        parts = {"step": 3, "share": 0.5} if status == "pruned" else {}
        known = {"number": number, "seed": 1, "cpu_seconds": 1.0, "tokens": 96, "parameters": 700, "status": status}
        board.write(board.trial_job(number), {**known, "settings": trial.settings, "value": value, **parts})
    for job in board.confirm_jobs():
        known = {"number": job.number, "seed": job.seed, "cpu_seconds": 1.0, "tokens": 96, "parameters": 700}
        board.write(job, {**known, "status": "finished", "value": 2.5, "bits_per_character": 3.5})
    memory.close()
    return home / "study"


_FRAMES = {
    "task": {
        "name": "written",
        "frames": {"name": "strokes", "lines": 4, "held": 2},
        "head": {"name": "mixture", "components": 2},
        "batch": 2,
    },
    "model": {"width": 4, "layers": 2, "stack": {"kind": "skip"}},
    "train": {"steps": 2, "validations": 1},
}
_SEARCHED = """title = "searched"
corpus.path = "{text}"
tokenizer.name = "char"
stream = {{ columns = 4, window = 12 }}
model = {{ width = 8, cell = "lstm" }}
train = {{ tokens = 96, optimizer = {{ name = "adam", lr = 0.01 }} }}
"""

_SPACE = """kind = "unrolled space"
recipe = "{recipe}"
trial = {{ tokens = 96 }}
rungs = [0.5]
confirm = {{ best = 1, seeds = [2, 3] }}

[space]
"train.optimizer.lr" = {{ low = 0.001, high = 0.1, log = true }}
"""

_RECIPE = """title = "characters"
seed = 3
tokenizer = {{ name = "char", unknown = "error" }}
corpus.path = "{text}"
stream = {{ columns = 4, window = 12, jitter = 0 }}

[model]
width = 8
layers = 1
cell = {{ name = "lstm", forget_bias = 1.0 }}
embedding = {{ size = 4, scale = 0.1 }}
head = {{ name = "softmax", block = 4096 }}
dropout = {{ input = 0.1, zoneout = {{ h = 0.1 }} }}

[train]
steps = 3
validations = 1
valid_columns = 4
clip = 1.0
final_eval = false
optimizer = {{ name = "adam", lr = 0.01, betas = [0.9, 0.99], eps = 1e-8 }}
schedule = {{ name = "linear", warmup = 0.1, final = 0.0 }}
averaging = {{ name = "none" }}
then = [{{ steps = 2, optimizer = {{ name = "sgd", lr = 1.0, momentum = 0.5 }} }}]
"""
