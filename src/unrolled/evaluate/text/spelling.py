"""Ordinary sentences in the spelling of a word-level corpus."""

import re
from collections.abc import Callable

__all__ = ["PREPARATIONS", "as_it_is", "ptb_words", "split_words"]

Known = Callable[[str], bool]
"""Whether the vocabulary has a word."""

_OUTER = ',.?!;:"()[]{}…“”«»—–`*%'
_NUMBER = re.compile(r"\d+([.,:/\\-]\d+)*")
_CLITIC = r"'s|'m|'re|'ll|'ve|'d|'"
_NEGATION = re.compile(rf"(.+?)(n't|{_CLITIC})")
_BARE_NEGATION = re.compile(rf"(.+?)('t|{_CLITIC})")
_APOSTROPHES = str.maketrans({"’": "'", "‘": "'"})


def as_it_is(sentence: str, known: Known) -> str:
    """The sentence unchanged."""
    return sentence


def ptb_words(sentence: str, known: Known) -> str:
    """A sentence in the spelling of the word-level Penn Treebank of Mikolov: lower case, no punctuation, numbers as N.

    Punctuation around a word goes; inside it (hyphens, "o'brien") it stays. The dot of an abbreviation stays where the
    vocabulary has the word with it and the sentence does not end there ("mr."). Negations, possessives and short verbs
    are words of their own ("does n't", "john 's"), and "cannot" is two.
    """
    words: list[str] = []
    quoted, pieces = False, sentence.translate(_APOSTROPHES).split()
    for place, piece in enumerate(pieces):
        if piece == "N":
            words.append(piece)
            continue
        _, word, _ = _parts(piece.lower(), known, place + 1 == len(pieces))
        if word.startswith("$"):
            words.append("$")
            word = word[1:]
        word, quoted = _unquoted(word, known, quoted)
        if _NUMBER.fullmatch(word):
            words.append("N")
        elif word == "cannot":
            words += ["can", "not"]
        elif word:
            words += _clitics(word, known, _NEGATION)
    return " ".join(words)


def split_words(sentence: str, known: Known) -> str:
    """A sentence whose punctuation is words of its own, in its own case, as in WikiText.

    Short verbs and possessives are split off as in :func:`ptb_words`, negations as the vocabulary has them ("does n't"
    or "doesn 't"). Numbers stay.
    """
    words: list[str] = []
    negation = _NEGATION if known("n't") else _BARE_NEGATION
    pieces = sentence.translate(_APOSTROPHES).split()
    for place, piece in enumerate(pieces):
        before, word, after = _parts(piece, known, place + 1 == len(pieces))
        words += before
        if word:
            words += _clitics(word, known, negation)
        words += after
    return " ".join(words)


def _parts(piece: str, known: Known, last: bool) -> tuple[list[str], str, list[str]]:
    """Punctuation before a word, the word, and punctuation after it."""
    rest = piece.lstrip(_OUTER)
    before, word = piece[: len(piece) - len(rest)], rest.rstrip(_OUTER)
    after = rest[len(word) :]
    if word and not last and after.startswith(".") and known(word + "."):
        word, after = word + ".", after[1:]
    return list(before), word, list(after)


def _unquoted(word: str, known: Known, quoted: bool) -> tuple[str, bool]:
    """The word without single quotes, and whether a quotation is open after it."""
    if word.startswith("'") and not known(word):
        word, quoted = word[1:], True
    if quoted and word.endswith("'"):
        word, quoted = word[:-1], False
    return word, quoted


def _clitics(word: str, known: Known, pattern: re.Pattern[str]) -> list[str]:
    """The word and the short words that lean on it."""
    found: list[str] = []
    while not known(word) and (split := pattern.fullmatch(word)):
        word = split.group(1)
        found.insert(0, split.group(2))
    return [word, *found]


PREPARATIONS = {"none": as_it_is, "ptb": ptb_words, "split": split_words}
"""Name of a preparation -> the function."""
