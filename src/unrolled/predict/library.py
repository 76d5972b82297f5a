"""Documents as a model has read them: a state for each, and their words."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import torch
from pydantic import Field
from torch import Tensor

from unrolled.core import tree
from unrolled.core.config import VersionedConfig
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_folder, make_folder, read_bounded, sha256_file
from unrolled.predict.bm25 import BM25, words_of
from unrolled.predict.retriever import Index
from unrolled.predict.static import NeuralPredictor
from unrolled.predict.stores import check_model

__all__ = ["DOCUMENTS", "DocumentsInfo", "Library", "open_library", "states_of", "write_library"]

DOCUMENTS, _STATES, _WORDS = "documents.json", "states.safetensors", "words.txt"
_ROWS, _TOKENS, _MOST_WORDS = 64, 1024, 1 << 30


class DocumentsInfo(VersionedConfig):
    """What the documents were read by."""

    kind: ClassVar[str] = "unrolled documents"

    weights: str = Field(description="sha256 of the model's weights")
    tokenizer: str = Field(description="fingerprint of the tokenizer")
    documents: int = Field(ge=1, description="how many there are")
    tokens: int = Field(ge=1, description="in all of them")
    states_sha256: str = Field(default="", description="sha256 of the file of states")
    words_sha256: str = Field(default="", description="sha256 of the file of words")


class Library(NamedTuple):
    """states: of the model after each document, every tensor (documents, ...). index: gives them scores. words: theirs.
    text: checksum of the text that they are the whole of, if they are. learned: checksum of the text that the index was
    trained on, if it was; told: what is known of that, for records."""

    states: Any
    index: Index
    words: tuple[tuple[str, ...], ...] = ()
    text: str = ""
    learned: str = ""
    told: Mapping[str, float] = {}

    @property
    def count(self) -> int:
        """Documents."""
        return self.index.count


def states_of(model: NeuralPredictor, documents: Sequence[Tensor]) -> Any:
    """The state after each document, from the start symbol on; every tensor (documents, ...).

    Args:
        documents: ids (n,) of each; those of one length are read side by side.
    """
    order = sorted(range(len(documents)), key=lambda index: len(documents[index]))
    parts, low = [], 0
    while low < len(order):
        length, high = len(documents[order[low]]), low
        while high < len(order) and high - low < _ROWS and len(documents[order[high]]) == length:
            high += 1
        ids = torch.stack([documents[index] for index in order[low:high]]).to(model.device)
        state = model.begin(len(ids))
        for part in ids.split(_TOKENS, 1):
            state = model.consume(state, part)
        parts.append(state)
        low = high
    back = torch.tensor(order).argsort()
    return tree.select_rows(tree.map_tree(lambda *each: torch.cat(each), *parts), back)


def write_library(path: Path, info: DocumentsInfo, states: Any, texts: Sequence[str]) -> DocumentsInfo:
    """Write a folder that appears whole, or not at all. Raises UsageError where something is there already."""
    if path.exists() or path.is_symlink():
        raise UsageError(f"{path} exists; name another folder with --out.")
    make_folder(path.parent)
    with atomic_folder(path) as part:
        tree.save_tree(part / _STATES, states)
        (part / _WORDS).write_text("".join(" ".join(words_of(text)) + "\n" for text in texts), encoding="utf-8")
        sums = {"states_sha256": sha256_file(part / _STATES), "words_sha256": sha256_file(part / _WORDS)}
        info = info.model_copy(update=sums)
        info.save(part / DOCUMENTS)
    return info


def open_library(folder: Path, identity: Mapping[str, str], model: NeuralPredictor) -> Library:
    """Documents that ``unrolled store --documents`` kept.

    Raises:
        UsageError: none, or those of another model. UnrolledError: damaged files.
    """
    if not (folder / DOCUMENTS).is_file():
        raise UsageError(f"{folder} is no store of documents; make one with `unrolled store --documents`.")
    info = DocumentsInfo.load(folder / DOCUMENTS)
    check_model(folder, info.weights, info.tokenizer, identity)
    words = read_bounded(folder / _WORDS, _MOST_WORDS)
    if (sha256_file(folder / _STATES), sha256_file(folder / _WORDS)) != (info.states_sha256, info.words_sha256):
        raise UnrolledError(f"{folder} is damaged; make the store anew with `unrolled store --documents`.")
    lines = words.decode("utf-8").split("\n")[:-1]
    begun = model.begin(1)
    like = tree.map_tree(lambda value: value.expand(len(lines), *value.shape[1:]), begun)
    states = tree.unflatten(tree.load_tensors(folder / _STATES, model.device), like)
    if len(lines) != info.documents:
        raise UnrolledError(f"{folder} is damaged; make the store anew with `unrolled store --documents`.")
    states = tree.map_tree(lambda value, wanted: value.to(wanted.dtype), states, like)
    given = tuple(tuple(re.split(" +", line)) if line else () for line in lines)
    return Library(states, BM25(given), given)
