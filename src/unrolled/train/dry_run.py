"""What a run would cost, without running it."""

import resource
import sys
import time
from typing import Any

import torch
from torch import nn

from unrolled.core.errors import UsageError
from unrolled.data import MissingCorpusError
from unrolled.data.table import CORPORA
from unrolled.model import LanguageModel
from unrolled.optim import build_optimizer
from unrolled.train.budget import plan_steps, probe
from unrolled.train.config import ExperimentConfig
from unrolled.train.setup import Parts, read_text, set_up

__all__ = ["dry_run", "dry_size", "timed_run"]

# Two vocabularies, from which the share of each id in the parameters follows.
_FEW, _MANY = 50_000, 60_000
_PRODUCT, _PRODUCT_SECONDS = 384, 0.05
# Arithmetic of forward and backward, in units of the forward pass.
_BOTH_PASSES = 3


def dry_size(config: ExperimentConfig, vocabulary: int) -> dict[str, Any]:
    """Size of the model and plan of its training, for a vocabulary size; JSON values."""
    with torch.device("meta"):
        model = LanguageModel(config.model, vocabulary)
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


def dry_run(config: ExperimentConfig) -> dict[str, Any]:
    """Parameters, tokens, memory and arithmetic of a run, counted at once; no step is made.

    A corpus of the table whose counts are published, with the vocabulary that the recipe states, need not be there.

    Returns:
        JSON values. ``training_tokens``, ``tokens`` and ``steps`` are None where the text or its cost would have to be
        known. ``memory_bytes_at_least`` holds weights, gradients and the optimiser's tensors, without activations;
        ``estimated_cpu_seconds_at_least`` is the arithmetic of the first phase at the speed of a matrix product here.
    Raises:
        UsageError: whatever is wrong with the text or the model.
    """
    vocabulary, training_tokens, note = _text(config)
    steps, tokens = _plan(config, training_tokens)
    if vocabulary is None:
        return {
            **_unknown_size(config),
            "training_tokens": training_tokens,
            "steps": steps,
            "tokens": tokens,
            "corpus": note,
        }
    size = dry_size(config, vocabulary)
    phase = config.train.phases()[0]
    result = {
        **size,
        "training_tokens": training_tokens,
        "steps": steps,
        "tokens": tokens,
        "epochs": None if tokens is None or not training_tokens else tokens / training_tokens,
        "memory_bytes_at_least": 4 * size["parameters"] * (2 + _optimizer_tensors(phase.optimizer)),
        "flops": None if tokens is None else _BOTH_PASSES * size["flops_per_token"] * tokens,
    }
    if result["flops"] is not None:
        result["estimated_cpu_seconds_at_least"] = result["flops"] / _product_speed()
    return result if note is None else {**result, "corpus": note}


def _text(config: ExperimentConfig) -> tuple[int | None, int | None, str | None]:
    """Vocabulary, training tokens (each None where unknown), and what is to be said of an absent corpus."""
    spec = None if config.corpus.own else CORPORA.get(config.corpus.label)
    published = spec.published.get("train") if spec else None
    same = spec is not None and config.tokenizer is not None and config.tokenizer.name == spec.tokenizer  # type: ignore[attr-defined]
    tokens = published.tokens if published and (config.tokenizer is None or same) else None
    try:
        text = read_text(config)
    except MissingCorpusError as error:
        return config.vocabulary, tokens, f"absent: {error}"
    return text.tokenizer.vocab_size, len(text.splits["train"]), None


def _unknown_size(config: ExperimentConfig) -> dict[str, Any]:
    """Size of a model whose vocabulary the text would tell: what the model has without it, and for each id."""
    try:
        few, many = dry_size(config, _FEW), dry_size(config, _MANY)
    except UsageError as error:
        raise UsageError(f"{str(error).rstrip('.')}; state the size with --set vocabulary=NUMBER.") from error
    per_id = (many["parameters"] - few["parameters"]) / (_MANY - _FEW)
    fixed = few["parameters"] - per_id * _FEW
    shown = f"{fixed:,.0f} and {per_id:,.0f} for each id of the vocabulary (--set vocabulary=NUMBER adds them up)"
    return {**few, "vocabulary": None, "parameters": shown, "flops_per_token": None}


def _plan(config: ExperimentConfig, training_tokens: int | None) -> tuple[int | None, int | None]:
    """Steps and tokens of the first phase; windows of random length have the stated one on average."""
    phase = config.train.phases()[0]
    per_step = config.stream.columns * config.stream.window * phase.accumulate
    kind, amount = phase.budget()
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


def _product_speed() -> float:
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
    cost = probe(parts.model, parts.stream, phase, parts.streams)
    kind, amount = phase.budget()
    if kind in ("minutes", "cpu_minutes"):
        steps = max(1, int(60 * amount / (cost.cpu if kind == "cpu_minutes" else cost.wall)))
    else:
        steps = plan_steps(phase, parts.model, parts.stream, parts.streams, lambda _: 0.0, lambda *_: 0.0)
    tokens = steps * phase.accumulate * parts.stream.tokens_per_epoch() / parts.stream.windows_per_epoch()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {
        "peak_memory_bytes": peak,
        "steps": steps,
        "tokens": int(tokens),
        "epochs": tokens / parts.stream.tokens_per_epoch(),
        "seconds_per_step": cost.wall,
        "cpu_seconds_per_step": cost.cpu,
        "estimated_seconds": cost.wall * steps,
        "estimated_cpu_seconds": cost.cpu * steps,
    }
