"""``unrolled retrieve``."""

import json
from collections.abc import Callable
from pathlib import Path

from cli.conftest import Command


def test_retrieve(unrolled: Command, refused: Callable[..., str], trained: Path, tmp_path: Path) -> None:
    lines = ["the cat sat on the mat", "a dog ran", "the sea is there and the rest is not"]
    documents = tmp_path / "documents.txt"
    documents.write_text("\n".join(lines))
    found = json.loads(unrolled("retrieve", trained, documents, "the ", "--json").out)
    assert {one["number"] for one in found} <= {1, 2, 3}
    for one in found:
        assert one["text"] == lines[one["number"] - 1]
        assert all(part in one["text"] for part, _ in one["passages"])
    told = unrolled("retrieve", trained, documents, "the ", "-k", 1).out
    assert told.count("--- document") == min(1, len(found))
    assert "did you mean 'power'" in refused("retrieve", trained, documents, "the ", "--set", "retrieve.powr=1")
    documents.write_text("")
    assert "holds no documents" in refused("retrieve", trained, documents, "the ")
