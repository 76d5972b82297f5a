"""Two records side by side, and files that are no records."""

import json
from pathlib import Path
from typing import Any

import pytest

from unrolled.bench import BenchRecord, compare_records, comparison_lines, comparison_markdown, comparison_table
from unrolled.core.errors import UnrolledError


def row(backend: str = "generic", seconds: float = 0.01, share: float = 0.5, **other: Any) -> dict[str, Any]:
    spreads = {
        key: {"median": value, "lower": value, "upper": value}
        for key, value in (("seconds", seconds), ("share", share))
    }
    described = {
        "name": "lstm", "subject": "lstm", "config": {"name": "lstm", "bias": "one"}, "backend": backend,
        "precision": "float32", "width": 8, "batch": 2, "window": 4, "mode": "both", "status": "measured", "amount": 7,
        "tokens_per_second": 3.0,
    }  # fmt: skip
    return {**described, **spreads, **other}


def refused(backend: str, **other: Any) -> dict[str, Any]:
    return {
        **row(backend, **other), "status": "refused", "reason": "it is wrong", "seconds": None, "share": None,
        "tokens_per_second": None,
    }  # fmt: skip


def record(*rows: dict[str, Any], peaks: dict[str, Any] | None = None, **config: Any) -> BenchRecord:
    return BenchRecord.parse(
        {
            "config": {"peak_size": 16, "copy_bytes": 400, **config}, "environment": {"cpu": "a fast one"},
            "native": "x", "instruction_sets": (), "repetitions": 3, "wall_seconds": 1.0, "peaks": peaks or {},
            "rows": rows,
        }
    )  # fmt: skip


def test_rows_are_matched_by_what_they_are() -> None:
    a = record(row(seconds=0.010, share=0.2), row("fused", seconds=0.020, share=0.4))
    b = record(row("fused", seconds=0.030, share=0.5), row(seconds=0.040, share=0.1))
    found = compare_records(a, b)
    assert [(pair.row.backend, pair.seconds_before.median) for pair in found.pairs] == [
        ("fused", 0.02),
        ("generic", 0.01),
    ]
    assert [pair.ratio for pair in found.pairs] == pytest.approx([1.25, 0.5])
    assert (found.singles, found.warning) == ((), None)
    heads, rows = comparison_table(found)
    assert rows[0] == ["lstm", "fused", "float32", "8", "2", "4", "both", "20", "30", "40.0%", "50.0%", "1.25", ""]
    assert len(heads) == len(rows[0])


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("subject", "gru"), ("config", {"name": "lstm", "bias": "two"}), ("backend", "fused"), ("precision", "bf16"),
        ("width", 9), ("batch", 3), ("window", 5), ("mode", "step"),
    ],
)  # fmt: skip
def test_rows_that_differ_are_not_matched(key: str, value: Any) -> None:
    found = compare_records(record(row()), record(row(**{key: value})))
    assert found.pairs == ()
    assert [(single.only_in, single.why) for single in found.singles] == [("B", "not in A"), ("A", "not in B")]
    heads, rows = comparison_table(found)
    assert [len(cells) for cells in rows] == [len(heads)] * 2
    assert rows[0][-6:] == ["", "10", "", "50.0%", "", "not in A"]
    assert rows[1][-6:] == ["10", "", "50.0%", "", "", "not in B"]


def test_the_order_of_a_cells_options_does_not_matter() -> None:
    turned = row(config={"bias": "one", "name": "lstm"})
    assert len(compare_records(record(row()), record(turned)).pairs) == 1


def test_rows_that_were_not_measured() -> None:
    a, b = record(row(), refused("fused")), record(refused("generic"), row("fused"))
    whys = [(single.row.backend, single.only_in, single.why) for single in compare_records(a, b).singles]
    assert whys == [("fused", "B", "refused in A: it is wrong"), ("generic", "A", "refused in B: it is wrong")]
    nothing = compare_records(record(refused("fused")), record(refused("fused")))
    assert (nothing.pairs, nothing.singles) == ((), ())


def peak(size: int | None) -> dict[str, Any]:
    return {"unit": "GFLOP/s", "size": size, "median": 3.0, "lowest": 2.0, "highest": 4.0, "measured": 5}


def test_other_peaks_are_said() -> None:
    def found(a: dict[str, Any], b: dict[str, Any], **config: Any) -> Any:
        return compare_records(record(row(), peaks=a), record(row(), peaks=b, **config))

    odd = found({"float32": peak(2048), "read": peak(9)}, {"float32": peak(1024), "read": peak(9), "bf16": peak(3)})
    assert "(float32 2,048 and 1,024)" in str(odd.warning)
    assert odd.warning in comparison_lines(odd)
    page = comparison_markdown(odd)
    assert "a fast one" in page
    assert page.count("\n| ") == 3
    # a record without sizes measured at those of its settings
    assert found({"float32": peak(None), "copy": peak(None)}, {"float32": peak(16), "copy": peak(400)}).warning is None
    assert "(copy 400 and 300)" in str(found({"copy": peak(None)}, {"copy": peak(300)}).warning)
    assert found({"float32": peak(16)}, {"bf16": peak(8)}, peak_size=8).warning is None, "no peak of both"


def test_a_record_goes_out_and_in(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    saved = record(row(), refused("fused"))
    saved.save(path)
    assert BenchRecord.load(path) == saved
    assert json.loads(path.read_text()) == saved.as_json()


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("{", "is not valid JSON"),
        ("[]", "is no 'bench' file"),
        ('{"kind": "lm", "version": 1}', "is no 'bench' file"),
        ('{"kind": "bench", "version": 99}', "newer release"),
        ('{"kind": "bench", "version": 1}', "is no bench record that can be read: config key 'config' is required"),
    ],
)
def test_foreign_and_damaged_files(tmp_path: Path, text: str, sentence: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(UnrolledError, match=sentence.replace("(", r"\(")) as caught:
        BenchRecord.load(path)
    assert caught.value.exit_code == 1
    with pytest.raises(UnrolledError, match="does not exist"):
        BenchRecord.load(tmp_path / "none.json")


def test_a_damaged_row(tmp_path: Path) -> None:
    value = record(row()).as_json()
    value["rows"][0]["width"] = "wide"
    path = tmp_path / "a.json"
    path.write_text(json.dumps(value))
    with pytest.raises(UnrolledError, match=r"rows\.0\.width"):
        BenchRecord.load(path)
