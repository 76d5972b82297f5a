"""The server's figures and texts are the command line's."""

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cli.conftest import Command
from serve.live.conftest import Live
from unrolled.kernels.cpu import why_no_library
from unrolled.predict import PredictorConfig
from unrolled.serve.client import Client
from unrolled.serve.engine.served import Served, open_models

TEXT = "the cat sleeps\nunder the hill\n\nthe hill sleeps\n" * 20


def test_scores_to_the_last_digit(
    live: Callable[..., Live], models: list[Served], run: Path, unrolled: Command, tmp_path: Path
) -> None:
    (tmp_path / "text.txt").write_text(TEXT)
    client = Client(live(models).address)
    every = {"unit": "token", "entropy": True, "rank": True, "top_k": 3}
    for options, flags in (
        ({}, []), (every, ["--unit", "token", "--entropy", "--rank", "--top-k", "3"]),
        ({"boundary": "trailing", "reset": "line"}, ["--boundary", "trailing", "--reset", "line"]),
    ):  # fmt: skip
        out = unrolled("score", run, tmp_path / "text.txt", "--json", *flags).out
        rows = [json.loads(line) for line in out.splitlines()]
        answer = client._ask("POST", "/v1/score", {"text": TEXT, **options})
        assert json.loads(json.dumps(answer["rows"])) == rows


def test_texts(live: Callable[..., Live], models: list[Served], run: Path, unrolled: Command) -> None:
    client = Client(live(models).address)
    cases: tuple[tuple[list[str], dict[str, Any]], ...] = (
        (["--seed", "4"], {"seed": 4}), (["--temperature", "0"], {"temperature": 0}),
        (["--top-k", "5", "--top-p", "0.9", "--seed", "1"], {"top_k": 5, "top_p": 0.9, "seed": 1}),
        (["--stop", "e ", "--seed", "2"], {"stop": "e ", "seed": 2}),
    )  # fmt: skip
    for flags, options in cases:
        (whole,) = json.loads(unrolled("generate", run, "--prompt", "the ", "--tokens", 120, "--json", *flags).out)
        found = client.complete("the ", max_tokens=120, **options)
        assert (found.text, found.reason) == (whole["text"], whole["finish_reason"])


def test_states_go_on_from_the_server_on_the_command_line(
    live: Callable[..., Live],
    models: list[Served],
    run: Path,
    unrolled: Command,
    tmp_path: Path,
) -> None:
    """A blob, a file of safetensors, and a signed one."""
    server = live(models)
    client = Client(server.address)
    whole = client.complete("the ", max_tokens=60, seed=5).text
    first = client.complete("the ", max_tokens=20, seed=5)
    assert first.state is not None
    first.state.save(tmp_path / "blob")
    body = {"prompt": "the ", "max_tokens": 20, "seed": 5, "return_state": True, "state_format": "handle"}
    handle = client._ask("POST", "/v1/completions", body)["choices"][0]["state"]
    for name in ("plain", "signed"):
        answer, connection = client._open("GET", f"/v1/state/{handle}?signed={str(name == 'signed').lower()}", None)
        (tmp_path / name).write_bytes(answer.read())
        connection.close()
    for name in ("blob", "plain", "signed"):
        done = unrolled("generate", run, "--state", tmp_path / name, "--tokens", 40, "--seed", 5)
        assert first.text + done.out[:-1] == whole
    (tmp_path / "text.txt").write_text("hill\n")
    scored = unrolled("score", run, tmp_path / "text.txt", "--state", tmp_path / "plain", "--json").out
    rows = client.score("hill\n", first.state).rows
    assert [json.loads(line) for line in scored.splitlines()] == rows


def test_a_state_of_the_command_line_goes_on_at_a_laboratory_server(
    live: Callable[..., Live],
    models: list[Served],
    run: Path,
    unrolled: Command,
    tmp_path: Path,
) -> None:
    server = live(models, signature=False)
    unrolled("generate", run, "--prompt", "the ", "--tokens", 20, "--seed", 5, "--state-out", tmp_path / "a.state")
    blob = base64.urlsafe_b64encode(bytes(32) + (tmp_path / "a.state").read_bytes()).decode()
    found = Client(server.address)._ask("POST", "/v1/completions", {"state": blob, "max_tokens": 40, "seed": 5})
    rest = unrolled("generate", run, "--state", tmp_path / "a.state", "--tokens", 40, "--seed", 5).out[:-1]
    assert found["choices"][0]["text"] == rest


@pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))
@pytest.mark.parametrize("quantize", ["bf16", "int8"])
def test_quantised(live: Callable[..., Live], run: Path, unrolled: Command, quantize: str, tmp_path: Path) -> None:
    run = Path(shutil.copytree(run, tmp_path / "native"))
    config = json.loads((run / "config.json").read_text())
    config["model"]["compute"]["backend"] = "auto"
    (run / "config.json").write_text(json.dumps(config))
    found = open_models([run], PredictorConfig.parse({"quantize": quantize}), 2, {})
    server = live(found)
    assert found[0].precision == quantize
    wrote = Client(server.address).complete("the ", max_tokens=60, seed=4).text
    assert (
        unrolled("generate", run, "--prompt", "the ", "--tokens", 60, "--seed", 4, "--quantize", quantize).out
        == f"the {wrote}\n"
    )
