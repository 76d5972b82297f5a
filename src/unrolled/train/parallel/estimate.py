"""What a run of several processes keeps in memory and sends, by arithmetic; measured nowhere."""

from typing import Any, NamedTuple

from unrolled.train.parallel.config import ParallelConfig

__all__ = ["Shares", "estimate"]

_FLOAT, _LOWERED = 4, 2


class Shares(NamedTuple):
    """What is shared. parameters: of the model. largest: of the largest group that fsdp gathers at once. optimizer:
    tensors of a parameter's size that the optimiser keeps, and the average's. state: numbers carried from window to
    window by one column. columns: of the run."""

    parameters: int
    largest: int
    optimizer: int
    state: int
    columns: int


def estimate(shares: Shares, config: ParallelConfig, processes: int, kind: str) -> dict[str, Any]:
    """Bytes of one process.

    ``memory_bytes_a_process_at_least`` holds weights, gradients, the optimiser's tensors and the carried state, with
    fsdp also the two largest groups while they are whole; activations are not in it. ``traffic_bytes_a_step`` is what a
    process sends in an optimiser step: with ddp one ring all-reduce of the gradients; with fsdp two gathers of the
    weights and one scatter of the gradients, and between replicas an all-reduce of what it holds.
    ``training_state_bytes`` is of all processes together.

    Args:
        kind: ddp or fsdp.
    """
    travels = _LOWERED if config.reduce == "bf16" else _FLOAT
    carried = _FLOAT * shares.state * shares.columns
    kept = _FLOAT * shares.parameters * (2 + shares.optimizer)
    if kind == "ddp":
        memory = kept
        traffic = 2 * (processes - 1) / processes * travels * shares.parameters
    else:
        group = processes // config.replicas
        memory = kept / group + 2 * _FLOAT * shares.largest
        traffic = (group - 1) / group * (2 * _FLOAT + travels) * shares.parameters
        traffic += 2 * (config.replicas - 1) / config.replicas * travels * shares.parameters / group
    saved = carried if config.carried == "save" else 0
    return {
        "processes": processes,
        "kind": kind,
        "memory_bytes_a_process_at_least": round(memory + carried / processes),
        "traffic_bytes_a_step": round(traffic),
        "carried_bytes_a_process": round(carried / processes),
        "training_state_bytes": _FLOAT * shares.parameters * (1 + shares.optimizer) + saved,
    }
