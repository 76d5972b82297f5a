"""Every adapter of the table through every verb, by its name and options alone."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import unrolled as ur
from cli.conftest import Command
from families import first_of_each
from unrolled.kernels.cpu import why_no_library
from unrolled.predict import ADAPTERS

NO_LIBRARY = why_no_library()  # asked here, before a test has a cache of its own, where none is


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A tiny run with dropout, and texts; its backend is the machine's choice, as quantised weights need it."""
    made = Path(shutil.copytree(Path(__file__).parents[1] / "fixtures" / "old", tmp_path / "old"))
    config = json.loads((made / "run/config.json").read_text())
    config["model"]["compute"]["backend"] = "auto"
    config["corpus"]["path"] = str(made / "text.txt")  # some store what they need of the training text
    (made / "run/config.json").write_text(json.dumps(config))
    return made


@pytest.fixture
def recycling(folder: Path) -> Path:
    """The same folder with a run that was trained for recycled steps."""
    shutil.rmtree(folder / "run")
    config = {
        "corpus": {"path": str(folder / "text.txt")},
        "model": {"width": 8, "layers": 1, "cell": "lstm"},
        "stream": {"columns": 2, "window": 10},
        "train": {"steps": 8, "validations": 1, "extra": [{"name": "recycle", "weight": 1.0}]},
    }
    ur.train(ur.ExperimentConfig.parse(config), folder / "run", device="cpu")
    return folder


@pytest.mark.slow
def test_recycled_steps_in_every_verb(unrolled: Command, recycling: Path) -> None:
    every_verb(unrolled, recycling, "recycle")


def test_recycled_steps_need_their_module(unrolled: Command, folder: Path) -> None:
    code, _, err = unrolled("eval", folder / "run", "--corpus", folder / "text.txt", "--recycle", "alternate")
    assert code == 2
    assert "recycle" in err


@pytest.mark.slow
def test_blocks_in_every_verb(unrolled: Command, folder: Path) -> None:
    """Of a run of attention over a few tokens."""
    shutil.rmtree(folder / "run")
    config = {
        "corpus": {"path": str(folder / "text.txt")},
        "model": {"width": 8, "cell": {"name": "window_attention", "heads": 2, "context": 6}},
        "stream": {"columns": 2, "window": 10},
        "train": {"steps": 8, "validations": 1},
    }
    ur.train(ur.ExperimentConfig.parse(config), folder / "run", device="cpu")
    every_verb(unrolled, folder, "blocks")


# the run is an LSTM's; tests/cli/test_sets.py has one of attention
@pytest.mark.parametrize(
    "name",
    first_of_each([name for name in ADAPTERS if name not in ("sets", "blocks", "recycle")], lambda name: None, keep=2),
)
def test_an_adapter_in_every_verb(unrolled: Command, folder: Path, name: str) -> None:
    every_verb(unrolled, folder, name)


def single(options: dict[str, Any], before: str = "") -> Iterator[tuple[str, Any]]:
    """Options that hold others as each of those."""
    for name, value in options.items():
        if isinstance(value, dict):
            yield from single(value, f"{before}{name}.")
        else:
            yield before + name, value


def every_verb(unrolled: Command, folder: Path, name: str) -> None:
    options = ADAPTERS[name].EXAMPLES[0].model_dump(mode="json", exclude={"name"}, exclude_none=True)
    on = ["--predict", name]
    for option, value in single(options):
        on += ["--set", f"predict.{name}.{option}={json.dumps(value)}"]
    run, note = folder / "run", folder / "note.txt"
    plain = json.loads(unrolled("eval", run, "--corpus", folder / "text.txt", "--json").out)
    code, out, err = unrolled("eval", run, "--corpus", folder / "text.txt", "--json", *on)
    if NO_LIBRARY is not None and NO_LIBRARY in err:
        pytest.skip(NO_LIBRARY)
    assert code == 0, err
    found = json.loads(out)
    assert name in found["protocol"]["options"]
    assert found["nats"] != plain["nats"]
    code, out, err = unrolled("eval", run, "--corpus", folder / "text.txt", "--limit", 20, *on)
    assert code == 0, err
    assert "nats per token" in out
    assert unrolled("score", run, note, *on).out != unrolled("score", run, note).out
    code, out, err = unrolled("generate", run, "--prompt", "the ", "--tokens", 6, "--samples", 2, "--json", *on)
    assert code == 0, err
    assert [len(one["tokens"]) for one in json.loads(out)] == [6, 6]
    code, _, err = unrolled("compress", run, note, "--lanes", 2, *on)
    assert code == 0, err
    code, _, err = unrolled("decompress", run, folder / "note.txt.unr", "--out", folder / "back.txt")
    assert code == 0, err
    assert (folder / "back.txt").read_bytes() == note.read_bytes()
