"""Count models that are made in no time, and the fixtures of the command."""

from collections.abc import Callable
from pathlib import Path

import pytest

from cases.material import ARPA, VOCABULARY, counted
from cli.conftest import _private, _trained, begun, refused, text, trained, unrolled
from unrolled.train import ExperimentConfig, train

__all__ = ["_private", "_trained", "begun", "refused", "text", "trained", "unrolled"]

MakeRun = Callable[..., Path]


@pytest.fixture(scope="session")
def arpa(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run over a trigram model that is written out in :mod:`cases.material`; its words are known by spaces."""
    home = tmp_path_factory.mktemp("arpa")
    (home / "model.arpa").write_text(ARPA)
    (home / "vocab.txt").write_text(VOCABULARY)
    (home / "text.txt").write_text("the cat saw the dog .\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(home / "cache"))
        config = {
            "tokenizer": {"name": "word", "vocabulary": str(home / "vocab.txt"), "end_word": "</s>"},
            "weights": {"file": str(home / "model.arpa"), "layout": "arpa"},
            "corpus": {"path": str(home / "text.txt"), "fractions": [1.0, 0.0, 0.0]},
            "counts": {"order": 3},
        }
        return train(ExperimentConfig.parse(config), home / "run", "cpu")


@pytest.fixture(scope="session")
def byte_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Counts of bytes: reads anything."""
    home = tmp_path_factory.mktemp("bytes")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UNROLLED_CACHE", str(home / "cache"))
        return counted(home, "the old cat saw the dog .\nthe dog saw a cat .\n" * 30, "byte")


@pytest.fixture
def count(tmp_path: Path) -> MakeRun:
    """Make a run of counts over a text: ``count(text, tokenizer)``."""
    return lambda content, tokenizer="char", name="counts": counted(tmp_path / name, content, tokenizer)
