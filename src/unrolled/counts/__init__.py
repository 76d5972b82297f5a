"""Count-based language models: Kneser-Ney estimation, queries, files of their own and in the ARPA format."""

from unrolled.counts.arpa import write_arpa
from unrolled.counts.arpa_read import read_arpa
from unrolled.counts.config import KneserNeyConfig, NgramConfig
from unrolled.counts.contexts import Recent
from unrolled.counts.kneser_ney import estimate_kneser_ney
from unrolled.counts.ngrams import NgramModel
from unrolled.counts.store import load_ngrams, save_ngrams

__all__ = [
    "KneserNeyConfig",
    "NgramConfig",
    "NgramModel",
    "Recent",
    "estimate_kneser_ney",
    "load_ngrams",
    "read_arpa",
    "save_ngrams",
    "write_arpa",
]
