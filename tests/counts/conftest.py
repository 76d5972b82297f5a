"""The Penn Treebank, where it is at hand."""

import gzip
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest


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
