"""Count-based language models: Kneser-Ney estimation, queries, files of their own and in the ARPA format."""

from unrolled.counts.arpa import write_arpa
from unrolled.counts.arpa_read import read_arpa
from unrolled.counts.config import KneserNeyConfig, NgramConfig
from unrolled.counts.contexts import Recent
from unrolled.counts.kneser_ney import estimate_kneser_ney
from unrolled.counts.ngrams import NgramModel
from unrolled.counts.skip import SkipModel, SkipTable, estimate_skips
from unrolled.counts.store import load_ngrams, save_ngrams

__all__ = [
    "KneserNeyConfig",
    "NgramConfig",
    "NgramModel",
    "Recent",
    "SkipModel",
    "SkipTable",
    "estimate_kneser_ney",
    "estimate_skips",
    "load_ngrams",
    "read_arpa",
    "save_ngrams",
    "write_arpa",
]
