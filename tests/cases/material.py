"""A trigram model whose figures are worked out by hand, and runs of counts over a text."""

import math
from collections.abc import Sequence
from pathlib import Path

from unrolled.train import ExperimentConfig, train

ARPA = """\\data\\
ngram 1=8
ngram 2=7
ngram 3=4

\\1-grams:
-99\t<s>\t-0.30103
-1.2\t</s>
-2.0\t<unk>\t0
-0.6\tthe\t-0.5
-1.0\tcat\t-0.2
-1.1\tdog\t-0.25
-1.3\tsaw\t-0.15
-0.9\t.\t-0.4

\\2-grams:
-0.2\t<s> the\t-0.1
-0.5\tthe cat\t-0.12
-0.55\tthe dog\t-0.05
-0.3\tcat saw\t-0.22
-0.25\tsaw the\t-0.33
-0.45\tdog .\t-0.02
-0.05\t. </s>

\\3-grams:
-0.15\t<s> the cat
-0.1\tthe cat saw
-0.2\tsaw the dog
-0.01\tdog . </s>

\\end\\
"""
VOCABULARY = "</s>\n<unk>\nthe\ncat\ndog\nsaw\n.\n"
SENTENCES = "the cat saw the dog .\nthe dog saw . cat\n"
NATS = 18.2595
"""What KenLM gives for the two sentences."""
_ORDER = 3


def _table() -> dict[tuple[str, ...], tuple[float, float]]:
    """N-gram -> decimal logarithms of probability and backoff."""
    found = {}
    for line in ARPA.splitlines():
        fields = line.split("\t")
        if len(fields) > 1:
            found[tuple(fields[1].split())] = (float(fields[0]), float(fields[2]) if len(fields) > 2 else 0.0)
    return found


_GRAMS = _table()


def _log_prob(context: Sequence[str], word: str) -> float:
    gram = (*context, word)
    if gram in _GRAMS:
        return _GRAMS[gram][0]
    if not context:
        return _GRAMS[("<unk>",)][0]
    return _GRAMS.get(tuple(context), (0.0, 0.0))[1] + _log_prob(context[1:], word)


def by_hand(text: str, ends: bool = True) -> list[float]:
    """Bits of every word of lines with ARPA's backoff, each line from ``<s>``; with ``ends``, its end too."""
    bits: list[float] = []
    for line in text.splitlines():
        words = [word if (word,) in _GRAMS else "<unk>" for word in line.split()]
        seen = ["<s>"]
        for word in [*words, "</s>"]:
            bits.append(-_log_prob(seen[-_ORDER + 1 :], word) * math.log2(10))
            seen.append(word)
        if not ends:
            bits.pop()
    return bits


def counted(home: Path, content: str | bytes, tokenizer: str = "char") -> Path:
    """A run of counts over all of a text, in ``home``."""
    home.mkdir(exist_ok=True)
    (home / "own.txt").write_bytes(content if isinstance(content, bytes) else content.encode())
    config = {
        "tokenizer": {"name": tokenizer},
        "corpus": {"path": str(home / "own.txt"), "fractions": [1.0, 0.0, 0.0]},
        "counts": {"order": 3},
    }
    return train(ExperimentConfig.parse(config), home / "run", "cpu")


def rows(out: str) -> list[dict[str, str]]:
    """A table that was printed."""
    header, *lines = (line.split("\t") for line in out.removesuffix("\n").split("\n"))
    return [dict(zip(header, line, strict=True)) for line in lines]


def bits(out: str) -> list[float]:
    """The column of surprisals."""
    return [float(row["surprisal_bits"]) for row in rows(out)]


def total(err: str) -> float:
    """The nats of the summary."""
    return float(err.splitlines()[-1].split(": ")[1].split()[0])
