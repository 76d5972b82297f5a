"""What a text is: UTF-8 without a byte-order mark, whose lines end with a line feed.

Every text that a user gives is read by this one rule: corpora of his own, texts and tables to score, pairs, prompts,
standard input. The corpora of the table are read as they are, to the byte, since published figures rest on them.
"""

import re
from typing import Literal

from unrolled.core.errors import UsageError
from unrolled.core.notes import note
from unrolled.core.packed import check_is_text

__all__ = ["BLANKS", "PlainText", "Reading", "decode_text", "not_utf8", "tell_blanks"]

Reading = Literal["text", "exact"]

BLANKS = b" \t\v\f\r"
"""What stands between words, beside line ends: white space of ASCII, as for SRILM, KenLM and ``str.split``."""

MARK = b"\xef\xbb\xbf"
# no-break space, next line, ogham, en quad to hair space, line and paragraph separator, narrow no-break, mathematical
# and ideographic space
_ODD_BLANKS = re.compile(rb"\xc2[\x85\xa0]|\xe1\x9a\x80|\xe2\x80[\x80-\x8a\xa8\xa9\xaf]|\xe2\x81\x9f|\xe3\x80\x80")


class PlainText:
    """Applies the rule to the blocks of texts, and tells at the end what it changed.

    Args:
        remedy: how a user has the bytes read as they are, such as "corpus.reading=exact"; None where nothing does.
    """

    def __init__(self, remedy: str | None = None):
        self.remedy = remedy
        self._seen: dict[str, list[str]] = {}

    def start(self, head: bytes, source: str) -> None:
        """The first bytes of a text. Raises UsageError where they are those of another kind of file."""
        check_is_text(head, source, self.remedy)

    def plain(self, data: bytes, source: str) -> bytes:
        """A block, which begins and ends at whole lines, words or characters, as the rule has it."""
        if MARK in data:
            data = data.replace(MARK, b"")
            self._see("mark", source)
        if b"\r" in data:
            whole = data.replace(b"\r\n", b"\n")
            if len(whole) < len(data):
                self._see("crlf", source)
            if b"\r" in whole:
                whole = whole.replace(b"\r", b"\n")
                self._see("cr", source)
            data = whole
        if b"\0" in data:
            self._see("nul", source)
        return data

    def _see(self, kind: str, source: str) -> None:
        sources = self._seen.setdefault(kind, [])
        if source not in sources[-1:]:
            sources.append(source)

    def tell(self) -> None:
        """One sentence for each kind of change."""
        keep = f" ({self.remedy} keeps every byte)" if self.remedy else ""
        said = {
            "mark": ("holds a byte-order mark, which is no part of a text and is left out", ""),
            "crlf": ("has lines that end with CR LF, which is read as LF", keep),
            "cr": ("has lines that end with CR, which is read as LF", keep),
            "nul": ("holds NUL bytes, as no text does; is it one?", keep),
        }
        for kind, sources in self._seen.items():
            more = f" (and {len(sources) - 1:,} more)" if len(sources) > 1 else ""
            sentence, end = said[kind]
            note(f"{sources[0]}{more} {sentence}{end}")


def not_utf8(source: str, at: int, line: int | None = None, remedy: str = "") -> UsageError:
    """The error for text that is not UTF-8 at byte ``at``."""
    where = f"byte {at}" if line is None else f"byte {at}, in line {line}"
    return UsageError(f"{source} is not UTF-8 at {where}; convert it to UTF-8{remedy}.")


def decode_text(data: bytes, source: str, remedy: str | None = None, file: bool = True) -> str:
    """A whole text that was read at once, by the rule.

    Args:
        file: it comes from a file, whose first bytes may tell that it is of another kind; what is typed is text.
    Raises:
        UsageError: not UTF-8 (names byte and line), or another kind of file.
    """
    rule = PlainText(remedy)
    if file:
        rule.start(data[:16], source)
    try:
        data.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(source, error.start, data.count(b"\n", 0, error.start) + 1) from error
    text = rule.plain(data, source).decode("utf-8")
    rule.tell()
    return text


def tell_blanks(data: bytes, source: str) -> bool:
    """Tell of white space beyond ASCII, which does not divide words; whether there was any."""
    if data.isascii() or _ODD_BLANKS.search(data) is None:
        return False
    note(
        f"{source} holds no-break spaces or other white space beyond ASCII, which does not divide words here (as for "
        "KenLM and SRILM); replace it by plain spaces where it should"
    )
    return True
