"""N-gram models in the ARPA format, which SRILM, KenLM and others read and write.

The tables hold one id for the end of a sentence and for what stands before its first token; the format has two
words. A model whose contexts begin anew at each sentence (``reset``) is written with ``</s>`` for the end symbol
where it is predicted and ``<s>`` where it opens an n-gram. In a ``continuous`` model the end symbol is a word
like any other, written by its own name, and ``<s>`` and ``</s>`` stand in the file only because readers ask for
them, with log-probability -99 ("never"). ``<unk>`` is a word like any other, too.
"""

import gzip
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import IO

import numpy as np

from unrolled.core.errors import UsageError
from unrolled.core.files import atomic_write
from unrolled.core.registry import shown
from unrolled.counts.ngrams import NgramModel, Table

__all__ = ["BEGIN", "END", "write_arpa"]

BEGIN, END = "<s>", "</s>"
_NEVER = "-99"
_BLOCK = 1 << 16
_LN10 = float(np.log(10))


def write_arpa(model: NgramModel, words: Sequence[str], path: str | os.PathLike[str]) -> None:
    """Write a model, gzipped where the name ends in ``.gz``.

    Figures are decimal logarithms of 12 digits: what is read back differs by less than 1e-11 of a log-probability.

    Args:
        words: the V names of the ids. Raises UsageError where they are not V different words, hold a space or are
            ``<s>``, or ``</s>`` for another id than ``start_id``.
    """
    words = list(words)
    _check_words(words, model)

    def write(part: Path) -> None:
        with part.open("wb") as raw:
            # No name and no time in the gzip header: equal models give equal bytes.
            packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if Path(path).suffix == ".gz" else None
            file: IO[bytes] | gzip.GzipFile = packed or raw
            for line in _lines(model, words):
                file.write(line.encode())
            if packed is not None:
                packed.close()

    atomic_write(path, write)


def _check_words(words: list[str], model: NgramModel) -> None:
    if len(words) != model.vocab_size:
        raise UsageError(f"{len(words)} words for a vocabulary of {model.vocab_size}; use the tokenizer of the model.")
    if len(set(words)) != len(words):
        raise UsageError("a word stands for two ids; the ARPA format needs one word per id.")
    for index, word in enumerate(words):
        # Readers divide a line at the white space of ASCII only.
        if word.encode().split() != [word.encode()]:
            raise UsageError(f"the ARPA format cannot hold the word {shown(word)}: empty, or with white space.")
        if word == BEGIN or (word == END and index != model.config.start_id):
            raise UsageError(f"the word {word!r} has a meaning of its own in the ARPA format; rename it.")


def _lines(model: NgramModel, words: list[str]) -> Iterator[str]:
    start, resets = model.config.start_id, model.config.sentences == "reset"
    # Readers refuse an order without n-grams, which a text of short sentences may give.
    tables = list(model.tables)
    while not len(tables[-1].keys):
        tables.pop()
    opening, closing = list(words), list(words)
    opened = 0.0
    if resets:
        opening[start], closing[start] = BEGIN, END
        if len(tables) > 1:
            # The backoff of the one id belongs to what opens an n-gram.
            backoff = tables[0].backoff.copy()
            opened, backoff[start] = backoff[start], 0.0
            tables[0] = tables[0]._replace(backoff=backoff)
    marks = [f"{_NEVER}\t{BEGIN}\t{_decimal(opened)}\n"]
    if END not in closing:
        marks.append(f"{_NEVER}\t{END}\n")
    yield "\\data\\\n"
    for order, table in enumerate(tables, start=1):
        yield f"ngram {order}={len(table.keys) + (len(marks) if order == 1 else 0)}\n"
    contexts = [""]
    for order, table in enumerate(tables, start=1):
        yield f"\n\\{order}-grams:\n"
        yield from marks if order == 1 else ()
        last = order == len(tables)
        grams: list[str] = []
        for low in range(0, len(table.keys), _BLOCK):
            part = Table(*(column[low : low + _BLOCK] for column in table))
            numbers, ids = (column.tolist() for column in np.divmod(part.keys, model.vocab_size))
            texts = [contexts[number] + closing[index] for number, index in zip(numbers, ids, strict=True)]
            yield "".join(_records(part, texts, last))
            if not last:
                names = texts if order > 1 else [opening[index] for index in ids]
                grams += [f"{text} " for text in names]
        contexts = grams
    yield "\n\\end\\\n"


def _records(table: Table, texts: list[str], last: bool) -> Iterable[str]:
    log_prob = map(_decimal, table.log_prob.tolist())
    if last:
        return (f"{value}\t{text}\n" for value, text in zip(log_prob, texts, strict=True))
    backoff = map(_decimal, table.backoff.tolist())
    return (f"{p}\t{text}\t{b}\n" for p, text, b in zip(log_prob, texts, backoff, strict=True))


def _decimal(nats: float) -> str:
    """A natural logarithm as a decimal one."""
    return f"{nats / _LN10:.12g}"
