"""Skip n-grams on the command line: trained, measured, scored, generated from; what is refused."""

import json
import math
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command


def test_a_run_like_any_other(unrolled: Command, refused: Callable[..., str], text: Path) -> None:
    Path("counts.toml").write_text('corpus.name = "pydoc"\ntokenizer.name = "word"\n[counts]\norder = 3\n')
    nats = {}
    for name, skips in (("plain", "false"), ("skips", "true")):
        train = ["train", "counts.toml", "--corpus", text, "--set", f"counts.skips={skips}", "--out", name]
        assert unrolled(*train, "--sample", 0).code == 0
        nats[name] = json.loads(unrolled("eval", name, "--json").out)["nats"]
    assert nats["plain"] != nats["skips"]
    rows = unrolled("score", "skips", text / "test.txt", "--json").out.splitlines()
    assert sum(json.loads(row)["surprisal_bits"] for row in rows) * math.log(2) == pytest.approx(nats["skips"])
    code, out, _ = unrolled("generate", "skips", "--prompt", "the cat", "--tokens", 5, "--seed", 1)
    assert code == 0
    assert out.strip()
    assert "skip n-grams, which ARPA files cannot hold" in refused("export", "skips", "x.arpa")
    assert unrolled("export", "plain", "x.arpa").code == 0
    weights = ["--set", "weights.file=x.arpa", "--set", "weights.layout=arpa", "--set", "counts.skips=true"]
    assert "an ARPA file has no skip n-grams" in refused(
        "train", "counts.toml", "--corpus", text, *weights, "--out", "other"
    )
    assert "order is at most 8" in refused(
        "train", "counts.toml", "--corpus", text, "--set", "counts.skips=true", "--set", "counts.order=9"
    )
