"""The two programs of packed weights: embedding and cells, and the softmax."""

import copy
from typing import Any, Literal

import torch
from torch import Tensor

from unrolled.cells import StepCell
from unrolled.kernels.cell_loop.native.packed import Prepared, prepare_chain, trace_stack
from unrolled.kernels.cell_loop.native.symbols import Unsupported
from unrolled.kernels.cell_loop.native.trace import Step
from unrolled.kernels.cpu import Products, library, why_no_library
from unrolled.model import LanguageModel
from unrolled.model.heads.softmax import SoftmaxHead
from unrolled.predict.packed_layers import packed_model

__all__ = ["PackedBody", "PackedSoftmax", "Quantize", "one_program", "why_not_packed"]

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
    wish = model.config.compute.wish("cell_loop")
    if wish not in ("auto", "native"):
        return f"that is the native backend's, and backend {wish} is asked for"
    if quantize is None and model.precision == "bf16":
        return "the model asks for bf16 products"
    if (reason := why_no_library()) is not None:
        return reason
    try:
        if one_program(model):
            _trace(model, reset=quantize is not None)
        else:
            packed_model(model, "exact")
    except Unsupported as found:
        return str(found)
    return None


def one_program(model: LanguageModel) -> bool:
    """Whether embedding and cells can be one program: all cells go step by step, without a memory around
    them. Else they are packed one by one."""
    return model.memory is None and all(isinstance(cell, StepCell) for cell in model.stack.cells())


class PackedBody:
    """Embedding and cells: ids to raw outputs.

    Raises:
        Unsupported: a cell that the native library cannot follow.
    """

    def __init__(self, model: LanguageModel, products: Products, reset: bool):
        # the projection, where there is one, is part of the program
        plain = model.embedding.is_matrix
        self.table = (model.embedding.times(model.embedding.weight) if plain else model.embedding.table()).detach()
        self.step = Prepared(library(), *_trace(model, reset), products)

    def twin(self) -> "PackedBody":
        """The same with memory of its own, for another thread."""
        made = copy.copy(self)
        made.step = self.step.twin()
        return made

    def __call__(self, ids: Tensor, state: Tensor, reset: Tensor | None) -> tuple[Tensor, Tensor]:
        """The outputs (batch, time, width) and the state. ids, reset: (batch, time)."""
        given = {"x": torch.nn.functional.embedding(ids.t(), self.table)}
        if reset is not None:
            given["fresh"] = (~reset).to(self.table.dtype).t().unsqueeze(-1)
        y, state = self.step(given, state)  # type: ignore[assignment]
        return y.transpose(0, 1), state


def _trace(model: LanguageModel, reset: bool) -> tuple[Step, dict[str, Tensor]]:
    """One step of a model's cells and of what is between them, from the embedding's rows to the raw output."""
    stack, layers = model.stack, model.stack.cells()
    held = {id(one) for layer in layers for one in layer.parameters()}
    own = {name: one for name, one in stack.named_parameters() if id(one) not in held}
    projection = model.embedding.projection if model.embedding.config.project else None
    if projection is not None:
        own["embedding"] = projection

    def between(x: Any, layer: Any, glue: Any) -> Any:
        x = x if projection is None else glue.linear(x, projection)
        return stack.through(x, layer, lambda i, y: y, glue)

    in_width = layers[0].in_width if projection is None and stack.widen is None else model.embedding.row_width
    cells: Any = layers
    return trace_stack(cells, between, in_width, own, model.config.dropout.zoneout, reset)


class PackedSoftmax:
    """The softmax head with its matrices prepared; as :class:`~unrolled.model.heads.base.Head` where it is read."""

    def __init__(self, head: SoftmaxHead, temperature: float, products: Products):
        matrices = [head.weight] if head.projection is None else [head.projection, head.weight]
        self.step = prepare_chain(library(), matrices, head.bias, products)
        self.temperature, self.cap = temperature, head.config.cap

    def twin(self) -> "PackedSoftmax":
        """The same with memory of its own, for another thread."""
        made = copy.copy(self)
        made.step = self.step.twin()
        return made

    def log_prob(self, h: Tensor, state: None = None) -> tuple[Tensor, None]:
        """See ``Head.log_prob``."""
        flat = h if h.dim() == 2 else h.flatten(0, -2)
        ready = self.step.ready(1, len(flat))
        ready.x.copy_(flat)
        ready.call()
        logits = ready.last if self.cap is None else self.cap * torch.tanh(ready.last / self.cap)
        logits = logits if self.temperature == 1.0 else logits / self.temperature
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
