"""Cells that are not causal from the first token on: the list says so, and no language model is made of them."""

import json
from collections.abc import Callable
from pathlib import Path

from cli.conftest import Command
from cli.tiny import tiny
from unrolled.cells import CELLS
from unrolled.cells.matrix.jrt import JRT, JRTConfig


class PrefixedConfig(JRTConfig):
    prefix: int = 5


class Prefixed(JRT):
    """A JRT-RNN that has a prefix by default."""

    Config = PrefixedConfig


def test_the_list_of_cells(unrolled: Command) -> None:
    assert "causal after" not in unrolled("cells", "--width", 8).out
    CELLS.add("prefixed", Prefixed)
    try:
        table, as_json = (unrolled("cells", "--width", 8, *more).out for more in ((), ("--json",)))
    finally:
        CELLS.remove("prefixed")
    assert "(causal after the first 5 tokens)" in table
    found = {row["name"]: row["causal_from"] for row in json.loads(as_json)}
    assert found.pop("prefixed") == 5
    assert set(found.values()) == {0}


def test_training_is_refused(unrolled: Command, refused: Callable[..., str], text: Path) -> None:
    settings = ["--corpus", text, *tiny(), "--set", "model.cell.name=jrt"]
    assert unrolled("train", *settings, "--out", "run").code == 0
    sentence = refused("train", *settings, "--set", "model.cell.prefix=4", "--out", "other")
    assert "a layer of jrt shows the first 4 tokens of a document to each of them" in sentence
