"""``unrolled serve``: options, files of options, and what is refused before anything listens."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Command
from unrolled.serve import run as module


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What the server was asked to do."""
    found: list[Any] = []

    def record(runs: Any, config: Any, mixtures: Any, tell: Any, listening: Any) -> None:
        found[:] = [runs, config, mixtures]
        listening("::1", 81, None)

    monkeypatch.setattr(module, "serve_runs", record)
    return found


def test_options(unrolled: Command, asked: list[Any], trained: Path) -> None:
    done = unrolled(
        "serve", trained, "--port", 0, "--streams", 7, "--max-body", "64kB", "--state-memory", "1 GB", "--metrics",
        "off", "--no-page", "--no-client-state", "--mixture", "both=a:0.6,b:0.4", "--mixture", "even=a,b", "--quantize",
        "int8", "--cors", "https://a.example", "--allow-host", "models.example", "--predict",
        "temperature=2", "--set", "predict.temperature.value=0.5", "--json",
    )  # fmt: skip
    assert done.code == 0, done.err
    runs, config, mixtures = asked
    assert runs == [trained]
    assert mixtures == {"both": {"a": 0.6, "b": 0.4}, "even": {"a": 1.0, "b": 1.0}}
    assert (config.port, config.streams, config.max_body, config.state_memory) == (0, 7, 64 << 10, 1 << 30)
    assert (config.metrics, config.page, config.client_state) == (False, False, False)
    assert (config.cors, config.hosts) == (("https://a.example",), ("models.example",))
    assert config.predict.get("quantize").weights == "int8"
    assert config.predict.get("temperature").value == 0.5
    assert done.out == '{"kind": "server", "address": "http://[::1]:81"}\n'


def test_a_file_of_options(unrolled: Command, asked: list[Any], tmp_path: Path) -> None:
    text = '[serve]\nruns = ["a", "b"]\nport = 9\nstreams = 3\n[serve.mixtures.both]\na = 0.5\nb = 0.5\n'
    (tmp_path / "serve.toml").write_text(text + '[serve.predict]\nquantize = "bf16"\n')
    done = unrolled("serve", "--config", "serve.toml", "--streams", 4)
    assert done.code == 0, done.err
    assert "serving at http://[::1]:81" in done.err
    runs, config, mixtures = asked
    assert runs == [Path("a"), Path("b")]
    assert (config.port, config.streams) == (9, 4)
    assert mixtures == {"both": {"a": 0.5, "b": 0.5}}
    assert config.predict.get("quantize").weights == "bf16"
    unrolled("serve", "c", "--config", "serve.toml")
    assert asked[0] == [Path("c")]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "name a run"), (["x", "--max-body", "2 parsecs"], "--max-body needs a size"),
        (["x", "--metrics", "loud"], "on or off"), (["x", "--mixture", "both"], "NAME=RUN:WEIGHT"),
        (["x", "--mixture", "both=a:heavy"], "NAME=RUN:WEIGHT"), (["x", "--streams", 0], "streams"),
        (["x", "--host", "0.0.0.0"], "serving to other machines needs --api-key-file"),
        (["x", "--config", "odd.toml"], "one table, [serve]"), (["x", "--config", "none.toml"], "none.toml"),
        (["x", "--config", "typo.toml"], "did you mean 'streams'"), (["x"], "x is not a run"),
        (["x", "--state-key", "nokey"], "nokey"),
    ],
)  # fmt: skip
def test_refused(refused: Callable[..., str], tmp_path: Path, arguments: list[Any], said: str) -> None:
    (tmp_path / "odd.toml").write_text("port = 3\n")
    (tmp_path / "typo.toml").write_text("[serve]\nstream = 3\n")
    code = 1 if "nokey" in arguments else 2
    assert said in refused("serve", *arguments, code=code)


def test_models_that_cannot_be_served(refused: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained, tmp_path / "more" / "trained")
    assert "two runs are called trained" in refused("serve", trained, tmp_path / "more" / "trained")
    assert "names other, which is no run" in refused("serve", trained, "--mixture", "both=trained,other")
    assert "two models are called trained" in refused("serve", trained, "--mixture", "trained=trained")
    assert "leave out dynamic" in refused("serve", trained, "--predict", "dynamic")
