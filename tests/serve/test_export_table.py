"""The table of formats: what chooses a row, and which options it takes."""

from pathlib import Path

import pytest

from unrolled.core.errors import UsageError
from unrolled.serve.export import EXPORTS, chosen_export, export_run


@pytest.mark.parametrize("row", EXPORTS.values(), ids=list(EXPORTS))
def test_a_row_is_found_by_name_and_by_its_endings(row):
    assert chosen_export(Path("anything"), row.name) is row
    for ending in row.endings:
        assert chosen_export(Path("a/b" + ending)) is row
    assert row.describe


def test_endings_are_of_one_row_each():
    endings = [ending for row in EXPORTS.values() for ending in row.endings]
    assert len(set(endings)) == len(endings)


def test_what_chooses_nothing_is_refused():
    with pytest.raises(UsageError, match="unknown format 'arp'; did you mean 'arpa'"):
        chosen_export(Path("x"), "arp")
    with pytest.raises(UsageError, match="ending of no format"):
        chosen_export(Path("model.bin"))


def test_an_option_of_another_format_is_refused_before_anything_is_read():
    with pytest.raises(UsageError, match="--some-thing is no option of the format arpa"):
        export_run(None, Path("x.arpa"), options={"some_thing": True})  # type: ignore[arg-type]
