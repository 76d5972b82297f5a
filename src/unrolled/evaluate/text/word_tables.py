"""Tables with one word a line: which column, how quotes are meant, how words join to a text."""

import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Literal, NamedTuple

from unrolled.core.errors import UsageError
from unrolled.core.notes import note
from unrolled.core.registry import unknown_name
from unrolled.data.fields import Fields, column_of
from unrolled.data.plain import tell_blanks
from unrolled.data.reading import Part, Piece, read_parts
from unrolled.data.scripts import joins_without_space
from unrolled.evaluate.text.words import Place, TextBlock, Unit

__all__ = ["JOINS", "QUOTES", "ROW", "WordTable", "line_of_words", "read_words"]

ROW = (
    "file", "line", "index", "offset", "word", "token", "tokens", "unknown", "surprisal_bits", "entropy_bits", "rank",
    "top",
)  # fmt: skip
"""Names of what is written of a word or token; the columns of a table that are kept stand beside them."""
JOINS = ("script", "space", "none")
QUOTES = ("plain", "fields")
_SPACES = " \t\v\f"


class WordTable(NamedTuple):
    """How a table is read: tab-separated, with a header, or one word a line without one.

    Attributes:
        column: name of the column with the words; None for one word a line without a header.
        keep: columns whose fields come along. line_by: a line of the text ends where this column changes.
        join: what stands between two words of a line: a space; nothing (none); or, by the script of the signs that
            meet, nothing beside Han, Kana, Thai, Lao, Khmer, Myanmar or Tibetan, else a space.
        quotes: quotation marks around a whole field are characters of it (plain), or mark where the field begins and
            ends, as in CSV (fields: what R and spreadsheets write); None refuses such a field, unless the whole header
            is quoted, which only a program does.
    """

    column: str | None = None
    keep: tuple[str, ...] = ()
    line_by: str | None = None
    join: Literal["script", "space", "none"] = "script"
    quotes: Literal["plain", "fields"] | None = None

    def check(self) -> None:
        """Raises UsageError for columns where the table has no header, or whose names the rows need for themselves."""
        for kind, value, known in (("join", self.join, JOINS), ("quotes", self.quotes or QUOTES[0], QUOTES)):
            if value not in known:
                raise unknown_name(kind, value, known)
        if self.column is None and (self.keep or self.line_by):
            raise UsageError(
                "columns are kept and end lines only in a table with a header; name its words with --column."
            )
        for name in self.keep:
            if name in ROW:
                raise UsageError(f"a column named {name!r} cannot be kept, since the rows have one; rename it first.")


def read_words(part: Part, table: WordTable, spaced: bool = False) -> Iterator[TextBlock]:
    """A text given as one word a line; a blank line ends a line of the text, and so does the end of the file.

    Every word that is read gives one unit of kind word, in order. Two blank lines make a blank line in the text, which
    divides documents. A header with one name less than the rows have fields is what R writes; the first field of a row
    is then its name.

    Args:
        spaced: words are joined by spaces whatever their script, since the tokenizer knows words by spaces.
    Raises:
        UsageError: not UTF-8; an unknown column; a row with another number of fields or without a word; quotation
            marks that may mean either thing.
    """
    table.check()
    place, rows, last = Place(), _Rows(part.name, table), ""
    told = joined = False
    for lines in itertools.chain(_lines(read_parts([part], utf8=True)), [None]):
        made = _Made(place, "space" if spaced and table.join == "script" else table.join)
        for line in lines or ():
            row = rows.read(line)
            if row is None:
                continue
            if not row:
                made.add("\n")
                continue
            told = told or tell_blanks(row[0].encode(), part.name)
            if table.line_by is not None and place.words and row[1] != last:
                made.add("\n")
            last = row[1]
            made.add(row[0], tuple(row[2:]))
        if lines is None and place.words:
            made.add("\n")
        if made.unspaced and table.join == "script" and not joined:
            joined = True
            note(f"{part.name}: words in a script without spaces are joined without spaces; --join says otherwise")
        if made.units:
            yield TextBlock("".join(made.text).encode(), made.units)


def line_of_words(words: Sequence[str], join: str = "script", spaced: bool = False) -> TextBlock:
    """A text of one line, as :func:`read_words` makes it of a table with these words; its last unit is the line end.

    Args:
        words: one or more, without line ends. join, spaced: see :class:`WordTable` and :func:`read_words`.
    """
    made = _Made(Place(), "space" if spaced and join == "script" else join)
    for word in [*words, "\n"]:
        made.add(word)
    return TextBlock("".join(made.text).encode(), made.units)


