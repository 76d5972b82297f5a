"""A language model with its weights packed for reading one token after another, as they are or in fewer bits."""

import copy
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.core.tree import leaves, map_tree
from unrolled.kernels.cpu import Products
from unrolled.model import LanguageModel, ModelState
from unrolled.model.heads.softmax import SoftmaxHead
from unrolled.predict.adapter import READING, Adapter, AdapterConfig, Source
from unrolled.predict.base import Prediction, Predictor
from unrolled.predict.packed_layers import packed_model, packed_twin
from unrolled.predict.packed_program import PackedBody, PackedSoftmax, Quantize, one_program, why_not_packed
from unrolled.predict.static import NeuralPredictor, NeuralState

__all__ = ["PackedPredictor", "Quantization", "QuantizeConfig", "in_steps"]

_PRODUCTS: dict[Quantize | None, Products] = {None: "exact", "bf16": "bf16_weights", "int8": "int8_weights"}


class PackedPredictor(NeuralPredictor):
    """A model whose matrices are packed once, for reading and writing text token by token.

    All layers are one program, the softmax another, each called once a token; where not all cells go step by step,
    each product of the others is a program, and block-diagonal matrices stay as they are. Heads other than the softmax
    compute as they always do. It holds copies: a later change of the parameters is not seen. For one thread at a time.

    Args:
        model, start_id, temperature: as for :class:`NeuralPredictor`. quantize: see :data:`Quantize`; None: the weights
            as they are, and the figures are those of :class:`NeuralPredictor` up to rounding.

    Attributes:
        by_steps: whether windows are read step by step in full precision too. What a row gives is then the same to the
            last bit, however a text is cut and whatever the other rows are, where all cells go step by step.
    Raises:
        UsageError: the weights of this model cannot be prepared.
    """

    def __init__(self, model: LanguageModel, start_id: int, temperature: float = 1.0, quantize: Quantize | None = None):
        reason = why_not_packed(model, quantize)
        if reason is not None:
            remedy = "" if quantize is None else "; leave out quantize"
            raise UsageError(f"the weights cannot be prepared: {reason}{remedy}.")
        self.quantize: Quantize | None = quantize
        self.by_steps = quantize is not None
        self._products: Products = _PRODUCTS[quantize]
        program = one_program(model)
        super().__init__(model if program else packed_model(model, self._products), start_id, temperature)
        self._body = PackedBody(model, self._products, reset=False) if program else None
        self._restarting: PackedBody | None = None
        self._form = model.initial_state(1).cells
        self._widths = [part.shape[1] for part in leaves(self._form)] if program else []
        if type(model.head) is SoftmaxHead:
            self._head: Any = PackedSoftmax(model.head, temperature, self._products)

    @property
    def precision(self) -> str:  # type: ignore[override]
        """Of the weights where they are quantised, else of the arithmetic."""
        return self.quantize or self.model.precision

    @property
    def options(self) -> dict[str, Any]:
        """See :attr:`Predictor.options`."""
        return super().options if self.quantize is None else {**super().options, "quantize": self.quantize}

    def shared_form(self, state: NeuralState) -> NeuralState:
        """See :meth:`Predictor.shared_form`."""
        return state if self._body is None else state._replace(cells=self._apart(state.cells[0]))

    def own_form(self, shared: NeuralState) -> NeuralState:
        """See :meth:`Predictor.own_form`."""
        return shared if self._body is None else shared._replace(cells=(_side_by_side(shared.cells),))

    def twin(self) -> "PackedPredictor":
        """See :meth:`Predictor.twin`."""
        made = copy.copy(self)
        made.by_steps = True
        if self._body is None:
            made.model = packed_twin(self.model)
        else:
            made._body = self._body.twin()
            made._restarting = None if self._restarting is None else self._restarting.twin()
        if isinstance(self._head, PackedSoftmax):
            made._head = self._head.twin()
        return made

    def predict(self, state: NeuralState) -> Prediction:
        """See :meth:`Predictor.predict`."""
        if not isinstance(self._head, PackedSoftmax):
            return super().predict(state)
        return Prediction(self._head.log_prob(state.hidden)[0], state.hidden)

    def observe(self, state: NeuralState, ids: Tensor) -> NeuralState:
        """See :meth:`Predictor.observe`; as :meth:`consume`, with fewer copies: beside a small model they count."""
        if state.head is not None or self._body is None:
            return super().observe(state, ids)
        ready = self._body.step.ready(1, len(ids))
        assert ready.start is not None
        assert ready.end is not None
        torch.index_select(self._body.table, 0, ids, out=ready.x)
        ready.start.copy_(state.cells[0])
        ready.call()
        return NeuralState((ready.end.clone(),), None, ready.last.clone())

    def _begin_cells(self, start: ModelState) -> tuple[Any, ...]:
        return start.cells if self._body is None else (_side_by_side(start.cells),)

    def _read(self, ids: Tensor, cells: tuple[Any, ...], reset: Tensor | None = None) -> tuple[Tensor, tuple[Any, ...]]:
        if self._body is None:
            return super()._read(ids, cells, reset)
        if self.quantize is None and (not self.by_steps or reset is not None):
            # over a window the input products are better made all at once
            raw, after = super()._read(ids, self._apart(cells[0]), reset)
            return raw, (_side_by_side(after),)
        body = self._body
        if reset is not None:
            body = self._restarting = self._restarting or PackedBody(self.model, self._products, reset=True)
        raw, state = body(ids, cells[0], reset)
        return raw, (state,)

    def _apart(self, cells: Tensor) -> tuple[Any, ...]:
        """One State a layer."""
        parts = iter(cells.split(self._widths, 1))
        return map_tree(lambda _: next(parts), self._form)


def _side_by_side(cells: tuple[Any, ...]) -> Tensor:
    """All fields of all layers as one tensor (batch, width)."""
    return torch.cat(list(leaves(cells)), 1)


def in_steps(predictor: Predictor) -> Predictor:
    """The predictor made ready for reading token by token: packed where it is a model as it is that can be packed."""
    if type(predictor) is not NeuralPredictor or why_not_packed(predictor.model) is not None:
        return predictor
    return PackedPredictor(predictor.model, predictor.start_id, predictor.temperature)


class QuantizeConfig(AdapterConfig):
    """Options of weights in fewer bits."""

    short: ClassVar[str | None] = "weights"

    name: Literal["quantize"] = "quantize"
    weights: Quantize = Field(
        default="int8",
        description="bf16 (rounded to it, arithmetic in float32) or int8 (8-bit integers with a scale for each row of "
        "a matrix; so are the vectors that they multiply); on a CPU with the native library",
    )


class Quantization(Adapter):
    """Packed weights in fewer bits in place of the model's own."""

    Config = QuantizeConfig
    EXAMPLES = (QuantizeConfig(weights="bf16"), QuantizeConfig(weights="int8"))
    title = "quantised weights"
    place = READING
    reads_model = True

    @classmethod
    def apply(cls, inner: Predictor, config: Any, source: Source | None) -> Predictor:
        """See :meth:`Adapter.apply`."""
        plain = cls.plain(inner)
        return PackedPredictor(plain.model, plain.start_id, plain.temperature, config.weights)
