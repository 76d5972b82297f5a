"""``unrolled generate --clamp``."""

import json
from collections.abc import Callable
from pathlib import Path

from cli.conftest import Command

SMALL = ["--tokens", 40, "--prompt", "the cat", "--json"]


def test_clamping_changes_the_text(unrolled: Command, trained: Path) -> None:
    def made(*options: object) -> str:
        code, out, err = unrolled("generate", trained, *SMALL, *options)
        assert (code, err) == (0, "")
        return json.loads(out)[0]["text"]

    free = made()
    held = made("--clamp", "0.c.3=40", "--clamp", "0.h.1=-1")
    assert len({free, held, made("--clamp", "0.c.3=40")}) == 3
    assert held == made("--clamp", "0.h.1=-1", "--clamp", "0.c.3=40")


def test_refusals(refused: Callable[..., str], unrolled: Command, trained: Path, text: Path) -> None:
    assert "'c.3' is not of the form LAYER.NAME.UNIT=VALUE" in refused("generate", trained, "--clamp", "c.3")
    assert "the model has no layer 1; its layers are 0 to 0" in refused("generate", trained, "--clamp", "1.c.3=1")
    assert "unknown state of layer 0: 'g'; known: c, h" in refused("generate", trained, "--clamp", "0.g.3=1")
    assert "has no unit 8; its units are 0 to 7" in refused("generate", trained, "--clamp", "0.c.8=1")
    Path("counts.toml").write_text('corpus.name = "pydoc"\ntokenizer.name = "word"\n[counts]\norder = 2\n')
    assert unrolled("train", "counts.toml", "--corpus", text, "--out", "counted", "--sample", 0).code == 0
    assert "is a count model, which has no neural weights" in refused("generate", "counted", "--clamp", "0.c.0=1")
