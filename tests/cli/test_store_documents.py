"""``unrolled store --documents``, and reading with them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from cli.conftest import Command


@pytest.fixture
def store(unrolled: Command, trained: Path) -> Path:
    notes = Path("notes/more")
    notes.mkdir(parents=True)
    (notes.parent / "cat.txt").write_text("the green cat sleeps under the hill\n")
    (notes.parent / "dog.txt").write_text("the small dog runs\n" * 3)
    (notes / "state.txt").write_text("recurrent memory carries the state\n")
    (notes / ".hidden").write_text("the\n")
    code, out, err = unrolled("store", trained, "--documents", "notes", "--out", "stores/notes", "--json")
    assert code == 0, err
    told = json.loads(out)
    assert (told["documents"], told["tokens"]) == (3, 36 + 57 + 35)
    return Path("stores/notes")


def test_a_text_is_read_after_them(unrolled: Command, trained: Path, store: Path) -> None:
    on = ["--predict", f"documents={store}", "--set", "documents.k=2", "--set", "documents.stride=8"]
    plain = json.loads(unrolled("eval", trained, "--limit", 60, "--json").out)
    code, out, err = unrolled("eval", trained, *on, "--limit", 60, "--json")
    assert code == 0, err
    found = json.loads(out)
    assert found["protocol"]["kind"] == "documents"
    assert found["nats"] != plain["nats"]
    assert len(unrolled("generate", trained, *on, "--prompt", "the cat", "--tokens", 12).out) > 12
    Path("t.txt").write_text("the green cat runs over the hill\n")
    assert unrolled("compress", trained, "t.txt", *on).code == 0
    assert unrolled("decompress", trained, "t.txt.unr", "--out", "b.txt").code == 0
    assert Path("b.txt").read_bytes() == Path("t.txt").read_bytes()


def test_what_is_refused(unrolled: Command, refused: Callable[..., str], trained: Path, store: Path) -> None:
    assert "exists" in refused("store", trained, "--documents", "notes", "--out", store)
    assert "alone" in refused("store", trained, "--documents", "notes", "--out", "x", "--columns", 3)
    Path("empty").mkdir()
    assert "no folder with texts" in refused("store", trained, "--documents", "empty", "--out", "x")
    (Path("empty") / "a.txt").write_text("")
    assert "has no text" in refused("store", trained, "--documents", "empty", "--out", "x")
    assert "no store of documents" in refused("eval", trained, "--predict", "documents=empty")
    assert "another model" in refused("eval", trained, "--predict", f"documents={store}", "--weights", "raw")
    for name in ("states.safetensors", "words.txt", "documents.json"):
        whole = (store / name).read_bytes()
        (store / name).write_bytes(whole[: len(whole) // 2])
        assert refused("eval", trained, "--predict", f"documents={store}", "--limit", 5, code=1)
        (store / name).write_bytes(whole)
