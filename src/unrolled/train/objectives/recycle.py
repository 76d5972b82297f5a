"""Recycled steps: a small module learns what the cells would give after one more token."""

from typing import Any, Literal, cast

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel
from unrolled.model.recycler import Recycler
from unrolled.train.objectives.base import Extra, ExtraConfig, Given

__all__ = ["Recycle", "RecycleConfig"]


class RecycleConfig(ExtraConfig):
    """Options of recycled steps."""

    name: Literal["recycle"] = "recycle"
    hidden: int | None = Field(
        default=None, ge=1, le=1 << 20, description="width inside the recycler; absent: twice the model's output"
    )


class Recycle(Extra):
    r"""Recycled steps (RecycleGPT: Jiang et al. 2023, arXiv 2308.03421).

    .. math:: -\log p(x_{t+2} \mid \hat h_{t+1}), \qquad \hat h_{t+1} = r(h_t, e(x_{t+1}))

    is added, the mean over targets: r is a residual layer (:class:`unrolled.model.recycler.Recycler`), h the last
    layer's output (rows, time, width) before dropout, e the embedding, p the model's head. Embedding, cells and head
    learn from it too. A window's first target, and one that begins a text, are predicted from a whole step in any
    case and are left out. r is written to ``recycler.safetensors`` in the run beside the weights, of the same step; an
    average of the weights does not include it. The paper's r is six layers of a Transformer of 24.

    Raises:
        UsageError: a model that is no language model, or a head that carries a state.
    """

    Config = RecycleConfig
    EXAMPLES = (RecycleConfig(hidden=5), RecycleConfig(weight=0.5))
    exported = "recycler"

    def __init__(self, config: RecycleConfig, streams: RandomStreams, model: nn.Module):
        super().__init__(config, streams, model)
        if not isinstance(model, LanguageModel):
            raise UsageError("the objective recycle needs a language model; leave it out of train.extra.")
        if model.head.initial_state(1) is not None:
            raise UsageError(
                f"a head that carries a state ({model.head.config.name}) reads every token, so no step is recycled; "
                "leave recycle out of train.extra."
            )

    def side(self, model: Any) -> nn.Module:
        """The recycler."""
        width = model.stack.out_width
        return Recycler(width, model.embedding.out_width, self.config.hidden or 2 * width)

    def value(self, given: Given) -> Tensor:
        """See :meth:`Extra.value`."""
        seen, model = given.seen, cast(LanguageModel, given.seen.model)
        if seen.targets.shape[1] < 2:
            return seen.total.new_zeros(())
        guess = given.side(seen.out.raw[:, :-1], model.embedding(seen.batch.inputs[:, 1:]))
        weight = (
            torch.ones_like(seen.targets, dtype=guess.dtype) if seen.weight is None else seen.weight.to(guess.dtype)
        )
        weight = weight[:, 1:]
        if seen.reset is not None:  # the input there is the start symbol, after which h is known
            weight = weight * ~seen.reset[:, 1:]
        return model.head.loss(guess, seen.targets[:, 1:], weight)[0] / given.divisor
