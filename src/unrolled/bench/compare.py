"""Two records side by side."""

from typing import Any

from pydantic import Field

from unrolled.bench.figures import Spread
from unrolled.bench.record import BenchRecord, RowRecord
from unrolled.core.config import Config

__all__ = ["Comparison", "Pair", "Single", "compare_records"]


class Pair(Config):
    """A row that was measured in both."""

    row: RowRecord = Field(description="the row of B")
    seconds_before: Spread = Field(description="seconds of one call in A")
    share_before: Spread = Field(description="share of the peak in A")
    ratio: float = Field(description="median share in B over that in A; above 1, B makes more of its machine")


class Single(Config):
    """A row without a counterpart to be compared with."""

    row: RowRecord = Field(description="the row")
    only_in: str = Field(description="A or B, where it was measured")
    why: str = Field(description="what the other record says of it")


class Comparison(Config):
    """All rows that were measured in A or in B."""

    environments: dict[str, dict[str, Any]] = Field(description="versions and hardware of A and B")
    warning: str | None = Field(description="why shares of A and B are not of the same thing; None where they are")
    pairs: tuple[Pair, ...] = Field(description="rows of both, in B's order")
    singles: tuple[Single, ...] = Field(description="rows of one")

    def as_json(self) -> dict[str, Any]:
        """The comparison as plain JSON values."""
        return {"kind": "bench comparison", **self.model_dump(mode="json")}


def compare_records(a: BenchRecord, b: BenchRecord) -> Comparison:
    """Match the rows by cell, backend, precision, sizes and pass.

    Shares are compared, not times: each is relative to what its machine did in that moment.
    """
    before, after = ({row.key(): row for row in record.rows} for record in (a, b))
    pairs, singles = [], []
    for key, row in after.items():
        old = before.get(key)
        if row.seconds is None or row.share is None:
            continue
        if old is None or old.seconds is None or old.share is None:
            singles.append(Single(row=row, only_in="B", why=_why("A", old)))
            continue
        ratio = row.share.median / old.share.median
        pairs.append(Pair(row=row, seconds_before=old.seconds, share_before=old.share, ratio=ratio))
    for key, row in before.items():
        new = after.get(key)
        if row.seconds is not None and (new is None or new.seconds is None):
            singles.append(Single(row=row, only_in="A", why=_why("B", new)))
    environments = {"A": a.environment, "B": b.environment}
    return Comparison(environments=environments, warning=_warning(a, b), pairs=tuple(pairs), singles=tuple(singles))


def _warning(a: BenchRecord, b: BenchRecord) -> str | None:
    """Peaks of other sizes are other peaks."""
    odd = [kind for kind in a.peaks if kind in b.peaks and _size(a, kind) != _size(b, kind)]
    if not odd:
        return None
    sizes = ", ".join(f"{kind} {_size(a, kind):,} and {_size(b, kind):,}" for kind in odd)
    return f"A and B measured the peak at other sizes ({sizes}), so that their shares are of other peaks."


def _size(record: BenchRecord, kind: str) -> int:
    """Older records measured every peak at the size of their settings."""
    setting = f"{kind}_bytes" if kind in ("copy", "read") else "peak_size"
    return record.peaks[kind].size or record.config.get(setting, 0)


def _why(name: str, row: RowRecord | None) -> str:
    return f"not in {name}" if row is None else f"{row.status} in {name}: {row.reason}"
