"""What a run would cost, without running it."""

import resource
import sys
import time
from typing import Any

import torch
from torch import nn

from unrolled.core.device import pick_device
from unrolled.core.group import world_size
from unrolled.optim import AVERAGING, build_optimizer
from unrolled.task import TASKS, ClosedTask, Size
from unrolled.train.budget import plan_steps, probe
from unrolled.train.config import ExperimentConfig
from unrolled.train.parallel.engine import fits
from unrolled.train.parallel.estimate import Shares, estimate
from unrolled.train.setup import Parts, set_up

__all__ = ["dry_run", "product_speed", "timed_run"]

_PRODUCT, _PRODUCT_SECONDS = 384, 0.05
# Arithmetic of forward and backward, in units of the forward pass.
_BOTH_PASSES = 3


def dry_run(config: ExperimentConfig) -> dict[str, Any]:
    """Parameters, tokens, memory and arithmetic of a run, counted at once; no step is made.

    A corpus of the table whose counts are published, with the vocabulary that the recipe states, need not be there.

    Returns:
        JSON values. ``training_tokens``, ``tokens`` and ``steps`` are None where the text or its cost would have to be
        known. ``memory_bytes_at_least`` holds weights, gradients and the optimiser's tensors, without activations;
        ``estimated_cpu_seconds_at_least`` is the arithmetic of the first phase at the speed of a matrix product here.
        Of a run of several processes (those that a launcher has started, or ``train.parallel.shards``) also what
        :func:`unrolled.train.parallel.estimate.estimate` says.
    Raises:
        UsageError: whatever is wrong with the text or the model.
    """
    cls = TASKS[config.task.name]
    size, published = cls.size(config), [str(figure) for figure in config.published]
    facts = dict(size.facts)
    if issubclass(cls, ClosedTask):
        return {**size.facts, "published": published}
    kind, amount = config.train.phases()[0].budget()
    steps, tokens = _plan(config, size)
    largest = facts.pop("largest_group", None)
    result = {
        **facts,
        "budget": {kind: amount},
        "published": published,
        "training_tokens": size.per_epoch,
        "steps": steps,
        "tokens": tokens,
    }
    if size.parameters is not None:
        kept = 2 + _optimizer_tensors(config.train.phases()[0].optimizer)
        result["epochs"] = None if tokens is None or not size.per_epoch else tokens / size.per_epoch
        result["memory_bytes_at_least"] = 4 * size.parameters * kept
        result["flops"] = None if tokens is None or size.flops is None else _BOTH_PASSES * size.flops * tokens
        if result["flops"] is not None:
            result["estimated_cpu_seconds_at_least"] = result["flops"] / product_speed()
        processes = config.train.parallel.shards or world_size()
        if processes > 1 and largest is not None:
            state, columns = facts["state_numbers"], facts["columns"]
            averages = len(AVERAGING[config.train.averaging.name].names)
            shares = Shares(size.parameters, largest, kept - 2 + averages, state, columns)
            result |= estimate(shares, config.train.parallel, processes, _kind(config, size.parameters))
    return result if size.note is None else {**result, "corpus": size.note}


def _kind(config: ExperimentConfig, parameters: int) -> str:
    kind = config.train.parallel.kind
    return ("ddp" if fits(parameters, pick_device("auto")) else "fsdp") if kind in ("auto", "none") else kind


def _plan(config: ExperimentConfig, size: Size) -> tuple[int | None, int | None]:
    """Steps and targets of the first phase; windows of random length have the stated one on average."""
    phase, training_tokens = config.train.phases()[0], size.per_epoch
    kind, amount = phase.budget()
    per_step = (size.per_batch or 0) * phase.accumulate
    if not per_step:
        return None, None
    if kind == "steps":
        return int(amount), int(amount) * per_step
    if kind == "tokens":
        return -(-int(amount) // per_step), int(amount)
    if kind == "epochs" and training_tokens:
        return max(1, round(amount * training_tokens / per_step)), int(amount * training_tokens)
    return None, None


def _optimizer_tensors(config: Any) -> int:
    """Tensors of a parameter's size that the optimiser keeps."""
    one = nn.Parameter(torch.zeros(3, 5))
    one.grad = torch.ones_like(one)
    optimizer = build_optimizer(config, [one])
    optimizer.step()
    kept = (value for state in optimizer.state.values() for value in state.values() if isinstance(value, torch.Tensor))
    return sum(value.shape == one.shape for value in kept)


def product_speed() -> float:
    """Operations a second of a float32 matrix product on one thread, from a few that take no time."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        matrix, best = torch.ones(_PRODUCT, _PRODUCT), float("inf")
        begun = time.perf_counter()
        while time.perf_counter() - begun < _PRODUCT_SECONDS:
            at = time.perf_counter()
            torch.mm(matrix, matrix)
            best = min(best, time.perf_counter() - at)
    finally:
        torch.set_num_threads(before)
    return 2 * _PRODUCT**3 / best


def timed_run(config: ExperimentConfig, device: str = "auto") -> dict[str, Any]:
    """:func:`dry_run` with memory and time from a probe of a few steps, which may take a minute.

    Returns:
        JSON values; seconds are for the first phase, without validations; memory is the peak of this process in
        bytes, which holds weights, gradients, optimiser and activations of one window.
    """
    result, parts = dry_run(config), set_up(config, device)
    return {**result, **_probed(parts)}


def _probed(parts: Parts) -> dict[str, Any]:
    phase = parts.config.train.phases()[0]
    cost = probe(parts.task, parts.model, parts.source, phase)
    kind, amount = phase.budget()
    if kind in ("minutes", "cpu_minutes"):
        steps = max(1, int(60 * amount / (cost.cpu if kind == "cpu_minutes" else cost.wall)))
    else:
        steps = plan_steps(phase, parts.task, parts.model, parts.source, lambda _: 0.0, lambda *_: 0.0)
    tokens = steps * phase.accumulate * parts.source.tokens_per_epoch() / parts.source.windows_per_epoch()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "peak_memory_bytes": peak,
        "steps": steps,
        "tokens": int(tokens),
        "epochs": tokens / parts.source.tokens_per_epoch(),
        "seconds_per_step": cost.wall,
        "cpu_seconds_per_step": cost.cpu,
        "estimated_seconds": cost.wall * steps,
        "estimated_cpu_seconds": cost.cpu * steps,
    }
