"""What a run would cost, without running it."""

import resource
import sys
from typing import Any

import torch

from unrolled.model import LanguageModel
from unrolled.train.budget import plan_steps, probe
from unrolled.train.config import ExperimentConfig
from unrolled.train.setup import Parts

__all__ = ["dry_run", "dry_size"]


def dry_size(config: ExperimentConfig, vocabulary: int) -> dict[str, Any]:
    """The part of :func:`dry_run` that needs no text, for a known vocabulary size."""
    with torch.device("meta"):
        return _size(LanguageModel(config.model, vocabulary), config)


def _size(model: LanguageModel, config: ExperimentConfig) -> dict[str, Any]:
    kind, amount = config.train.phases()[0].budget()
    return {
        "parameters": model.num_params(),
        "vocabulary": model.vocab_size,
        "flops_per_token": model.flops_per_token(),
        "state_numbers": sum(layer.state_size() for layer in model.stack.cells()),
        "widths": list(config.model.layer_widths()),
        "columns": config.stream.columns,
        "window": config.stream.window,
        "budget": {kind: amount},
        "published": [str(figure) for figure in config.published],
    }


def dry_run(parts: Parts) -> dict[str, Any]:
    """Parameters, memory and estimated time, from a probe of a few steps.

    Returns:
        JSON values; seconds are for the first phase, without validations; memory is the peak of this process in
        bytes, which holds weights, gradients, optimiser and activations of one window.
    """
    phase = parts.config.train.phases()[0]
    cost = probe(parts.model, parts.stream, phase, parts.streams)
    kind, amount = phase.budget()
    if kind in ("minutes", "cpu_minutes"):
        steps = max(1, int(60 * amount / (cost.cpu if kind == "cpu_minutes" else cost.wall)))
    else:
        steps = plan_steps(phase, parts.model, parts.stream, parts.streams, lambda _: 0.0, lambda _: 0.0)
    tokens = steps * phase.accumulate * parts.stream.tokens_per_epoch() / parts.stream.windows_per_epoch()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        **_size(parts.model, parts.config),
        "training_tokens": len(parts.splits["train"]),
        "peak_memory_bytes": peak,
        "steps": steps,
        "tokens": int(tokens),
        "epochs": tokens / parts.stream.tokens_per_epoch(),
        "seconds_per_step": cost.wall,
        "cpu_seconds_per_step": cost.cpu,
        "estimated_seconds": cost.wall * steps,
        "estimated_cpu_seconds": cost.cpu * steps,
    }
