"""Memory and traffic of a process, against figures worked out by hand."""

from typing import Any

import pytest

from unrolled.train.parallel.config import ParallelConfig
from unrolled.train.parallel.estimate import Shares, estimate

LARGE = Shares(1_600_000_000, 60_000_000, 2, 66_560, 1024)


def of(kind: str, processes: int = 64, **options: Any) -> dict[str, Any]:
    return estimate(LARGE, ParallelConfig(**options), processes, kind)


def test_the_figures_of_the_page() -> None:
    ddp, fsdp = of("ddp", reduce="bf16"), of("fsdp", reduce="bf16")
    carried = 4 * 66_560 * 1024 // 64
    assert ddp["carried_bytes_a_process"] == fsdp["carried_bytes_a_process"] == carried
    assert ddp["memory_bytes_a_process_at_least"] - carried == 25_600_000_000
    assert ddp["traffic_bytes_a_step"] == 2 * 63 * 3_200_000_000 // 64
    assert fsdp["memory_bytes_a_process_at_least"] - carried == 400_000_000 + 2 * 4 * 60_000_000
    assert fsdp["traffic_bytes_a_step"] == 63 * 10 * 1_600_000_000 // 64
    assert ddp["training_state_bytes"] - 64 * carried == 12 * 1_600_000_000


def test_replicas_hold_more_and_send_less_within() -> None:
    one, eight = of("fsdp"), of("fsdp", replicas=8)
    assert eight["memory_bytes_a_process_at_least"] > one["memory_bytes_a_process_at_least"]
    within, between = 7 / 8 * 12 * 1.6e9, 2 * 7 / 8 * 4 * 1.6e9 / 8
    assert eight["traffic_bytes_a_step"] == pytest.approx(within + between)


def test_dropped_states_are_not_saved() -> None:
    assert of("ddp", carried="drop")["training_state_bytes"] == 12 * 1_600_000_000


def test_one_process_sends_nothing() -> None:
    assert of("ddp", processes=1)["traffic_bytes_a_step"] == 0
