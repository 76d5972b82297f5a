"""Per-token files: exact, verified, streamed."""

import gzip
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from unrolled.core.errors import UnrolledError
from unrolled.evaluate import PerTokenHeader, PerTokenWriter, read_per_token


def write(path: Path, ids: list[int], log_prob: list[float], block: int = 3) -> PerTokenHeader:
    array, figures = np.array(ids, np.int64), np.array(log_prob)
    header = PerTokenHeader.parse(
        {
            "tokens": len(ids),
            "first_position": 0,
            "ids_sha256": hashlib.sha256(array.tobytes()).hexdigest(),
            "protocol": {},
            "provenance": {"corpus": "tiny"},
        }
    )
    with PerTokenWriter(path, header, compress=path.suffix == ".gz") as writer:
        for low in range(0, len(ids), block):
            writer.append(array[low : low + block], figures[low : low + block])
    return header


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.lists(st.tuples(st.integers(0, 2**31), st.floats(max_value=0, allow_nan=False)), min_size=1))
@pytest.mark.parametrize("name", ["x.tsv", "x.tsv.gz"])
def test_every_float_comes_back_exactly(tmp_path, name, rows):
    ids, log_prob = [i for i, _ in rows], [p for _, p in rows]
    header = write(tmp_path / name, ids, log_prob)
    back = read_per_token(tmp_path / name)
    assert back.header == header
    assert back.ids.tolist() == ids
    assert back.log_prob.tobytes() == np.array(log_prob, np.float64).tobytes()


def test_the_file_is_what_the_documentation_says(tmp_path):
    path = tmp_path / "x.tsv"
    write(path, [17, 3], [-4.605170185988091, -0.1])
    lines = path.read_text().split("\n")
    assert lines[0] == "# unrolled per-token 1"
    assert lines[1].startswith('# {"tokens": 2')
    assert lines[2:5] == ["id\tlog_prob", "17\t-4.605170185988091", "3\t-0.1"]
    assert lines[5] == "# end " + hashlib.sha256(np.array([-4.605170185988091, -0.1]).tobytes()).hexdigest()
    assert lines[6:] == [""]


def test_equal_figures_give_equal_compressed_bytes(tmp_path):
    for name in ("a.tsv.gz", "b.tsv.gz"):
        write(tmp_path / name, [1, 2, 3, 4], [-1.0, -2.0, -3.0, -4.5])
    first, second = ((tmp_path / name).read_bytes() for name in ("a.tsv.gz", "b.tsv.gz"))
    assert first == second
    assert first[4:8] == bytes(4)  # the time in the gzip header
    assert b"-4.5" in gzip.decompress(first)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("-0.25", "-0.26", "checksum"),
        ("12\t", "13\t", "checksum"),
        ("12\t-0.25\n", "", "cut short: 3 of 4"),
        ("# end ", "# END ", "checksum"),
        ("-0.25", "many", "damaged"),
        ("per-token 1", "per-token 9", "format 9"),
        ("# unrolled", "# other", "not a per-token file"),
        ('"tokens": 4', '"tokens": "x"', "damaged"),
        ("id\tlog_prob", "word\tlog_prob", "damaged"),
    ],
)
def test_changed_files_are_refused(tmp_path, old, new, message):
    path = tmp_path / "x.tsv"
    write(path, [10, 11, 12, 13], [-1.5, -2.5, -0.25, -3.0])
    text = path.read_text()
    assert text.count(old) == 1
    path.write_text(text.replace(old, new))
    with pytest.raises(UnrolledError, match=message):
        read_per_token(path)


@pytest.mark.parametrize("name", ["x.tsv", "x.tsv.gz"])
def test_files_cut_short_are_refused(tmp_path, name):
    path = tmp_path / name
    write(path, list(range(50)), [-n / 7 for n in range(50)])
    whole = path.read_bytes()
    for size in range(0, len(whole) - 1, 37):
        path.write_bytes(whole[:size])
        with pytest.raises(UnrolledError):
            read_per_token(path)
    with pytest.raises(UnrolledError, match="does not exist"):
        read_per_token(tmp_path / "none.tsv")


def test_a_writer_that_gets_too_few_tokens_says_so(tmp_path):
    header = write(tmp_path / "x.tsv", [1, 2], [-1.0, -1.0])
    with pytest.raises(UnrolledError, match="1 of 2"), PerTokenWriter(tmp_path / "y.tsv", header) as writer:
        writer.append(np.array([1]), np.array([-1.0]))
