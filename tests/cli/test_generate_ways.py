"""Search, drafts, guidance and contrast on the command line."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command
from train.runs import experiment
from unrolled.train import train

OPTIONS = ("--prompt", "the ", "--tokens", 12)


def test_search(unrolled: Command, trained: Path) -> None:
    (found,) = json.loads(unrolled("generate", trained, *OPTIONS, "--search", 40, "--json").out)
    (greedy,) = json.loads(unrolled("generate", trained, *OPTIONS, "--temperature", 0, "--json").out)
    assert found["log_prob"] >= greedy["log_prob"]
    assert found["expanded"] <= 40
    told = unrolled("generate", trained, *OPTIONS, "--search", 40).out
    assert f"the {found['text']}" in told
    assert ("no text has a higher score" in told) == found["proved"]


def test_given(unrolled: Command, trained: Path, refused: Callable[..., str]) -> None:
    flags = (*OPTIONS, "--beams", 4, "--nbest", 2, "--json")
    for one in json.loads(unrolled("generate", trained, *flags, "--given", "no-repeat").out):
        assert all(a != b for a, b in itertools.pairwise(one["tokens"]))
    assert "did you mean 'no-repeat'" in refused("generate", trained, *flags, "--given", "no-repaet")
    assert "say --beams too" in refused("generate", trained, "--given", "nonempty")


def test_drafts(unrolled: Command, trained: Path) -> None:
    flags = ("--draft", trained, "--candidates", "2,1", "--draft-tokens", 3)
    (greedy,) = json.loads(unrolled("generate", trained, *OPTIONS, "--temperature", 0, "--json").out)
    (found,) = json.loads(unrolled("generate", trained, *OPTIONS, *flags, "--temperature", 0, "--json").out)
    assert found["tokens"] == greedy["tokens"]
    assert found["log_prob"] == pytest.approx(greedy["log_prob"], abs=1e-4)
    assert (found["calls"], found["tokens_per_call"]) == (3, 4)
    told = unrolled("generate", trained, *OPTIONS, *flags, "--samples", 2).out
    assert "4.00 tokens for each call of the model, 1.000 of the drafted places taken" in told
    assert told.count("--- 2\nthe ") == 1


def test_guidance_and_contrast(unrolled: Command, trained: Path) -> None:
    options = (*OPTIONS, "--seed", 3)
    plain = unrolled("generate", trained, *options).out
    assert unrolled("generate", trained, *options, "--guidance", 0).out == plain
    neutral = ("--set", "contrast.weight=0", "--set", "contrast.plausible=0")
    assert unrolled("generate", trained, *options, "--amateur", trained, *neutral).out == plain
    guided = unrolled("generate", trained, *options, "--guidance", 9).out
    assert guided != plain
    assert unrolled("generate", trained, *options, "--guidance", 9, "--negative", "of it is").out != guided
    best = unrolled("generate", trained, *options, "--amateur", trained, "--set", "contrast.plausible=1").out
    assert best == unrolled("generate", trained, *options, "--temperature", 0).out


def test_refused(refused: Callable[..., str], trained: Path, text: Path, tmp_path: Path) -> None:
    assert "not combined" in refused("generate", trained, "--beams", 2, "--search", 3)
    assert "say --draft too" in refused("generate", trained, "--candidates", "3")
    assert "commas between them" in refused("generate", trained, "--draft", trained, "--candidates", "x")
    assert "1 to 256" in refused("generate", trained, "--draft", trained, "--candidates", "300")
    assert "say --guidance too" in refused("generate", trained, "--negative", "x")
    assert "not combined" in refused("generate", trained, "--guidance", 1, "--amateur", trained)
    assert "leave it out" in refused("generate", trained, "--guidance", 1, "--state-out", tmp_path / "x")
    assert "neither guidance nor contrast" in refused("generate", trained, "--guidance", 1, "--predict", "dynamic=sgd")
    assert "did you mean 'contrast'" in refused("generate", trained, "--set", "contrst.weight=1")
    other = train(experiment(text, tokenizer={"name": "byte"}, train={"steps": 2}), tmp_path / "other", "cpu")
    assert "has another" in refused("generate", trained, "--draft", other)
