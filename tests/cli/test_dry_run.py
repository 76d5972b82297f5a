"""A training run that is only looked at."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command
from cli.tiny import tiny


def test_dry_run_is_readable(unrolled: Command, text: Path) -> None:
    code, out, _ = unrolled("train", "--corpus", text, "--dry-run", *tiny())
    assert code == 0
    assert "budget: 6 steps" in out
    assert "{" not in out


def test_dry_run_of_a_recipe_whose_corpus_is_absent(unrolled: Command) -> None:
    code, out, _ = unrolled("train", "awd-qrnn-wt103", "--dry-run", "--json")
    size = json.loads(out)
    assert code == 0
    assert (size["parameters"], size["vocabulary"]) == (153_886_638, 267_735)
    assert "wikitext-103 is not on this machine" in size["corpus"]
    assert (size["training_tokens"], size["steps"] is not None) == (103_227_021, True)
    code, out, _ = unrolled("train", "lstm-mwc-en", "--dry-run", "--json")
    size = json.loads(out)
    assert code == 0, "its vocabulary is that of the text"
    assert (size["vocabulary"], size["tokens"]) == (None, 100_000 * 64 * 150)
    known = json.loads(unrolled("train", "lstm-mwc-en", "--dry-run", "--json", "--set", "vocabulary=250").out)
    fixed, per_id = (int(one.replace(",", "")) for one in re.findall(r"[\d,]+\d", size["parameters"])[:2])
    assert known["parameters"] == fixed + 250 * per_id


def test_dry_run_makes_no_step_unless_asked(
    unrolled: Command, refused: Callable[..., str], text: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from unrolled.train import budget

    made = []
    monkeypatch.setattr(budget, "train_step", lambda *a, **b: made.append(1) or train_step(*a, **b))
    from unrolled.train.step import train_step

    size = json.loads(unrolled("train", "--corpus", text, "--dry-run", "--json", *tiny()).out)
    assert not made
    assert (size["steps"], size["tokens"]) == (6, 6 * 4 * 12)
    assert size["memory_bytes_at_least"] == 4 * 4 * size["parameters"], "weights, gradients, two moments of Adam"
    assert size["flops"] == 3 * size["flops_per_token"] * size["tokens"]
    assert size["estimated_cpu_seconds_at_least"] > 0
    timed = json.loads(unrolled("train", "--corpus", text, "--dry-run", "--time", "--json", *tiny()).out)
    assert made
    assert timed["estimated_seconds"] > 0
    assert size["steps"] == timed["steps"]
    assert "--time belongs to --dry-run" in refused("train", "--time")