class _Rows:
    """The lines of a table as they come: header, blank lines, rows."""

    def __init__(self, name: str, table: WordTable):
        self.name, self.table = name, table
        self.number = 0
        self.places: list[int] = []
        self.rows = Fields(name, 0)
        self.quotes = table.quotes

    def read(self, line: str) -> list[str] | None:
        """The word of a row, what ends lines, and what is kept; empty for a blank line, None for the header."""
        self.number += 1
        if self.table.column is not None and not self.places:
            self._header(line)
            return None
        if not line.strip(_SPACES):
            return []
        fields = self._fields(line)
        if self.table.column is None:
            if len(fields) > 1:
                raise UsageError(f"{self._where()} has several columns; name the one with the words with --column.")
            picked = [fields[0], ""]
        else:
            fields = self.rows.of(fields, self._where())
            picked = [fields[place] for place in self.places]
        picked[0] = picked[0].strip(_SPACES)
        if not picked[0]:
            raise UsageError(f"{self._where()} has no word; leave a sentence's end wholly blank.")
        return picked

    def _where(self) -> str:
        return f"line {self.number} of {self.name}"

    def _header(self, line: str) -> None:
        raw, column = line.split("\t"), self.table.column or ""
        if len(raw) == 1 and raw[0] != column and any(sign in raw[0] for sign in ",;"):
            raise UsageError(f"{self.name} is not separated by tabs; save it as tab-separated text.")
        if self.quotes is None and all(_quoted(field) for field in raw):
            self.quotes = "fields"
        header = self._fields(line)
        wanted = [column, self.table.line_by or column, *self.table.keep]
        self.places = [column_of(header, column, self.name) for column in wanted]
        self.rows = Fields(self.name, len(header))

    def _fields(self, line: str) -> list[str]:
        fields = line.split("\t")
        if self.quotes == "plain":
            return fields
        if self.quotes is None:
            if any(_quoted(field) for field in fields):
                raise UsageError(
                    f"{self._where()} has a field in quotation marks; say what they are: --quotes plain (characters of "
                    "the word), or --quotes fields (put there by the program that wrote the table)."
                )
            return fields
        found, held = [], None
        for field in fields:  # a quoted field may hold tabs
            held = field if held is None else f"{held}\t{field}"
            whole = _unquoted(held)
            if whole is not None:
                found.append(whole)
                held = None
        if held is not None:
            raise UsageError(
                f"{self._where()} opens quotation marks that it does not close; correct it, or say --quotes plain."
            )
        return found


def _quoted(field: str) -> bool:
    return len(field) > 1 and field[0] == field[-1] == '"'


def _unquoted(field: str) -> str | None:
    """The content of a field that may be in quotation marks; None where they are not closed.

    Marks inside are doubled, as in CSV, or follow a backslash, as R writes them unless it is asked for CSV.
    """
    if not field.startswith('"'):
        return field
    inner = field[1:-1]
    if not _quoted(field):
        return None
    if '"' not in inner.replace('""', ""):
        return inner.replace('""', '"')
    if '"' not in inner.replace('\\"', "") and not inner.endswith("\\"):
        return inner.replace('\\"', '"')
    return None


class _Made:
    """A block under way. unspaced: whether two words were joined for their script's sake."""

    def __init__(self, place: Place, join: str):
        self.place, self.join, self.size, self.unspaced = place, join, 0, False
        self.text: list[str] = []
        self.units: list[Unit] = []

    def add(self, word: str, kept: tuple[str, ...] = ()) -> None:
        """A word after what joins it to the one before, unless it begins a line; or a line end."""
        place, data = self.place, word.encode()
        space = " " if place.words and word != "\n" and self._spaced(word) else ""
        self.size += len(space) + len(data)
        place.characters += len(space)
        self.units.append(place.unit(data, place.characters, self.size, kept))
        place.characters += len(word)
        place.last = word[-1]
        self.text += [space, word]

    def _spaced(self, word: str) -> bool:
        if self.join != "script":
            return self.join == "space"
        unspaced = joins_without_space(self.place.last, word[0])
        self.unspaced |= unspaced
        return not unspaced


def _lines(pieces: Iterable[Piece]) -> Iterator[Sequence[str]]:
    """Whole lines, as many as have arrived."""
    held = b""
    for piece in pieces:
        *whole, held = (held + piece.data).split(b"\n")
        yield [line.decode() for line in whole]
    if held:
        yield [held.decode()]
