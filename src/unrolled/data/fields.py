"""Rows of a user's table under its header: as many fields each, whichever program wrote them."""

from collections.abc import Sequence

from unrolled.core.errors import UsageError
from unrolled.core.notes import note
from unrolled.core.registry import unknown_name

__all__ = ["Fields", "column_of"]


def column_of(header: Sequence[str], column: str, source: str) -> int:
    """The place of a column. Raises UsageError where the header lacks its name, or has it twice."""
    if column not in header:
        raise unknown_name(f"column of {source}:", column, header)
    if header.count(column) > 1:
        raise UsageError(f"{source} has several columns named {column!r}; rename all but one.")
    return header.index(column)


class Fields:
    """Holds the rows of a table to its header.

    R writes a name before each row and none of it in the header: where the first row has one field more than the
    header, the first field of every row is such a name. Empty cells beyond the header, as spreadsheets write them, are
    left out.

    Args:
        source: what to call the table in messages. width: fields of the header.
    """

    def __init__(self, source: str, width: int):
        self.source, self.width = source, width
        self._named: bool | None = None

    def of(self, row: Sequence[str], where: str) -> list[str]:
        """The fields of a row, one for each of the header. where: its line. Raises UsageError for more or fewer."""
        row = list(row)
        if self._named is None:
            self._named = len(row) == self.width + 1 and bool(row[-1])
            if self._named:
                note(
                    f"{self.source}: its rows have one field more than its header, as R writes them; the first field "
                    "is taken for the row's name, and the header for the others"
                )
        fields = self.width + self._named
        while len(row) > fields and not row[-1]:
            row.pop()
        if len(row) != fields:
            raise UsageError(
                f"{where} has {len(row)} field(s), {'fewer' if len(row) < fields else 'more'} than the header "
                f"({fields}); correct it."
            )
        return row[1:] if self._named else row
