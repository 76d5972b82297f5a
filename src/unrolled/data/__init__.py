"""Corpora, token files and streams of windows."""

from unrolled.data.corpora import CorpusConfig, MissingCorpusError, list_corpora, open_corpus, show_corpus
from unrolled.data.corpus import Corpus
from unrolled.data.named import corpus_named
from unrolled.data.rows import Rows, rows
from unrolled.data.stream import Stream, StreamConfig, Window
from unrolled.data.tokens import Encoded, TokenSplit
from unrolled.data.units import Units, UnitTables

__all__ = [
    "Corpus",
    "CorpusConfig",
    "Encoded",
    "MissingCorpusError",
    "Rows",
    "Stream",
    "StreamConfig",
    "TokenSplit",
    "UnitTables",
    "Units",
    "Window",
    "corpus_named",
    "list_corpora",
    "open_corpus",
    "rows",
    "show_corpus",
]
