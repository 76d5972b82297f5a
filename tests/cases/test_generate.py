"""Stop texts and prompts as shells give them."""

import json
from pathlib import Path

import pytest

from cases.conftest import MakeRun
from cli.conftest import Command

TEXT = "the cat sat\n\nthe dog\tran\n\n" * 20


@pytest.mark.parametrize(
    ("given", "meant"),
    [("\\n", "\n"), ("\\n\\n", "\n\n"), ("\n", "\n"), ("\\t", "\t"), ("\\x0a", "\n"), ("\\u000a", "\n"), ("at", "at")],
)
def test_stop_texts(given: str, meant: str, count: MakeRun, unrolled: Command) -> None:
    run = count(TEXT)
    for seed in range(3):
        code, out, _ = unrolled("generate", run, "-n", 2000, "--stop", given, "--seed", seed, "--json")
        (found,) = json.loads(out)
        assert (code, found["finish_reason"]) == (0, "stop")
        assert meant not in found["text"]


def test_a_backslash_in_a_stop_text(count: MakeRun, unrolled: Command) -> None:
    run = count("a\\nb c\\\\d\n" * 30)
    (found,) = json.loads(unrolled("generate", run, "-n", 900, "--stop", "\\\\n", "--json").out)
    assert found["finish_reason"] == "stop"
    assert "\\n" not in found["text"]


def test_several_stops_and_the_first_that_comes(count: MakeRun, unrolled: Command) -> None:
    (found,) = json.loads(
        unrolled("generate", count(TEXT), "-n", 900, "--stop", "\\n\\n", "--stop", "\\t", "--stop", "zzz", "--json").out
    )
    assert found["finish_reason"] == "stop"
    assert not {"\n\n", "\t"} & set(found["text"])


def test_prompts_are_texts(count: MakeRun, unrolled: Command, tmp_path: Path) -> None:
    run = count(TEXT)
    (tmp_path / "plain.txt").write_text("the cat\n")
    (tmp_path / "odd.txt").write_text("\ufeffthe cat\r\n", newline="", encoding="utf-8")
    plain, odd = (unrolled("generate", run, "--prompt-file", name, "-n", 9) for name in ("plain.txt", "odd.txt"))
    assert plain.out == odd.out
    assert "note: odd.txt holds a byte-order mark" in odd.err
    code, _, err = unrolled("generate", run, "--prompt-file", "plain.txt", "--prompt", "x")
    assert (code, err) == (2, "unrolled: give either --prompt or --prompt-file, not both.\n")
    (tmp_path / "utf16.txt").write_bytes("the".encode("utf-16"))
    assert "utf16.txt is UTF-16" in unrolled("generate", run, "--prompt-file", "utf16.txt").err
    assert "sit" not in unrolled("generate", run, "--prompt", "", "-n", 3).err
