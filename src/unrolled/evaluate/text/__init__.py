"""Scoring of running text, tables of words and minimal pairs."""

from unrolled.evaluate.text.pair_files import Pair, read_pairs
from unrolled.evaluate.text.pairs import PairsConfig, PairsResult, compare_pairs
from unrolled.evaluate.text.score import score_ids, score_text
from unrolled.evaluate.text.scored import ScoreConfig, Scored
from unrolled.evaluate.text.word_tables import WordTable, line_of_words, read_words
from unrolled.evaluate.text.words import TextBlock, Unit, read_text

__all__ = [
    "Pair",
    "PairsConfig",
    "PairsResult",
    "ScoreConfig",
    "Scored",
    "TextBlock",
    "Unit",
    "WordTable",
    "compare_pairs",
    "line_of_words",
    "read_pairs",
    "read_text",
    "read_words",
    "score_ids",
    "score_text",
]
