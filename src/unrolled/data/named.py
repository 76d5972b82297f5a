"""A corpus from one string, as people type it."""

from pathlib import Path

from unrolled.core.errors import UsageError
from unrolled.core.registry import nearest
from unrolled.data.corpora import CorpusConfig
from unrolled.data.table import CORPORA

__all__ = ["corpus_named"]


def corpus_named(text: str) -> CorpusConfig:
    """A name of the table, or else the path of one's own text (file, folder or glob pattern).

    Raises:
        UsageError: neither; names the nearest known corpus.
    """
    if text in CORPORA:
        return CorpusConfig.parse({"name": text})
    if any(sign in text for sign in "/.*?~") or Path(text).exists():
        return CorpusConfig.parse({"path": text})
    near = nearest(text, CORPORA)
    hint = f"did you mean {near!r}?" if near else "see `unrolled corpora list`."
    raise UsageError(f"{text!r} is neither a known corpus nor an existing file; {hint}")
