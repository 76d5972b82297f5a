"""Small texts with enough counts of counts, and the Penn Treebank where it is at hand."""

import gzip
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from unrolled.counts import KneserNeyConfig, NgramModel, estimate_kneser_ney

V, START = 12, 3
WORDS = ["the", "<unk>", "né", "<eos>", *(f"w{i}" for i in range(4, V))]


def make_text(length: int, seed: int = 0) -> np.ndarray:
    """Ids with a falling distribution and dependence on the token before; id 11 never appears."""
    rng = np.random.default_rng(seed)
    weights = 1 / np.arange(1, V)
    ids = [START]
    for _ in range(length):
        turned = np.roll(weights, ids[-1] % 3) + 0.3 * weights
        ids.append(int(rng.choice(V - 1, p=turned / turned.sum())))
    return np.array(ids[1:])


def estimate(ids: np.ndarray, starts: np.ndarray | None = None, **options: object) -> NgramModel:
    return estimate_kneser_ney(ids, V, START, KneserNeyConfig.parse(options), starts)


class Treebank(NamedTuple):
    """Ids of the splits; words in order of first appearance in training; the end symbol; the folder of corpora."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray
    words: list[str]
    end: int
    folder: Path


@pytest.fixture(scope="session")
def treebank() -> Treebank:
    root = os.environ.get("UNROLLED_DATA")
    if not root or not (Path(root) / "ptb" / "ptb.train.txt.gz").is_file():
        pytest.skip("ptb is not in UNROLLED_DATA")
    texts = []
    for split in ("train", "valid", "test"):
        with gzip.open(Path(root) / "ptb" / f"ptb.{split}.txt.gz", "rt", encoding="utf-8") as file:
            texts.append(file.read().replace("\n", " <eos> ").split())
    number = {word: index for index, word in enumerate(dict.fromkeys(texts[0]))}
    train, valid, test = (np.array([number[word] for word in text]) for text in texts)
    return Treebank(train, valid, test, list(number), number["<eos>"], Path(root))
