"""``--quantize``: where it is taken, what it records, where it is refused."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command
from unrolled.kernels.cpu import why_no_library

SMALL = ["--tokens", 30, "--prompt", "the cat", "--json"]
AUTO = ["--backend", "auto"]  # the run asks for another one
needs_library = pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))


@needs_library
def test_generate_score_and_eval(unrolled: Command, trained: Path, text: Path) -> None:
    def made(*options: object) -> tuple[str, float]:
        code, out, err = unrolled("generate", trained, *SMALL, *AUTO, *options)
        assert (code, err) == (0, "")
        return json.loads(out)[0]["text"], json.loads(out)[0]["log_prob"]

    free, eight = made(), made("--quantize", "int8")
    assert free == made()
    assert free[1] != eight[1]

    def nats(*options: object) -> tuple[float, str, dict[str, object]]:
        code, out, _ = unrolled("eval", trained, "--corpus", text, "--limit", 50, "--json", *AUTO, *options)
        assert code == 0
        found = json.loads(out)
        return found["nats"], found["protocol"]["precision"], found["protocol"]["options"]

    exact = nats()
    assert exact[1:] == ("float32", {})
    for kind in ("bf16", "int8"):
        nearly = nats("--quantize", kind)
        assert nearly[1:] == (kind, {"quantize": kind})
        assert 0 < abs(nearly[0] - exact[0]) < 0.02 * exact[0]
    code, _, err = unrolled("score", trained, text / "test.txt", *AUTO, "--quantize", "int8")
    assert code == 0
    assert "tokens" in err


def test_refusals(refused: Callable[..., str], trained: Path) -> None:
    assert "quantize" in refused("generate", trained, "--quantize", "int4")
    assert "leave out clamp or quantize" in refused("generate", trained, "--quantize", "int8", "--clamp", "0.c.0=1")
    assert "backend generic is asked for" in refused("eval", trained, "--quantize", "bf16")
    assert "leave out dynamic or quantize" in refused("eval", trained, "--quantize", "bf16", "--dynamic", "krause")
