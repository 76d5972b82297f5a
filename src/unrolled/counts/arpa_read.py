"""Reading n-gram models of other tools: the ARPA format of SRILM, KenLM's lmplz and others."""

import os
from array import array
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from unrolled.core.bounded import bounded_lines
from unrolled.core.errors import UnrolledError, UsageError
from unrolled.core.files import regular_file
from unrolled.core.packed import BROKEN, open_packed
from unrolled.core.registry import shown
from unrolled.counts.arpa import BEGIN, END
from unrolled.counts.config import MOST_ORDERS, NgramConfig
from unrolled.counts.ngrams import NgramModel, Table, find
from unrolled.counts.store import check_tables

__all__ = ["read_arpa"]

_UNKNOWN = "<unk>"
_ENDS = (END, "<eos>", "\n")
_LN10 = float(np.log(10))


class _Grams(NamedTuple):
    """The n-grams of one order as they lie in the file: words (n, order), log_prob and backoff (n,) in nats."""

    words: np.ndarray
    log_prob: np.ndarray
    backoff: np.ndarray


def read_arpa(path: str | os.PathLike[str], words: Sequence[str], start_id: int | None = None) -> NgramModel:
    """Read a model, plain or compressed by gzip, bzip2 or xz (whatever its name).

    Where the file holds the end symbol by the name that ``words`` gives it, the model is ``continuous``; else
    ``</s>`` is the end symbol and ``<s>`` what opens a text (``reset``). All of ``words`` need to be in the file. An
    ``<unk>`` that ``words`` lacks is left out, so that probabilities sum to less than one by what it held; any
    other word that ``words`` lacks is refused.

    Args:
        words: the names of the ids.
        start_id: the end symbol; default: the word ``</s>``, ``<eos>`` or newline, whichever there is.
    Raises:
        UsageError: no end symbol among ``words``; ``start_id`` outside them.
        UnrolledError: missing or damaged file; the file's words are not those of ``words``.
    """
    path, words = Path(path), list(words)
    if start_id is None:
        found = [words.index(name) for name in _ENDS if name in words]
        if not found:
            raise UsageError("the vocabulary has no word </s> or <eos>; name the end symbol by start_id.")
        start_id = found[0]
    if not 0 <= start_id < len(words):
        raise UsageError(f"start_id {start_id} is outside the vocabulary of {len(words)}.")
    path = regular_file(path)
    try:
        with open_packed(path) as file:
            orders = _read(bounded_lines(file, path.stat().st_size), path, _Names(words, start_id))
    except (OSError, ValueError, IndexError, OverflowError, *BROKEN) as error:
        raise UnrolledError(f"{path} is damaged, or no file in the ARPA format; write it again.") from error
    return _build(orders, words, start_id, path)


class _Names:
    """Numbers of the words in a file: ids; BEGIN, END and UNKNOWN where ``words`` does not name them."""

    def __init__(self, words: list[str], start_id: int):
        self.size = len(words)
        self.ids = {word.encode(): index for index, word in enumerate(words)}
        self.begin, self.end, self.unknown = (
            self.ids.setdefault(name.encode(), self.size + offset) for offset, name in enumerate((BEGIN, END, _UNKNOWN))
        )


def _read(lines: Iterator[bytes], path: Path, names: _Names) -> list[_Grams]:
    sizes, line = [], b""
    if not any(line.strip() == b"\\data\\" for line in lines):
        raise ValueError("no \\data\\")
    for line in lines:
        if line.startswith(b"ngram "):
            order, _, size = line[6:].partition(b"=")
            sizes.append(int(size))
            if int(order) != len(sizes) or len(sizes) > MOST_ORDERS:
                raise ValueError("orders")
        elif line.strip():
            break
    orders = []
    for order, size in enumerate(sizes, start=1):
        if line.strip() != b"\\%d-grams:" % order:
            raise ValueError("section")
        grams, line = _section(lines, order, names, path)
        if len(grams.words) != size:
            raise UnrolledError(
                f"{path} is damaged: it announces {size} n-grams of order {order} and holds {len(grams.words)}; "
                "write it again."
            )
        orders.append(grams)
    if line.strip() != b"\\end\\" or not orders:
        raise ValueError("end")
    return orders


