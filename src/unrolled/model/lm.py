"""The language model: embedding, stack of cells, head. There is one, for every cell."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from unrolled.cells import CELLS, Noise
from unrolled.core.errors import UsageError
from unrolled.core.parameters import rules_of
from unrolled.core.random import RandomStreams
from unrolled.kernels.cell_loop import TableInput
from unrolled.model.blocks import make_stack
from unrolled.model.config import ModelConfig
from unrolled.model.drawing import draw_masks
from unrolled.model.dropout import Masks, apply_mask, check_sites
from unrolled.model.embedding import Embedding
from unrolled.model.ends import Ends
from unrolled.model.fit import widest
from unrolled.model.flops import model_flops, stack_flops
from unrolled.model.memory.segments import ByTime, make_memory, read_segments
from unrolled.model.outputs import ModelOutput, ModelState
from unrolled.model.tracing import Wanted, trace_window

__all__ = ["LanguageModel", "ModelConfig", "ModelOutput", "ModelState", "count_params", "fit_width"]


class LanguageModel(nn.Module):
    """A recurrent language model.

    Args:
        config: everything but the vocabulary; kept as ``config`` with the width that its ``params`` ask for.
        vocab_size: number of token ids V.
        ends: what makes input and head, where these are no embedding and no head over a vocabulary.

    Raises:
        UsageError: a cell that is not causal from the first token on; a head for another number of perspectives.
    """

    def __init__(self, config: ModelConfig, vocab_size: int, ends: Ends | None = None):
        super().__init__()
        ends = ends or Ends()
        if config.params is not None:
            config = fit_width(config, vocab_size, config.params, ends)
        if not ends.whole:
            _check_causal(config)
        self.config, self.vocab_size = config, vocab_size
        widths = config.layer_widths()
        self.embedding = ends.reader(config, vocab_size)
        self.stack = make_stack(self.embedding.out_width, config.layer_cells(), widths, config.stack)
        self.head = ends.head(config, vocab_size, self.stack.out_width, self.embedding)
        if self.head.streams not in (1, self.stack.streams):
            raise UsageError(
                f"the head mixes {self.head.streams} perspectives and the cells have {self.stack.streams}; set "
                f"model.head.count={self.stack.streams}."
            )
        for layer in self.stack.cells():
            layer.compute = config.compute
            check_sites(config.dropout, layer)
        if config.dropout.branch and not self.stack.branches:
            raise UsageError("dropout.branch is for stacks of kind residual; set it to 0, or stack.kind=residual.")
        for norm in self.stack.rms_norms():
            norm.compute = config.compute
        self.memory = None if config.memory is None else make_memory(config.memory, self.stack)
        if config.init_std is not None:
            self._draw(config.init_std)
        if self.memory is not None and not self.embedding.weight.is_meta:
            self.memory.start(float(self.embedding.weight.detach().std()))
        self.embedding.compute = self.stack.compute = self.head.compute = config.compute

    def _draw(self, std: float) -> None:
        kept = {parameter for parameter, rule in rules_of(self).items() if not rule.drawn}
        for parameter in self.parameters():
            if parameter.dim() > 1 and parameter not in kept and not parameter.is_meta:
                nn.init.normal_(parameter, 0, std)

    @property
    def device(self) -> torch.device:
        return self.embedding.weight.device

    @property
    def dtype(self) -> torch.dtype:
        return self.embedding.weight.dtype

    @property
    def precision(self) -> str:
        """``bf16`` where matrix products are lowered, else the type of the parameters."""
        low = self.config.compute.precision == "bf16"
        return "bf16" if low else str(self.dtype).removeprefix("torch.")

    def num_params(self) -> int:
        """Number of numbers in the parameters; tied matrices count once."""
        return sum(p.numel() for p in self.parameters())

    def stack_flops_per_token(self) -> int:
        """Floating-point operations of the cells' matrix products of one forward step."""
        return stack_flops(self)

    def flops_per_token(self) -> int:
        """Floating-point operations of the matrix products of one forward step, without the lookup."""
        return model_flops(self)

    def initial_state(self, batch: int) -> ModelState:
        """The state before the first token, on the model's device."""
        args = (batch, self.device, self.dtype)
        cells = self.stack.initial_state(*args)
        cells = cells if self.memory is None else (*cells, self.memory.begin(*args))
        return ModelState(cells, self.head.initial_state(*args))

    def draw_masks(
        self, batch: int, time: int, streams: RandomStreams, window: int, dropout: Any = None, period: Any = None
    ) -> Masks | None:
        """See :func:`unrolled.model.drawing.draw_masks`."""
        return draw_masks(self, batch, time, streams, window, dropout, period)

    def _noise(self, masks: Masks | None, batch: int) -> tuple[Noise | None, ...]:
        """One a layer; without masks, in evaluation, zoneout mixes old and new in the proportion of its rate."""
        rates, layers = self.config.dropout.zoneout, self.stack.cells()
        if masks is None:
            if not rates:
                return ()
            like = self.embedding.weight
            constant = {name: like.new_full((batch, 1, 1), rate) for name, rate in rates.items()}
            return (Noise(zoneout=constant),) * len(layers)
        kept, inside, matrices = (part or (None,) * len(layers) for part in (masks.zoneout, masks.inner, masks.weight))
        noise = []
        for mask, zoneout, inner, weight in zip(masks.state, kept, inside, matrices, strict=True):
            place = {} if mask is None else {f"state_{self.config.dropout.state_place}": mask}
            some = place or zoneout or inner or weight
            noise.append(Noise(**place, zoneout=zoneout, inner=inner, weight=weight) if some else None)
        return tuple(noise)

    def _input(self, tokens: Tensor, masks: Masks | None) -> Tensor | TableInput:
        """The stack's input; as a table where it has fewer rows than there are tokens, so that a stack of step cells
        multiplies those rows alone."""
        rows, mask = (None, None) if masks is None else (masks.embedding, masks.input)
        few = isinstance(self.embedding, Embedding) and self.vocab_size < tokens.numel()
        if mask is None and few and self.stack.takes_table():
            return TableInput(self.embedding.table(rows), tokens)
        return apply_mask(self.embedding(tokens, rows), mask)

    def forward(
        self,
        tokens: Tensor,
        state: ModelState | None = None,
        reset: Tensor | None = None,
        masks: Masks | None = None,
        tap: Any = None,
    ) -> ModelOutput:
        """Run over a window of tokens.

        Args:
            tokens: (batch, time) ids. state: what the last call returned; None is the initial state.
            reset: boolean (batch, time); where true the row starts afresh before the token.
            masks: dropout masks (training), see :meth:`draw_masks`.
            tap: receives (layer, name, value) of every internal.
        """
        return self.run_stack(self._input(tokens, masks), state, reset, masks, tap)

    def run_stack(
        self,
        x: Tensor | TableInput,
        state: ModelState | None = None,
        reset: Tensor | None = None,
        masks: Masks | None = None,
        tap: Any = None,
    ) -> ModelOutput:
        """The part of :meth:`forward` behind the embedding.

        Args:
            x: (batch, time, embedding's out_width), what the embedding gives; the others as there.
        """
        batch = x.shape[0]
        state = state if state is not None else self.initial_state(batch)
        between, branch = ((),) * 2 if masks is None else (masks.between, masks.branch)
        noise, handed = self._noise(masks, batch), {}
        if self.memory is None:
            raw, cells = self.stack(x, state.cells, reset, between, noise, tap, branch, handed)
        else:
            given, drawn = ByTime(between, noise, branch), None if masks is None else masks.memory
            raw, cells = read_segments(self.memory, self.stack, x, state.cells, reset, given, tap, handed, drawn)
        dropped = apply_mask(raw, None if masks is None else masks.output)
        return ModelOutput(raw, dropped, ModelState(cells, state.head), handed)

    def loss(
        self,
        tokens: Tensor,
        targets: Tensor,
        state: ModelState | None = None,
        reset: Tensor | None = None,
        weight: Tensor | None = None,
        masks: Masks | None = None,
    ) -> tuple[Tensor, Tensor, ModelState]:
        """Negative log-likelihood of ``targets`` (batch, time), in nats.

        Returns:
            the weighted sum, the nats of every position (batch, time), and the state after the window.
        """
        return self.score(self(tokens, state, reset, masks), targets, reset, weight, masks)

    def score(
        self,
        out: ModelOutput,
        targets: Tensor,
        reset: Tensor | None = None,
        weight: Tensor | None = None,
        masks: Masks | None = None,
    ) -> tuple[Tensor, Tensor, ModelState]:
        """The second half of :meth:`loss`, for those who need the outputs too.

        Args:
            out: what :meth:`forward` gave for the window, with the same ``reset`` and ``masks``.
        """
        drawn = None if masks is None else masks.head
        total, nll, head = self.head.loss(out.dropped, targets, weight, out.state.head, reset, drawn)
        return total, nll, ModelState(out.state.cells, head)

    def trace(
        self, tokens: Tensor, state: ModelState | None = None, wanted: Wanted | None = None
    ) -> Iterator[dict[str, Tensor]]:
        """Every internal of every layer, one mapping a time step, in constant memory.

        Args:
            tokens: (batch, time) ids. wanted: says of (layer, name) whether it is kept; absent: all are.
        Yields:
            ``layer.name`` -> (batch, units), layers from 0; the names are those of :mod:`unrolled.cells.taps`.
        """
        for t in range(tokens.shape[1]):
            seen, out = trace_window(self, tokens[:, t : t + 1], state, wanted)
            state = out.state
            yield {name: value[:, 0] for name, value in seen.items()}


def _check_causal(config: ModelConfig) -> None:
    for cell in config.layer_cells():
        if CELLS[cell.name].encodes:
            raise UsageError(
                f"a layer of {cell.name} reads whole rows, so that a language model of it would see what it has to "
                "predict; train it with task.name=classify, or take another cell."
            )
        if prefix := CELLS[cell.name].causal_from(cell):
            raise UsageError(
                f"a layer of {cell.name} shows the first {prefix} tokens of a document to each of them, so a language "
                "model of it would see what it has to predict; set its prefix to 0, or take another cell."
            )


def count_params(config: ModelConfig, vocab_size: int, ends: Ends | None = None) -> int:
    """Number of parameters of a configuration, without allocating them."""
    with torch.device("meta"):
        return LanguageModel(config, vocab_size, ends).num_params()


def fit_width(config: ModelConfig, vocab_size: int, params: int, ends: Ends | None = None) -> ModelConfig:
    """``config`` with the largest ``width`` that its cells accept and whose model has at most ``params`` parameters, as
    its own ``params`` would have it when the model is made; see :func:`unrolled.model.fit.widest`.

    Raises:
        UsageError: even the smallest width is too large.
    """
    return widest(config, params, partial(count_params, vocab_size=vocab_size, ends=ends))
