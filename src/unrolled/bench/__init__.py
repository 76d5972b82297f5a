"""Speed, memory and share of the machine's peak: cells by every backend, beside peers."""

from unrolled.bench.compare import compare_records
from unrolled.bench.config import BenchConfig
from unrolled.bench.peak import peak_speed
from unrolled.bench.record import BenchRecord
from unrolled.bench.report import (
    bench_markdown,
    bench_table,
    comparison_lines,
    comparison_markdown,
    comparison_table,
    machine_lines,
    reasons,
)
from unrolled.bench.run import run_bench

__all__ = [
    "BenchConfig",
    "BenchRecord",
    "bench_markdown",
    "bench_table",
    "compare_records",
    "comparison_lines",
    "comparison_markdown",
    "comparison_table",
    "machine_lines",
    "peak_speed",
    "reasons",
    "run_bench",
]
