"""What a run would cost, without running it."""

import resource
import sys
from typing import Any

from unrolled.train.budget import Clock, plan_steps, probe_seconds
from unrolled.train.setup import Parts

__all__ = ["dry_run"]


def dry_run(parts: Parts) -> dict[str, Any]:
    """Parameters, memory and estimated time, from a probe of three windows.

    Returns:
        JSON values; seconds are for the first phase, without validations; memory is the peak of this process in
        bytes, which holds weights, gradients, optimiser and activations of one window.
    """
    phase = parts.config.train.phases()[0]
    wall = probe_seconds(parts.model, parts.stream, phase, parts.streams, cpu=False)
    cpu = probe_seconds(parts.model, parts.stream, phase, parts.streams, cpu=True)
    kind, amount = phase.budget()
    if kind in ("minutes", "cpu_minutes"):
        steps = max(1, int(60 * amount / (cpu if kind == "cpu_minutes" else wall)))
    else:
        steps = plan_steps(phase, parts.model, parts.stream, parts.streams, Clock(), lambda _: 0.0)
    stream = parts.config.stream
    tokens = steps * phase.accumulate * parts.stream.tokens_per_epoch() / parts.stream.windows_per_epoch()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "parameters": parts.model.num_params(),
        "vocabulary": parts.tokenizer.vocab_size,
        "training_tokens": len(parts.splits["train"]),
        "flops_per_token": parts.model.flops_per_token(),
        "state_numbers": sum(layer.state_size() for layer in parts.model.stack.cells()),
        "peak_memory_bytes": peak,
        "columns": stream.columns,
        "window": stream.window,
        "budget": {kind: amount},
        "steps": steps,
        "tokens": int(tokens),
        "epochs": tokens / parts.stream.tokens_per_epoch(),
        "seconds_per_step": wall,
        "cpu_seconds_per_step": cpu,
        "estimated_seconds": wall * steps,
        "estimated_cpu_seconds": cpu * steps,
    }
