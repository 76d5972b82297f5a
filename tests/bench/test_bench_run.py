"""Plan, run and record."""

from typing import Any

import pytest

from unrolled.bench import BenchConfig, BenchRecord, bench_markdown, bench_table, machine_lines, reasons, run_bench
from unrolled.bench.measure import Sample
from unrolled.bench.peak import KINDS
from unrolled.bench.plan import Row, Sizes, label, peers_of, plan
from unrolled.bench.run import ratios
from unrolled.bench.subjects import make_cell
from unrolled.cells import CELLS
from unrolled.core.errors import UsageError
from unrolled.kernels import cell_loop

SMALL: dict[str, Any] = {
    "widths": (8,), "batches": (2,), "windows": (4,), "repeats": 2,
    "peak_size": 16, "copy_bytes": 400, "least_seconds": 1e-6,
}  # fmt: skip


def rows_of(**options: Any) -> list[Row]:
    return plan(BenchConfig.parse({**SMALL, **options}), lambda config: make_cell(config, 8))


def named(rows: list[Row]) -> list[tuple[str, str, str]]:
    return [(row.subject, row.backend, row.precision) for row in rows]


def test_plan_and_peers() -> None:
    rows = rows_of(cells=("lstm", "mgru"), backends=("generic",))
    assert named(rows) == [
        ("lstm", "generic", "float32"),
        ("lstm", "reference", "float32"),
        ("lstm", "published", "float32"),
        ("torch.nn.LSTM", "torch.nn", "float32"),
        ("mgru", "generic", "float32"),
        ("mgru", "reference", "float32"),
        ("mgru", "published", "float32"),
        ("torch.nn.GRU", "torch.nn", "float32"),
    ]
    assert len(rows_of(cells=("lstm", "mlstm"), backends=("generic",))) == 7, "one torch.nn.LSTM serves both"
    assert named(rows_of(cells=("lstm",), backends=("reference",), peers=False)) == [("lstm", "reference", "float32")]
    sizes = rows_of(cells=("lstm",), backends=("generic",), peers=False, widths=(8, 9), windows=(1, 2), batches=(1, 3))
    assert len({row.sizes for row in sizes}) == len(sizes) == 8
    assert [
        row.mode for row in rows_of(cells=("rnn",), backends=("generic",), peers=False, passes=("step", "both"))
    ] == [
        "step",
        "both",
    ]


def test_backends_where_none_is_named() -> None:
    found = [backend for _, backend, _ in named(rows_of(cells=("lstm",), peers=False))]
    assert found == [name for name in make_cell(CELLS["lstm"].Config(), 8).backends() if name != "reference"]
    assert {"generic", "fused", "torch"} <= set(found)
    assert ("diag_scan", "reference", "float32") in named(rows_of(cells=("diag_scan",)))
    assert ("diag_scan", "reference", "float32") not in named(rows_of(cells=("diag_scan",), peers=False))
    assert ("qrnn", "published", "float32") not in named(rows_of(cells=("qrnn",))), "it has no step"


def test_bf16_is_compared_with_float32() -> None:
    row = rows_of(cells=("lstm",), backends=("generic",), precisions=("bf16",))[0]
    assert named([row]) == [("lstm", "generic", "bf16")]
    peers = peers_of(row)
    assert named([peers[name] for name in ("reference", "published", "torch.nn", "float32")]) == [
        ("lstm", "reference", "bf16"),
        ("lstm", "published", "bf16"),
        ("torch.nn.LSTM", "torch.nn", "float32"),
        ("lstm", "generic", "float32"),
    ]


def test_label() -> None:
    assert label(CELLS.parse("mogrifier")) == "mogrifier"
    config = CELLS.parse({"name": "mogrifier", "rounds": 4, "cell": {"name": "gru"}})
    assert label(config) == "mogrifier(cell=gru, rounds=4)"


def test_ratios() -> None:
    sizes = Sizes(8, 2, 4)
    row = Row("mlstm", CELLS.parse("mlstm"), "generic", "float32", sizes, "both")
    torch_row = Row("torch.nn.LSTM", None, "torch.nn", "float32", sizes, "both")
    times = {
        row: [1.0, 2.0, 4.0],
        row._replace(backend="reference"): [2.0, 4.0, 8.0],
        row._replace(backend="published"): [3.0, 6.0, 12.0],
        torch_row: [1.0, 2.0, 4.0],
    }
    # at equal widths the mLSTM has a quarter more arithmetic than the LSTM
    assert ratios(row, times) == pytest.approx({"reference": 2.0, "published": 3.0, "torch.nn": 1.25})
    assert ratios(torch_row, times) == {}
    low = row._replace(precision="bf16")
    assert ratios(low, {**times, low: [0.5, 1.0, 2.0]}) == pytest.approx({"float32": 2.0, "torch.nn": 2.5})


