"""The text that a probe reads: tokens of a corpus's split or of a file, and the bytes that each token stands for."""

import hashlib
from typing import Any, NamedTuple

import numpy as np

from unrolled.core.errors import UsageError
from unrolled.data import CorpusConfig, TokenSplit
from unrolled.data.reading import text_part
from unrolled.evaluate import read_text
from unrolled.runs import Run
from unrolled.tokenizer import Tokenizer

__all__ = ["Passage", "PassageText", "passage_of", "passage_of_run", "passage_text"]


class Passage(NamedTuple):
    """ids: (n,) int64. starts: ascending positions where a text begins, the first of them 0. origin: plain JSON."""

    ids: np.ndarray
    starts: np.ndarray
    origin: dict[str, Any]

    def segments(self, window: int) -> list[tuple[int, int, bool]]:
        """(start, stop, whether a text begins there) of windows in which no text begins but at their start."""
        found = []
        for low, high in zip(self.starts.tolist(), [*self.starts[1:].tolist(), len(self.ids)], strict=True):
            found += [(at, min(at + window, high), at == low) for at in range(low, high, window)]
        return found


class PassageText(NamedTuple):
    """data: the bytes of all tokens (m,) uint8. ends: (n,) where each token ends in them."""

    data: np.ndarray
    ends: np.ndarray


def passage_of(tokens: TokenSplit, limit: int | None = None, **origin: Any) -> Passage:
    """The first ``limit`` tokens of a split; ``origin`` says where they are from."""
    ids = tokens.ids(0, len(tokens) if limit is None else limit)
    starts = np.zeros(1, np.int64) if tokens.starts is None else np.asarray(tokens.starts, np.int64)
    starts = np.union1d(starts[starts < len(ids)], [0])
    return Passage(ids, starts, {**origin, "text_sha256": tokens.checksum, "tokens": len(ids)})


def passage_of_run(
    run: Run,
    text: str | None = None,
    corpus: CorpusConfig | str | None = None,
    split: str = "test",
    limit: int | None = None,
) -> Passage:
    """What a run is to read.

    Args:
        text: a file (compressed too), ``-`` for standard input; absent: a split of a corpus.
        corpus: its config, name or path; absent: the run's own.
        limit: only the first so many tokens.
    Raises:
        UsageError: no such file, corpus or split; a text that the tokenizer cannot read, or without a token.
    """
    if text is None:
        name, tokens, _ = run.to_measure(split, corpus)
        return passage_of(tokens, limit, corpus=name, split=split)
    if corpus is not None:
        raise UsageError("give a text or a corpus, not both.")
    part = text_part(text)
    tokenizer, held, digest, last, count = run.tokenizer, [], hashlib.sha256(), b"", 0
    for block in read_text(part, utf8=not tokenizer.reads_bytes, blanks=tokenizer.blanks):
        digest.update(block.data)
        last = block.data
        held.append(tokenizer.encode_block(last).ids)
        count += len(held[-1])
        if limit is not None and count >= limit:
            break
    else:
        held.append(tokenizer.end_document(last).ids if last else np.zeros(0, np.int64))
    ids = np.concatenate(held)[:limit]
    if not len(ids):
        raise UsageError(f"{part.name} is empty; give a text with words in it.")
    origin = {"text": part.name, "text_sha256": digest.hexdigest(), "tokens": len(ids)}
    return Passage(ids, np.zeros(1, np.int64), origin)


def passage_text(tokenizer: Tokenizer, passage: Passage) -> PassageText:
    """The text as the model reads it: an unknown word is the unknown symbol's name."""
    pieces: list[bytes] = []
    for low, high in zip(passage.starts.tolist(), [*passage.starts[1:].tolist(), len(passage.ids)], strict=True):
        decoder = tokenizer.decoder()
        pieces += map(decoder.bytes_of, passage.ids[low:high].tolist())
    ends = np.cumsum([len(piece) for piece in pieces], dtype=np.int64)
    return PassageText(np.frombuffer(b"".join(pieces), np.uint8), ends)
