"""Decoding: prepared weights beside the model as it is and beside ONNX Runtime."""

from typing import Any

import pytest
import torch

from unrolled.bench import BenchConfig, bench_table, run_bench
from unrolled.bench.check import cannot, fault
from unrolled.bench.material import Material
from unrolled.bench.onnx_peer import why_no_onnx
from unrolled.bench.plan import ONNX, PLAIN, PREPARED, Row, Sizes, plan
from unrolled.bench.subjects import amount_of, case_of, make_cell
from unrolled.cells import CELLS
from unrolled.core.errors import UsageError
from unrolled.kernels.cpu import why_no_library
from unrolled.predict import NeuralPredictor

needs_library = pytest.mark.skipif(why_no_library() is not None, reason=str(why_no_library()))
needs_onnx = pytest.mark.skipif(why_no_onnx() is not None, reason=str(why_no_onnx()))
OWN = Sizes(width=12, batch=2, window=5)
SMALL: dict[str, Any] = {
    "widths": (12,), "batches": (2,), "windows": (5,), "repeats": 2, "passes": ("decode",), "vocabulary": 30,
    "peak_size": 16, "copy_bytes": 400, "read_bytes": 400, "least_seconds": 1e-6,
}  # fmt: skip


def row(name: str = "lstm", backend: str = PREPARED, precision: str = "float32", **options: Any) -> Row:
    return Row(name, CELLS.parse({"name": name, **options}), backend, precision, OWN, "decode", 2, 30)


@needs_library
@pytest.mark.parametrize("precision", ["float32", "bf16", "int8"])
@pytest.mark.parametrize("name", ["lstm", "mlstm", "mogrifier"])
def test_prepared_weights_pass(name: str, precision: str) -> None:
    assert cannot(row(name, PREPARED, precision)) is None
    assert fault(row(name, PREPARED, precision), OWN) is None


@needs_onnx
@pytest.mark.parametrize("precision", ["float32", "int8"])
def test_the_model_in_onnx_is_the_same_model(precision: str) -> None:
    assert fault(row("lstm", ONNX, precision), OWN) is None


def test_a_wrong_model_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    material = Material(torch.float32)
    case = case_of(row("lstm", PLAIN), OWN, material)

    def wrong(one: Row, *others: Any) -> Any:
        changed = case._replace(forward=lambda: (case.forward()[0] + 1.0,))
        return changed if one.backend == PREPARED else case

    monkeypatch.setattr("unrolled.bench.check.case_of", wrong)
    for precision in ("float32", "int8"):
        assert "log-probability differs from the reference's" in str(fault(row("lstm", PREPARED, precision), OWN))


def test_what_cannot_be_decoded() -> None:
    assert "made for plain LSTMs" in str(cannot(row("lstm", ONNX, bias="two")))
    assert "no LSTM with bf16 weights" in str(cannot(row("lstm", ONNX, "bf16")))
    assert "only prepared weights" in str(cannot(row("lstm", PLAIN, "int8")))
    assert "whole models of a cell" in str(cannot(Row("diag_scan", None, PREPARED, "float32", OWN, "decode", 2, 30)))
    assert "use --pass decode" in str(cannot(row("lstm", "generic", "int8")._replace(mode="both")))
    assert cannot(row("qrnn")) is None


def test_bytes_are_those_of_the_products() -> None:
    weights = 2 * 4 * 12 * (12 + 12) + 30 * 12
    assert amount_of(row("lstm", PREPARED, "int8")) == 5 * weights
    assert amount_of(row("lstm", PREPARED, "bf16")) == 5 * 2 * weights
    assert amount_of(row("lstm", ONNX, "float32")) == 5 * 4 * weights


def test_the_rows_and_their_peers() -> None:
    config = BenchConfig.parse({**SMALL, "cells": ("lstm", "gru"), "precisions": ("float32", "bf16", "int8")})
    found = [(one.subject, one.backend, one.precision) for one in plan(config, lambda cell: make_cell(cell, 12))]
    assert found == [
        *(("lstm", PREPARED, precision) for precision in ("float32", "bf16", "int8")), ("lstm", PLAIN, "float32"),
        ("lstm", ONNX, "float32"), ("lstm", ONNX, "int8"),
        *(("gru", PREPARED, precision) for precision in ("float32", "bf16", "int8")), ("gru", PLAIN, "float32"),
    ]  # fmt: skip


@needs_library
@needs_onnx
def test_a_measurement() -> None:
    config = BenchConfig.parse({**SMALL, "cells": ("lstm",), "precisions": ("float32", "int8")})
    record = run_bench(config)
    assert [one.status for one in record.rows] == ["measured"] * 5
    int8 = next(one for one in record.rows if (one.backend, one.precision) == (PREPARED, "int8"))
    assert set(int8.faster_than) == {PLAIN, ONNX, "float32"}
    assert (int8.layers, int8.vocabulary, int8.name) == (2, 30, "2 x lstm")
    assert record.peaks["read"].measured >= 4
    assert "x ONNX Runtime" in bench_table(record)[0]


WAYS = ("temperature=0", "top_p=0.5,no_repeat=2", "beams")


@needs_library
def test_ways_of_choosing_are_timed_beside_plain_draws() -> None:
    config = BenchConfig.parse({**SMALL, "cells": ("lstm",), "vocabulary": 256, "peers": False, "ways": WAYS})
    record = run_bench(config)
    assert [(one.way, one.status) for one in record.rows] == [(way, "measured") for way in ("", "draw", *WAYS)]
    assert [set(one.faster_than) for one in record.rows] == [set(), set(), {"draw"}, {"draw"}, {"draw"}]
    assert len({one.key() for one in record.rows}) == 5
    assert record.rows[3].name == "2 x lstm, top_p=0.5,no_repeat=2"
    assert "x draws" in bench_table(record)[0]


@pytest.mark.parametrize("way", ["draw", *WAYS])
def test_a_way_writes_as_many_texts_of_so_many_bytes(monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    read: list[int] = []
    own = row(backend=PLAIN)._replace(vocabulary=256, way=way)
    case = case_of(own, OWN, Material(torch.float32))
    observe = NeuralPredictor.observe
    monkeypatch.setattr(
        NeuralPredictor, "observe", lambda self, state, ids: (read.append(len(ids)), observe(self, state, ids))[1]
    )
    with torch.no_grad():
        case.forward()
    # the last byte of a text is not read
    assert read == [OWN.batch] * (OWN.window - 1)


def test_ways_that_there_are_not_and_where_they_are_none() -> None:
    with pytest.raises(UsageError, match="did you mean 'top_p'"):
        BenchConfig.parse({**SMALL, "vocabulary": 256, "ways": ("topp=0.3",)})
    for wrong in ({"vocabulary": 30}, {"vocabulary": 256, "passes": ("both",)}):
        with pytest.raises(UsageError, match="with the pass decode over bytes"):
            BenchConfig.parse({**SMALL, **wrong, "ways": ("top_k=3",)})