def test_a_run() -> None:
    heard = []
    options = {**SMALL, "cells": ("lstm", "diag_scan"), "passes": ("both", "step"), "precisions": ("float32", "bf16")}
    config = BenchConfig.parse(options)
    record = run_bench(config, lambda *what: heard.append(what))
    assert BenchRecord.parse({key: getattr(record, key) for key in BenchRecord.model_fields}) == record
    by_key = {(row.subject, row.backend, row.precision, row.mode): row for row in record.rows}
    assert len(by_key) == len(record.rows)
    for row in record.rows:
        if row.status != "measured":
            assert (row.status, row.seconds, row.share, row.times, row.faster_than) == ("cannot", None, None, (), {})
            continue
        assert row.seconds is not None
        assert row.share is not None
        assert len(row.times) == record.repetitions == 2
        assert row.seconds.lower <= row.seconds.median <= row.seconds.upper
        assert row.tokens_per_second == pytest.approx(2 * 4 / row.seconds.median)
    low = by_key["lstm", "generic", "bf16", "both"]
    assert set(low.faster_than) == {"reference", "published", "torch.nn", "float32"}
    assert set(by_key["lstm", "reference", "float32", "step"].faster_than) == {"published", "torch.nn"}
    assert set(by_key["diag_scan", "inplace", "float32", "both"].faster_than) == {"reference", "published"}
    assert by_key["lstm", "torch", "bf16", "both"].status == "cannot"
    assert by_key["diag_scan", "inplace", "float32", "step"].status == "cannot"
    assert {what for what, _, _ in heard} == {"checking", "warming up", "measuring"}
    assert heard[-1][1] == heard[-1][2]
    assert set(record.peaks) == {"float32", "bf16", "copy", "read"}
    for peak in record.peaks.values():
        assert 0 < peak.lowest <= peak.median <= peak.highest
        assert peak.measured > 2
    text = "\n".join(machine_lines(record))
    assert record.environment["cpu"] in text
    assert "threads: 1" in text
    heads, rows = bench_table(record)
    assert all(len(cells) == len(heads) for cells in rows)
    assert len(rows) == len(record.rows)
    assert any("cannot run lstm: it computes in float32, not bf16" in line for line in reasons(record))
    page = bench_markdown(record).splitlines()
    assert sum(line.startswith("| ") for line in page) == len(rows) + 2
    assert len({line.count("|") for line in page if line.startswith("| ")}) == 1


def test_figures_from_given_times(monkeypatch: pytest.MonkeyPatch) -> None:
    """rnn by the generic backend, its reference, the published loop, torch's LSTM; 2 x 4 tokens of width 8."""
    times = ([1.0, 2.0, 3.0], [2.0, 4.0, 6.0], [4.0, 8.0, 12.0], [1.0, 2.0, 3.0])

    def given(works: Any, peak: Any, *rest: Any) -> list[list[Sample]]:
        peak("float32")
        return [[Sample(seconds, before=90.0, after=110.0) for seconds in row] for row in times]

    monkeypatch.setattr("unrolled.bench.run.measure", given)
    record = run_bench(BenchConfig.parse({**SMALL, "cells": ("rnn",), "backends": ("generic",)}))
    amount = 3 * 8 * 2 * 8 * (8 + 8)
    row, reference, _, torch_row = record.rows
    assert (row.amount, torch_row.amount, record.repetitions) == (amount, 4 * amount, 3)
    assert row.seconds is not None
    assert row.share is not None
    assert torch_row.share is not None
    assert row.seconds.model_dump() == {"median": 2.0, "lower": 1.5, "upper": 2.5}
    assert row.share.median == pytest.approx(amount / 2.0 / 100.0)
    assert torch_row.share.median == pytest.approx(4 * row.share.median)
    assert row.tokens_per_second == 4.0
    assert row.times == (1.0, 2.0, 3.0)
    assert row.faster_than == pytest.approx({"reference": 2.0, "published": 4.0, "torch.nn": 0.25})
    assert reference.faster_than == pytest.approx({"published": 2.0, "torch.nn": 0.125})
    shown = dict(zip(*(bench_table(record)[0], bench_table(record)[1][0]), strict=True))
    assert (shown["ms"], shown["quartiles"], shown["tokens/s"]) == ("2000", "1500 to 2500", "4")
    assert (shown["x torch.nn, per operation"], shown["x reference"], shown["x published"]) == ("0.25", "2.00", "4.00")
    assert shown["share of peak"] == f"{amount / 200:.1%}"


def test_the_peak_of_a_row_is_of_its_kind() -> None:
    """Of a kind that no row is bound by there are three measurements; of the others one between two rows."""
    measured = {}
    for name, options in {
        "float32": {"cells": ("rnn",)},
        "bf16": {"cells": ("rnn",), "precisions": ("bf16",)},
        "copy": {"cells": ("diag_scan",)},
        "read": {"cells": ("rnn",), "passes": ("decode",), "vocabulary": 5},
    }.items():
        peers = name == "read"  # the model as it is, which needs no library
        config = BenchConfig.parse({**SMALL, "backends": ("reference",), "peers": peers, "repeats": 5, **options})
        measured[name] = {kind: peak.measured for kind, peak in run_bench(config).peaks.items()}
    for name, counts in measured.items():
        assert {kind: count for kind, count in counts.items() if kind != name} == dict.fromkeys({*KINDS} - {name}, 3)
        assert counts[name] >= 10


def test_a_refused_row_has_no_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    right = cell_loop.BACKENDS["generic"]

    def wrong(*arguments: Any) -> Any:
        y, final = right.run(*arguments)
        return y * 1.01, final

    monkeypatch.setitem(cell_loop.BACKENDS, "generic", right._replace(run=wrong))
    record = run_bench(BenchConfig.parse({**SMALL, "cells": ("mgru",), "backends": ("generic",)}))
    status = {row.backend: (row.status, row.seconds is None) for row in record.rows}
    assert status == {
        "generic": ("refused", True),
        "reference": ("measured", False),
        "published": ("measured", False),
        "torch.nn": ("measured", False),
    }
    assert "mgru, generic, float32: refused: output differs" in reasons(record)[0]
    assert bench_table(record)[1][0][7:] == ["refused", *[""] * (len(bench_table(record)[0]) - 8)]


def test_options_that_do_not_go_with_a_width() -> None:
    cell = {"name": "mgru", "reset": "before", "factor": 9}
    with pytest.raises(UsageError, match="reset = before"):
        run_bench(BenchConfig.parse({**SMALL, "cells": (cell,)}))
