"""A tiny plan on a generated text, and hand-made results in its folder."""

from pathlib import Path
from typing import Any

from train.runs import write_text
from unrolled.compare import Board, Lock, open_lock, register
from unrolled.compare.jobs import Job
from unrolled.compare.result_file import RESULT_KIND, RESULT_VERSION
from unrolled.core.files import make_folder, write_json

RECIPE = """
title = "tiny"
corpus.path = "{text}"
tokenizer.name = "char"
stream = {{ columns = 4, window = 12 }}

[model]
width = 8
cell = {{ name = "lstm" }}
compute = {{ backend = "generic" }}

[train]
steps = 30
validations = 2
valid_columns = 4
valid_tokens = 200
optimizer = {{ name = "adam", lr = 0.01 }}
"""

PLAN = """
kind = "unrolled plan"
title = "Is the GRU better?"
recipe = "{recipe}"
seeds = [1, 2]

[match]
parameters = 3000
tolerance = 0.2
budget = {{ tokens = 700 }}

[search]
setting = "train.optimizer.lr"
values = [0.005, 0.01, 0.02]
budget = {{ tokens = 300 }}
seeds = [901]
edge = "report"

[[system]]
name = "LSTM"
set = ["model.cell.name=lstm"]

[[system]]
name = "GRU"
set = ["model.cell.name=gru"]

[[contrast]]
name = "gates"
better = "GRU"
than = "LSTM"
smallest = 0.01

[[rule]]
when = {{ gates = ["better"] }}
say = "the GRU is better"
"""


def write_plan(folder: Path, text: str = PLAN, recipe: str = RECIPE) -> Path:
    """A plan, its recipe and its text; returns the plan's path."""
    words = folder / "text"
    if not words.exists():
        write_text(words)
    (folder / "tiny.toml").write_text(recipe.format(text=words))
    path = folder / "plan.toml"
    path.write_text(text.format(recipe=folder / "tiny.toml"))
    return path


def registered(folder: Path, text: str = PLAN, recipe: str = RECIPE) -> Lock:
    """A registered plan in ``folder/out``."""
    register(write_plan(folder, text, recipe), folder / "out")
    return open_lock(folder / "out")


def found(board: Board, job: Job, nats: float | None, **parts: Any) -> None:
    """Write a job's result by hand; no nats: it diverged."""
    make_folder(board.path(job).parent)
    status = {"status": "diverged"} if nats is None else {"status": "finished", "nats_per_token": nats}
    value = {
        "kind": RESULT_KIND, "version": RESULT_VERSION, "id": job.id, "job": job.kind, "system": job.system,
        "corpus": job.corpus, "seed": job.seed, "value": job.value, "tokens": job.tokens, "cpu_seconds": 1.0,
        "wall_seconds": 1.0, "machine": "here", "backends": {}, "curve": [], **status, **parts,
    }  # fmt: skip
    write_json(board.path(job), value)
