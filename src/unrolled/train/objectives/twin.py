"""Twin networks: the state is to say what a model that reads backwards knows."""

from typing import Any, Literal, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel
from unrolled.model.heads.softmax import SoftmaxConfig
from unrolled.train.objectives.base import Extra, ExtraConfig, Given, mean_of

__all__ = ["Reversed", "Twin", "TwinConfig", "reversed_window"]


class TwinConfig(ExtraConfig):
    """Options of the twin network."""

    name: Literal["twin"] = "twin"
    penalty: float = Field(
        default=0.5, ge=0, le=1e6, description="a: times the squared distance of the forward from the backward state"
    )
    blind: int = Field(
        default=10,
        ge=0,
        le=1 << 20,
        description="positions at a window's end that are left out of the penalty, since the backward model has read "
        "too little there (those of a sentence that ends in the window are not)",
    )


class Twin(Extra):
    r"""Twin networks (Serdyuk, Ke, Sordoni, Trischler, Pal and Bengio 2018).

    .. math::
        NLL_b + a\,\|A h^f_t - h^b_t\|^2

    is added to the loss, both as means over targets: a backward model, of the same cells and with parameters of its
    own, learns the text in reverse, and the forward state h^f_t is drawn towards its state h^b_t through the affine map
    A. Both predict the same token x: h^f_t has read what is before it, h^b_t what is after it. h^b_t is held fixed in
    the penalty, so that the backward model learns from its own likelihood alone. h are the last layer's outputs
    (rows, time, width) before dropout; the published a is 0.5 (sequential MNIST) to 1.5 (captions).

    The backward model reads each window from its end without carrying a state over, or each sentence from its own end
    where the corpus has some; the last position of a window, before which it has read nothing, is not learned. Its
    head is the plain softmax, and it shares nothing with the model: with a shared embedding, as the released code has
    it, the backward loss would change the model where a = 0. It is not part of the saved model, and doubles the cost
    of a step.

    Raises:
        UsageError: a model that is no language model.
    """

    Config = TwinConfig
    EXAMPLES = (TwinConfig(blind=2), TwinConfig(weight=2.0, penalty=0.0))
    follows = False

    def __init__(self, config: TwinConfig, streams: RandomStreams, model: nn.Module):
        super().__init__(config, streams, model)
        if not isinstance(model, LanguageModel):
            raise UsageError("the objective twin needs a language model; leave it out of train.extra.")
        # masks of the backward model's own, by the same names
        self._masks = RandomStreams(streams.key("objective.twin.masks"), shards=streams.shards)

    def side(self, model: Any) -> nn.Module:
        """The backward model and A."""
        config = model.config
        embedding = config.embedding
        if embedding.cutoffs is not None:  # tied tables are for another head
            embedding = embedding.model_copy(update={"tied": False})
        config = config.model_copy(update={"head": SoftmaxConfig(), "embedding": embedding})
        width = model.stack.out_width
        return nn.ModuleDict({"backward": LanguageModel(config, model.vocab_size), "map": nn.Linear(width, width)})

    def value(self, given: Given) -> Tensor:
        """See :meth:`Extra.value`."""
        seen, side = given.seen, given.side
        turned = reversed_window(seen.batch.inputs, seen.targets, seen.reset, self.config.blind)
        rows, time = turned.inputs.shape
        if not time:
            return seen.total.new_zeros(())
        twin = side["backward"]
        masks = twin.draw_masks(rows, time, self._masks, given.position)
        out = twin(turned.inputs, None, turned.reset, masks)
        weight = None if seen.weight is None else seen.weight[:, :-1].to(out.raw.dtype)
        total, _, _ = twin.score(out, turned.targets, turned.reset, None if weight is None else weight.flip(1), masks)
        distance = (side["map"](seen.out.raw[:, :-1]) - out.raw.detach().flip(1)).square().sum(-1)
        # the last position has no backward state
        counted, whole = pad(turned.counted, (0, 1)), pad(distance, (0, 1))
        return total / given.divisor + self.config.penalty * mean_of(given, whole, counted)


class Reversed(NamedTuple):
    """What the backward model reads of a window of T targets, (rows, T-1) each.

    inputs, targets, reset: in its order, from the window's end; reset None where no sentence begins. counted: in the
    window's order, whether a position has a part in the penalty.
    """

    inputs: Tensor
    targets: Tensor
    reset: Tensor | None
    counted: Tensor


def reversed_window(inputs: Tensor, targets: Tensor, reset: Tensor | None, blind: int) -> Reversed:
    """A window turned round. For targets[t] the backward model has read targets[t+1:] of the same sentence, the last of
    them first, and before these, where the sentence ends in the window, the start symbol.

    Args:
        inputs, targets, reset: of the forward model, (rows, T); ``inputs`` holds the start symbol where reset is true.
        blind: see :class:`TwinConfig`.
    """
    time = targets.shape[1] - 1
    after, far = targets[:, 1:], torch.arange(time, 0, -1, device=targets.device) >= blind
    if reset is None:
        return Reversed(after.flip(1), targets[:, :-1].flip(1), None, far.expand_as(after))
    ends = reset[:, 1:]  # targets[t] is the last of its sentence
    closed = ends.flip(1).cumsum(1).flip(1) > 0
    read = torch.where(ends, inputs[:, 1:], after)
    return Reversed(read.flip(1), targets[:, :-1].flip(1), ends.flip(1), far | closed)
