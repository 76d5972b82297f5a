"""One step of a language model: token and state in, log-probabilities and state out."""

from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells import Cell
from unrolled.core.errors import UsageError
from unrolled.core.tree import flatten, map_tree, reset_rows
from unrolled.kernels.dispatch import Compute
from unrolled.model import LanguageModel, ModelState

__all__ = ["Step", "plain_model", "why_no_graph"]

_HEAD = "head."


def why_no_graph(model: LanguageModel) -> str | None:
    """Why one step of a model is no fixed graph of operations; None where it is."""
    cells = [part for part in model.modules() if isinstance(part, Cell)]
    if model.memory is not None:
        return f"{model.memory.name}: what a memory does depends on where a segment ends"
    return next((f"{one.name}: {one.no_graph}" for one in cells if one.no_graph), None)


def plain_model(model: LanguageModel) -> LanguageModel:
    """A copy of a model in float32 whose every operation is the reference, in evaluation mode, on the CPU.

    Raises:
        UsageError: one step of it is no fixed graph.
    """
    if (reason := why_no_graph(model)) is not None:
        raise UsageError(
            f"the model cannot be exported as a graph: {reason}; use another cell, or `unrolled generate`."
        )
    config = model.config.model_copy(update={"compute": Compute(backend="reference")})
    with torch.random.fork_rng(devices=[]):
        copy = LanguageModel(config, model.vocab_size)
    copy.load_state_dict({name: value.float().cpu() for name, value in model.state_dict().items()})
    copy.eval().requires_grad_(False).head.settle()
    return copy


class Step(nn.Module):
    """``forward(ids, *state) -> (log-probabilities, *state)``, of a model in evaluation mode.

    The state is that of the cells by its flat names (``0.h``). A head that carries something learns each token with the
    output that predicted it: its fields are ``head.NAME``, and beside them stand that output, ``head.hidden``, and
    ``head.begun``, 0 before the first step, when there was none.

    Args:
        logits: give the softmax's logits in place of log-probabilities.

    Attributes:
        start: name -> (1, ...), the state before the first token.
        output: name of the first output.
    Raises:
        UsageError: logits are asked for and the head has none.
    """

    def __init__(self, model: LanguageModel, logits: bool = False):
        super().__init__()
        if logits and not model.head.has_logits:
            raise UsageError(
                f"the head {model.config.head.name} is no single softmax, so that it has no logits; leave out --logits."
            )
        self.model, self.output = model, "logits" if logits else "log_prob"
        start = model.initial_state(1)
        self.start = flatten(start.cells)
        self._cells, self._head = start.cells, start.head
        if start.head is not None:
            self.start |= {_HEAD + name: value for name, value in flatten(start.head).items()}
            self.start[f"{_HEAD}hidden"] = torch.zeros(1, model.stack.out_width)
            self.start[f"{_HEAD}begun"] = torch.zeros(1, 1, dtype=torch.int64)
        self._table = None if model.embedding.is_matrix else model.embedding.table().detach()

    def forward(self, ids: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """ids: (batch, 1) int64. state: in the order of ``start``. Returns (batch, V) and the state after the token."""
        values = iter(state)
        cells = map_tree(lambda _: next(values), self._cells)
        head = map_tree(lambda _: next(values), self._head)
        x = self.model.embedding(ids) if self._table is None else nn.functional.embedding(ids, self._table)
        hidden, begun = values if head is not None else (None, None)
        if hidden is not None and begun is not None:
            learnt = self.model.head.learn(hidden, ids.squeeze(1), head)
            head = reset_rows(learnt, head, begun.squeeze(1) == 0)
        out = self.model.run_stack(x, ModelState(cells))
        last = out.raw[:, -1]
        scores = self._scores(last, head)
        after = list(flatten(out.state.cells).values())
        if begun is not None:
            after += [*flatten(head).values(), last, torch.ones_like(begun)]
        return scores, *after

    def _scores(self, last: Tensor, head: Any) -> Tensor:
        if self.output == "logits":
            return self.model.head.logits(last)
        return self.model.head.log_prob(last, head)[0]

    def initial(self, batch: int) -> dict[str, Tensor]:
        """The state before the first token, of ``batch`` rows."""
        return {name: value.expand(batch, *value.shape[1:]).contiguous() for name, value in self.start.items()}
