"""The two programs of packed weights: embedding and cells, and the softmax."""

from typing import Any, Literal

import torch
from torch import Tensor

from unrolled.kernels.cell_loop.native.prepared import Glue, Norm, Prepared, prepare_chain, trace_stack
from unrolled.kernels.cell_loop.native.trace import Unsupported
from unrolled.kernels.cpu import Products, library, why_no_library
from unrolled.model import LanguageModel
from unrolled.model.heads.softmax import SoftmaxHead

__all__ = ["PackedBody", "PackedSoftmax", "Quantize", "why_not_packed"]

Quantize = Literal["bf16", "int8"]
"""bf16: weights rounded to bf16, all arithmetic in float32. int8: weights and the vectors that they multiply rounded to
8-bit integers, with a scale for each row of a matrix and for each vector; sums, gates and states stay float32."""

# Rows of logits that are held at once.
_ROWS = 64


def why_not_packed(model: LanguageModel, quantize: Quantize | None = None) -> str | None:
    """Why the weights of a model cannot be prepared; None where they can."""
    if model.device.type != "cpu":
        return "that is for a CPU alone"
    if model.dtype != torch.float32 and (quantize is not None or model.dtype != torch.float64):
        return f"that is for float32, not for {model.precision}"
    wish = model.config.compute.backend
    if wish not in ("auto", "native"):
        return f"that is the native backend's, and backend {wish} is asked for"
    if quantize is None and model.precision == "bf16":
        return "the model asks for bf16 products"
    if model.stack.config.kind == "residual" and model.stack.config.mlp:
        return "the MLPs of residual blocks have no native form"
    for cell in model.stack.cells():
        if not hasattr(cell, "step"):
            return f"{cell.name} is no cell that goes step by step"
    if (reason := why_no_library()) is not None:
        return reason
    layers: Any = model.stack.cells()
    try:
        trace_stack(layers, _glue(model), reset=quantize is not None)
    except Unsupported as found:
        return str(found)
    return None


class PackedBody:
    """Embedding and cells: ids to raw outputs.

    Raises:
        Unsupported: a cell that the native library cannot follow.
    """

    def __init__(self, model: LanguageModel, products: Products, reset: bool):
        layers: Any = model.stack.cells()
        self.table = model.embedding.weight.detach()
        self.step = Prepared(library(), *trace_stack(layers, _glue(model), reset), products)

    def __call__(self, ids: Tensor, state: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        """The outputs (batch, time, width) and the state. ids, reset: (batch, time)."""
        given = {"x": torch.nn.functional.embedding(ids.t(), self.table)}
        if reset is not None:
            given["fresh"] = (~reset).to(self.table.dtype).t().unsqueeze(-1)
        y, state = self.step(given, state)  # type: ignore[assignment]
        return y.transpose(0, 1), state


def _glue(model: LanguageModel) -> Glue:
    stack, enter = model.stack, []
    if model.embedding.config.project:
        enter.append(model.embedding.projection)
    if stack.widen is not None:
        enter.append(stack.widen.weight)
    norms = [_norm(one) for one in stack.norms] if stack.config.kind == "residual" else []
    final = None if stack.final_norm is None else _norm(stack.final_norm)
    return Glue(enter, stack.config.kind, norms, final, model.config.dropout.zoneout)


def _norm(norm: Any) -> Norm:
    centred = isinstance(norm, torch.nn.LayerNorm)
    return Norm(centred, norm.eps, norm.weight, norm.bias if centred else None)


class PackedSoftmax:
    """The softmax head with its matrices prepared; as :class:`~unrolled.model.heads.base.Head` where it is read."""

    def __init__(self, head: SoftmaxHead, temperature: float, products: Products):
        matrices = [head.weight] if head.projection is None else [head.projection, head.weight]
        self.step = prepare_chain(library(), matrices, head.bias, products)
        self.temperature = temperature

    def log_prob(self, h: Tensor, state: None = None) -> tuple[Tensor, None]:
        """See ``Head.log_prob``."""
        flat = h if h.dim() == 2 else h.flatten(0, -2)
        ready = self.step.ready(1, len(flat))
        ready.x.copy_(flat)
        ready.call()
        logits = ready.last if self.temperature == 1.0 else ready.last / self.temperature
        log_prob = torch.log_softmax(logits, -1)
        return log_prob if h.dim() == 2 else log_prob.view(*h.shape[:-1], -1), None

    def loss(self, h: Tensor, targets: Tensor, *others: Any) -> tuple[Tensor, Tensor, None]:
        """See ``Head.loss``; every position counts."""
        parts = [
            self.log_prob(rows)[0].gather(1, ids.unsqueeze(1))
            for rows, ids in zip(h.flatten(0, 1).split(_ROWS), targets.flatten().split(_ROWS), strict=True)
        ]
        nll = -torch.cat(parts).view_as(targets)
        return nll.sum(), nll, None
