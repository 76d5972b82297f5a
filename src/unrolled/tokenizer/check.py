"""Checking a corpus: checksums of its files, counts and unigram figures beside the published ones."""

import hashlib
import math
from typing import Any

import numpy as np

from unrolled.core.registry import unknown_name
from unrolled.data.corpora import find_files, open_corpus
from unrolled.data.corpus import Corpus
from unrolled.data.reading import Part
from unrolled.data.spec import CorpusSpec, FileSpec, Published
from unrolled.data.table import CORPORA
from unrolled.data.units import Units
from unrolled.tokenizer import TOKENIZERS, Tokenizer
from unrolled.tokenizer.encode import encode_split, load_or_train_tokenizer

__all__ = ["check_corpus"]

# Published figures have six significant digits.
_CLOSE = 2e-6


def check_corpus(name: str) -> dict[str, Any]:
    """Verify a named corpus.

    Args:
        name: a name of the table; the corpus must be on this machine.
    Returns:
        JSON values: ``ok``; ``files`` with sha256 and status "ok", "mismatch" or "unknown" (no reference);
        per split the measured lines, tokens, types, words, characters, bytes and, under ``unigram``, the
        figure of the unsmoothed unigram model of train over every token (perplexity for words, else bits per
        symbol; None if a token never occurs in train); ``published`` beside them, and ``differs``: the names
        of those that differ.
    Raises:
        UsageError: unknown name, or not on this machine.
    """
    if name not in CORPORA:
        raise unknown_name("corpus", name, CORPORA)
    spec, corpus = CORPORA[name], open_corpus(name)
    files = [_check_file(file, path) for file, path in _files(spec)]
    tokenizer = load_or_train_tokenizer(TOKENIZERS.parse(spec.tokenizer), corpus)
    counts: dict[str, np.ndarray] = {}
    splits: dict[str, Any] = {}
    for split in corpus.splits:
        counts[split], measured = _count(corpus, split, tokenizer)
        measured["unigram"] = _unigram(spec, tokenizer, counts["train"], counts[split])
        splits[split] = measured | _compare(measured, spec.published.get(split))
    good = all(file["status"] != "mismatch" for file in files) and not any(s["differs"] for s in splits.values())
    return {
        "name": name,
        "ok": good,
        "tokenizer": spec.tokenizer,
        "unigram_unit": "perplexity per token" if spec.tokenizer == "word" else "bits per symbol",
        "fingerprint": corpus.fingerprint(),
        "files": files,
        "splits": splits,
    }


def _files(spec: CorpusSpec) -> list[tuple[FileSpec, Part]]:
    found = find_files(spec) or {} if not spec.embedded else {}
    return [(spec.files[key], Part(str(path), path)) for key, paths in found.items() for path in paths]


def _check_file(file: FileSpec, part: Part) -> dict[str, Any]:
    sha256, md5, size = hashlib.sha256(), hashlib.md5(usedforsecurity=False), 0
    for chunk in part.chunks():
        sha256.update(chunk)
        md5.update(chunk)
        size += len(chunk)
    pairs = [(file.sha256, sha256.hexdigest()), (file.md5, md5.hexdigest())]
    known = [expected == found for expected, found in pairs if expected]
    status = "unknown" if not known else "ok" if all(known) else "mismatch"
    return {"path": part.name, "bytes": size, "sha256": sha256.hexdigest(), "status": status}


def _count(corpus: Corpus, split: str, tokenizer: Tokenizer) -> tuple[np.ndarray, dict[str, Any]]:
    """Occurrences of each id, and the counts of a split."""
    counts = np.zeros(tokenizer.vocab_size, np.int64)
    units, previous = Units(0, 0, 0, 0), None
    for encoded, _, _ in encode_split(corpus, split, tokenizer):
        if len(encoded.ids):
            counts += np.bincount(encoded.ids, minlength=len(counts))
            units = units + tokenizer.units_of(encoded, previous)
            previous = int(encoded.ids[-1])
    lines = sum(block.count(b"\n") for block in corpus.blocks(split))
    return counts, {"lines": lines, "types": int((counts > 0).sum()), **units._asdict()}


def _unigram(spec: CorpusSpec, tokenizer: Tokenizer, train: np.ndarray, counts: np.ndarray) -> float | None:
    """Figure of the unigram model of ``train`` over ``counts``; None where it would be infinite."""
    if spec.extra_end:
        extra = np.eye(1, len(train), tokenizer.start_id, dtype=np.int64)[0]
        train, counts = train + extra, counts + extra
    seen = counts > 0
    if (train[seen] == 0).any():
        return None
    nats = -(counts[seen] * np.log(train[seen] / train.sum())).sum() / counts.sum()
    return math.exp(nats) if spec.tokenizer == "word" else float(nats) / math.log(2)


def _compare(measured: dict[str, Any], published: Published | None) -> dict[str, Any]:
    known = {key: value for key, value in vars(published).items() if value is not None} if published else {}
    differs = [
        key
        for key, value in known.items()
        if measured[key] is None or not math.isclose(measured[key], value, rel_tol=_CLOSE if key == "unigram" else 0)
    ]
    return {"published": known, "differs": differs}
