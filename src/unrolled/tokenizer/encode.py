"""Joins corpus and tokenizer: trains tokenizers and keeps the token files of corpora in the cache."""

import contextlib
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import tokenizers

from unrolled.core.config import Config
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import atomic_folder, make_folder, sha256_file, write_json
from unrolled.core.places import cache_folder
from unrolled.data.built import BuiltCorpus
from unrolled.data.corpus import Corpus
from unrolled.data.tokens import Encoded, TokenSplit, TokenWriter
from unrolled.tokenizer import TOKENIZERS, load_tokenizer, save_tokenizer
from unrolled.tokenizer.base import Tokenizer
from unrolled.tokenizer.word import vocabulary_file

__all__ = ["encode_corpus", "encode_split", "load_or_train_tokenizer", "write_split"]

# Of the files, and of the rules by which text is read: what older rules made is not used.
_FORMAT = 2
_ABANDONED = 24 * 3600.0


def load_or_train_tokenizer(config: Config, corpus: Corpus) -> Tokenizer:
    """The tokenizer of a configuration for a corpus, from the cache if the same text trained it before.

    Raises:
        UsageError: the training text does not fit (not UTF-8, empty).
    """
    if isinstance(corpus, BuiltCorpus):
        found = load_tokenizer(corpus.tokenizer_file)
        if found.config != config:
            raise UsageError(
                f"{corpus.folder} was built with another tokenizer ({corpus.default_tokenizer.get('name')}) than is "
                "asked for; leave out the tokenizer's settings, or build the corpus with these."
            )
        return found
    cls = TOKENIZERS[config.name]  # type: ignore[attr-defined]
    if not cls.needs_training(config):
        return cls.train(config, ())
    key = [
        _FORMAT,
        cls.version,
        config.model_dump(mode="json"),
        corpus.checksum("train"),
        tokenizers.__version__,
    ]
    pinned = getattr(config, "vocabulary", None)
    if pinned and vocabulary_file(pinned).is_file():
        key.append(sha256_file(vocabulary_file(pinned)))
    path = cache_folder("tokenizers") / f"{_digest(key)}.json"
    with contextlib.suppress(UnrolledError):  # missing, or damaged on the disk: made anew
        return load_tokenizer(path)
    tokenizer = cls.train(config, corpus.blocks("train", text=not cls.reads_bytes))
    save_tokenizer(tokenizer, path)
    return tokenizer


def encode_corpus(
    corpus: Corpus,
    tokenizer: Tokenizer,
    folder: Path | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> dict[str, TokenSplit]:
    """Token files of every split of a corpus; made once, then found again by content.

    Two processes may ask at once: both get whole files. A process killed half-way leaves only a temporary
        folder.

    Args:
        folder: where to keep them; default: the cache.
        progress: called with a split and the bytes of it encoded so far.
    Returns:
        Split -> tokens; of train those that the corpus's ``limit_tokens`` leaves.
    Raises:
        UsageError: text that the tokenizer cannot read.
    """
    if isinstance(corpus, BuiltCorpus):
        return _limited(corpus, corpus.tokens(tokenizer.tables, tokenizer.fingerprint()))
    root = make_folder(folder) if folder is not None else cache_folder("tokens")
    home = root / _digest([_FORMAT, corpus.fingerprint(), tokenizer.fingerprint()])
    if not home.exists():
        _sweep(home)
        try:
            with atomic_folder(home) as part:
                tokens = {s: sum(write_split(corpus, s, tokenizer, part, progress)) for s in corpus.splits}
                write_json(part / "meta.json", {"splits": {s: {"tokens": n} for s, n in tokens.items()}})
        except UsageError:
            raise
        except UnrolledError:
            # Another process finished the same files first: a folder cannot be renamed onto a full one.
            if not (home / "meta.json").exists():
                raise
    splits = {s: TokenSplit.open(home, s, tokenizer.tables, corpus.checksum(s)) for s in corpus.splits}
    for name, split in splits.items():
        periods = corpus.periods(name)
        if periods is not None and split.starts is not None and len(split.starts) == len(periods):
            split.periods = np.array(periods, np.int64)
    return _limited(corpus, splits)


def _limited(corpus: Corpus, splits: dict[str, TokenSplit]) -> dict[str, TokenSplit]:
    if corpus.limit_tokens is not None and "train" in splits:
        splits["train"] = splits["train"].first(corpus.limit_tokens)
    return splits


def encode_split(corpus: Corpus, split: str, tokenizer: Tokenizer) -> Iterator[tuple[Encoded, bool, int]]:
    """A split's tokens block by block.

    Yields:
        Tokens (perhaps none), whether a document begins with them, and the bytes of text read for them.
    Raises:
        UsageError: text that the tokenizer cannot read.
    """
    last = b""
    for piece in corpus.pieces(split, text=not tokenizer.reads_bytes):
        if piece.begins and last:
            yield tokenizer.end_document(last), False, 0
        yield tokenizer.encode_block(piece.data), piece.begins, len(piece.data)
        last = piece.data
    if last:
        yield tokenizer.end_document(last), False, 0


def write_split(
    corpus: Corpus,
    split: str,
    tokenizer: Tokenizer,
    folder: Path,
    progress: Callable[[str, int], None] | None,
    shard: int | None = None,
) -> list[int]:
    """Encode one split into ``folder``; returns the tokens of each of its files, see :class:`TokenWriter`."""
    line_ends = np.array([piece.endswith(b"\n") for piece in tokenizer.pieces])
    fresh, done = True, 0
    with TokenWriter(folder, split, tokenizer.vocab_size, corpus.reset != "none", shard) as writer:
        for encoded, begins, size in encode_split(corpus, split, tokenizer):
            fresh, done = fresh or begins, done + size
            if len(encoded.ids):
                starts = np.zeros(len(encoded.ids), bool)
                starts[0], fresh = fresh, False
                if corpus.reset == "line":
                    ended = line_ends[encoded.ids]
                    starts[1:] |= ended[:-1]
                    fresh = bool(ended[-1])
                writer.append(encoded, np.flatnonzero(starts))
            if progress is not None and size:
                progress(split, done)
        if not writer.length:
            raise UsageError(f"the {split} text of corpus {corpus.name} has no tokens; give a text with words in it.")
        return writer.sizes


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:32]


def _sweep(home: Path) -> None:
    """Remove what processes killed long ago left of this folder."""
    for part in home.parent.glob(f".{home.name}.*.part"):
        try:
            if time.time() - part.stat().st_mtime > _ABANDONED:
                shutil.rmtree(part, ignore_errors=True)
        except FileNotFoundError:
            continue