def _section(lines: Iterator[bytes], order: int, names: _Names, path: Path) -> tuple[_Grams, bytes]:
    """The n-grams of one order, and the line that follows them."""
    known, words, log_prob, backoff = names.ids, array("q"), array("d"), array("d")
    line = b""
    for line in lines:
        parts = line.split()
        if not parts:
            continue
        if line.startswith(b"\\") and len(parts) == 1:
            break
        log_prob.append(float(parts[0]))
        try:
            words.extend([known[word] for word in parts[1 : order + 1]])
        except KeyError as error:
            name = error.args[0].decode("utf-8", errors="replace")
            raise UnrolledError(
                f"{path} holds the word {shown(name)}, which the vocabulary lacks; use its words."
            ) from error
        backoff.append(float(parts[order + 1]) if len(parts) > order + 1 else 0.0)
        if not order < len(parts) < order + 3:
            raise ValueError("columns")
    columns = np.array(words, np.int64).reshape(-1, order)
    with np.errstate(over="ignore"):  # what is no number any more is refused with the tables
        return _Grams(columns, np.array(log_prob) * _LN10, np.array(backoff) * _LN10), line


def _build(orders: list[_Grams], words: list[str], start_id: int, path: Path) -> NgramModel:
    """Tables from n-grams in any order."""
    names = _Names(words, start_id)
    first = orders[0].words[:, 0]
    # By its own name, other than </s>, the end symbol is a word among words; as </s>, where n-grams begin with it.
    inner = any(bool((grams.words[:, :-1] == start_id).any()) for grams in orders[1:])
    continuous = inner if names.end == start_id else start_id in first
    opened = orders[0].backoff[first == names.begin].sum()  # of <s>
    tables: list[Table] = []
    for order, grams in enumerate(orders, start=1):
        ids = grams.words.copy()
        if not continuous:
            # <s> first and </s> last become the one id; elsewhere they stay what they are, and are refused.
            ids[:, -1][ids[:, -1] == names.end] = start_id
            if order > 1:
                ids[:, 0][ids[:, 0] == names.begin] = start_id
        kept = (ids < names.size).all(1)
        nameless = (ids == names.unknown).any(1) & (names.unknown >= names.size)
        if order > 1 and not (kept | nameless).all():
            raise UnrolledError(
                f"{path} holds an n-gram of order {order} with <s> or </s> in its midst; train on one sentence a line."
            )
        ids, log_prob, backoff = ids[kept], grams.log_prob[kept], grams.backoff[kept]
        if order == 1 and not continuous:
            backoff[ids[:, 0] == start_id] = opened
        tables.append(_table(tables, ids, log_prob, backoff, names.size, path))
        if order == 1:
            missing = np.setdiff1d(np.arange(names.size), tables[0].keys)
            if len(missing):
                raise UnrolledError(
                    f"{path} lacks the word {shown(words[missing[0]])}; use the vocabulary of the file."
                )
    tables[-1] = tables[-1]._replace(backoff=np.zeros(0))
    config = NgramConfig(
        order=len(tables),
        vocab_size=names.size,
        start_id=start_id,
        sentences="continuous" if continuous else "reset",
    )
    model = NgramModel(config, tuple(tables))
    check_tables(model, path)
    return model


def _table(
    lower: list[Table], ids: np.ndarray, log_prob: np.ndarray, backoff: np.ndarray, size: int, path: Path
) -> Table:
    keys = ids[:, 0]
    for table, column in zip(lower, ids.T[1:], strict=True):
        at = find(table.keys, keys)
        if len(at) and at.min() < 0:
            raise UnrolledError(
                f"{path} holds an n-gram of order {len(lower) + 1} whose first {len(lower)} token(s) it lacks; "
                "write it again, by a tool that keeps the beginning of each n-gram."
            )
        keys = at * size + column
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    if bool((np.diff(keys) == 0).any()):
        raise UnrolledError(f"{path} holds an n-gram of order {len(lower) + 1} twice; write it again.")
    return Table(keys, log_prob[order], backoff[order])
