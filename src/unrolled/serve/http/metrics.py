"""Figures for Prometheus. No label holds anything of a user's text."""

from collections.abc import Iterable
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from unrolled.serve.engine.pool import Engine
from unrolled.serve.states.store import Handles

__all__ = ["Metrics"]

_SECONDS = (0.005, 0.01, 0.02, 0.04, 0.06, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 5, 10)
_ROWS = (1, 2, 4, 8, 16, 24, 32)


class Metrics:
    """Counters of one server; in a registry of its own, so that several can live in a process."""

    def __init__(self, engine: Engine, handles: Handles):
        self.registry = CollectorRegistry()
        known: dict[str, Any] = {"registry": self.registry}
        self.requests = Counter("unrolled_requests", "Requests answered.", ["path", "code"], **known)
        self.first = Histogram("unrolled_first_token_seconds", "To the first token.", buckets=_SECONDS, **known)
        self.between = Histogram("unrolled_between_tokens_seconds", "Between tokens.", buckets=_SECONDS, **known)
        self.registry.register(_Live(engine, handles))  # type: ignore[arg-type]

    def text(self) -> bytes:
        """All figures in Prometheus' text format."""
        return generate_latest(self.registry)


class _Live:
    """What is read off the engine when it is asked for."""

    def __init__(self, engine: Engine, handles: Handles):
        self._engine, self._handles = engine, handles

    def collect(self) -> Iterable[Metric]:
        """See Prometheus' client."""
        engine, handles = self._engine, self._handles
        threads = [*engine.workers, engine.scorer]
        read = sum(one.read for one in threads)
        written = sum(one.written for one in engine.workers)
        busy = sum(one.busy for one in threads)
        steps = [sum(counts) for counts in zip(*(one.steps_of for one in engine.workers), strict=True)]
        buckets = [(str(most), sum(steps[1 : most + 1])) for most in _ROWS] + [("+Inf", sum(steps[1:]))]
        rows = sum(count * times for count, times in enumerate(steps))
        yield HistogramMetricFamily("unrolled_batch_rows", "Texts that step together.", buckets, rows)
        yield GaugeMetricFamily("unrolled_streams", "Texts under way.", engine.used)
        yield GaugeMetricFamily("unrolled_queue", "Requests that wait for a place.", engine.waiting)
        yield CounterMetricFamily("unrolled_tokens_read", "Tokens read.", read)
        yield CounterMetricFamily("unrolled_tokens_written", "Tokens written.", written)
        yield CounterMetricFamily("unrolled_engine_busy_seconds", "Seconds of work, all threads together.", busy)
        yield GaugeMetricFamily("unrolled_state_bytes", "Memory of the states of handles.", handles.bytes)
        yield GaugeMetricFamily("unrolled_states", "Handles.", len(handles))
        yield CounterMetricFamily("unrolled_states_evicted", "Handles that were forgotten.", handles.evicted)
