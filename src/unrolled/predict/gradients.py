"""Statistics of gradients on a training text, for the rule rms of dynamic evaluation."""

import numpy as np
import torch
from torch import Tensor

from unrolled.core import tree
from unrolled.core.errors import UsageError
from unrolled.core.parameters import matching_parameters
from unrolled.data import TokenSplit
from unrolled.data.walk import Columns, Progress, windows
from unrolled.model import LanguageModel
from unrolled.optim.dynamic import DynamicConfig

__all__ = ["gradient_statistics"]


def gradient_statistics(
    model: LanguageModel, start_id: int, split: TokenSplit, config: DynamicConfig, progress: Progress | None = None
) -> dict[str, Tensor]:
    """Root of the mean (or sum) of squared gradients over batches of a training text, for the rule ``rms``.

    The text is read in ``config.columns`` columns, ``config.segment`` tokens at a time, with the state carried and
    without dropout; a last, shorter batch is left out.

    Returns:
        name of each parameter that adapts -> S of its shape.
    Raises:
        UsageError: too little text for one batch.
    """
    model.eval()
    parameters = matching_parameters(model, config.parameters)
    columns = Columns.cut(split, config.columns)
    wanted = columns.length // config.segment
    if not wanted:
        raise UsageError(
            f"{len(split)} tokens of training text are too few for {config.columns} columns of {config.segment}; "
            "lower dynamic.columns."
        )
    wanted = wanted if config.batches is None else min(wanted, config.batches)
    squares = {name: torch.zeros_like(p) for name, p in parameters.items()}
    state, last, nats = None, torch.full((config.columns, 1), start_id, device=model.device), 0.0
    for count, (_, array, flags) in enumerate(windows(split, columns, config.segment), 1):
        if count > wanted:
            break
        ids = torch.from_numpy(array).to(model.device)
        inputs, reset = torch.cat([last, ids[:, :-1]], 1), None
        if flags is not None:
            reset = torch.from_numpy(flags).to(model.device)
            inputs = inputs.masked_fill(reset, start_id)
        total, _, state = model.loss(inputs, ids, state, reset)
        scale = ids.numel() if config.loss == "mean" else len(ids)
        found = torch.autograd.grad(total / scale, list(parameters.values()), allow_unused=True)
        for name, gradient in zip(parameters, found, strict=True):
            if gradient is not None:
                squares[name].addcmul_(gradient, gradient)
        state, last, nats = tree.detach(state), ids[:, -1:], nats + float(total.detach()) / ids.numel()
        if progress is not None:
            progress(count, wanted, nats / count)
    if config.statistic == "mean":
        for value in squares.values():
            value.div_(wanted)
    if not all(np.isfinite(float(value.sum())) for value in squares.values()):
        raise UsageError("a gradient of the training text is not a finite number; the model's weights are damaged.")
    return {name: value.sqrt_() for name, value in squares.items()}
