"""Phrase induction: the state is to say which phrase comes next."""

import math
from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import pad

from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.kernels.causal_conv import causal_conv
from unrolled.model import LanguageModel
from unrolled.model.dropout import draw_rows
from unrolled.train.objectives.base import Extra, ExtraConfig, Given, mean_of

__all__ = ["Phrase", "PhraseConfig", "phrase_weights"]

_SHARPNESS, _OFFSET = 10.0, 10.0  # of a step, and of heights as weights


class PhraseConfig(ExtraConfig):
    """Options of phrase induction."""

    name: Literal["phrase"] = "phrase"
    weight: float = Field(default=0.5, ge=0, le=1e6, description="theta: times its value")
    kernel: int = Field(default=5, ge=1, le=1024, description="tokens that a height is made from")
    hidden: int | None = Field(
        default=None, ge=1, le=1 << 20, description="width of what the heights are made from (absent: the model's)"
    )
    dropout: float = Field(default=0.5, ge=0, lt=1, description="rate on the phrases' vectors")


class Phrases(nn.Module):
    """What the objective learns: heights of tokens, and a map from a phrase's mean embedding to the states' space."""

    def __init__(self, embedded: int, hidden: int, context: int, kernel: int):
        super().__init__()
        bound = 1 / math.sqrt(embedded * kernel)
        self.conv = nn.Parameter(torch.empty(hidden, embedded, kernel).uniform_(-bound, bound))
        self.conv_bias = nn.Parameter(torch.empty(hidden).uniform_(-bound, bound))
        self.height = nn.Linear(hidden, 1)
        self.map = nn.Linear(embedded, context)

    def heights(self, embedded: Tensor, reset: Tensor | None) -> Tensor:
        """(rows, time) from embeddings (rows, time, E); what is before a reset is not seen after it."""
        seen, _ = causal_conv(embedded, self.conv, self.conv_bias, None, reset)
        return self.height(torch.relu(seen)).squeeze(-1)


class Phrase(Extra):
    r"""Phrase induction (Luo, Jiang, Belinkov and Glass 2019, PILM; as in their released code).

    Tokens get heights x from a causal convolution over their embeddings. The phrase after position i is i+1, i+2, ...
    up to before the first j > i+1 with x_{j-1} > x_i and x_{j-1} > x_j, with soft steps
    s(z) = (hardtanh(10 z) + 1)/2:

    .. math::
        w_{ij} &\propto (x_j - \min x + 10) \prod_{i+1<k\le j} (1 - s(x_{k-1} - x_i)\,s(x_{k-1} - x_k)), \quad j > i \\
        m_i &= A \sum_j w_{ij} e_j, \qquad \text{value} = \mathrm{mean}_i\,(1 - \sigma(c_i \cdot m_i))

    with e the embeddings, without dropout, and c what the last layer reads, under dropout (in a model of one layer its
    output). The mean is over positions that have a future: not the window's last, nor a sentence's; a phrase ends with
    its sentence. The released code's loop over negative examples runs zero times; so there are none here. It takes the
    minimum of the heights over all rows of a batch; here it is the row's own, so that no row depends on another.

    Cost: time² weights for each row of the window.

    Raises:
        UsageError: a model that is no language model.
    """

    Config = PhraseConfig
    EXAMPLES = (PhraseConfig(), PhraseConfig(kernel=2, hidden=3, dropout=0.0, weight=2.0))

    def __init__(self, config: PhraseConfig, streams: RandomStreams, model: nn.Module):
        super().__init__(config, streams, model)
        if not isinstance(model, LanguageModel):
            raise UsageError("the objective phrase needs a language model; leave it out of train.extra.")
        model.stack.shows_below = True
        self._model = model

    def side(self, model: Any) -> nn.Module:
        """See :class:`Phrases`."""
        cells = model.stack.cells()
        embedded, context = model.embedding.out_width, model.stack.out_width
        if len(cells) > 1:
            context = cells[-1].in_width
        return Phrases(embedded, self.config.hidden or context, context, self.config.kernel)

    def value(self, given: Given) -> Tensor:
        """See :meth:`Extra.value`."""
        seen, side = given.seen, given.side
        inputs, reset = seen.batch.inputs, seen.reset
        embedded = self._model.embedding(inputs)
        weights, future = phrase_weights(side.heights(embedded, reset), reset)
        phrase = side.map(weights @ embedded)
        mask = draw_rows(
            self.config.dropout, tuple(phrase.shape), self.streams, "objective.phrase", given.position, phrase.device,
            phrase.dtype,
        )  # fmt: skip
        context = seen.out.handed.get("below", seen.out.dropped)
        agreement = (context * (phrase if mask is None else phrase * mask)).sum(-1)
        return mean_of(given, 1 - torch.sigmoid(agreement), future)


def phrase_weights(heights: Tensor, reset: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The weights w of :class:`Phrase`.

    Args:
        heights: (rows, time). reset: boolean (rows, time), where a sentence begins.
    Returns:
        weights (rows, time, time), of the tokens j of the phrase after i; rows of zeros where i has no future. And
        boolean (rows, time), which have one.
    """
    time = heights.shape[1]
    place = torch.arange(time, device=heights.device)
    after = place > place.unsqueeze(1)  # j > i
    before = pad(heights, (1, 0))[:, :-1]
    over = _step(before.unsqueeze(1) - heights.unsqueeze(2))  # x_{j-1} > x_i
    ends = over * _step(before - heights).unsqueeze(1)
    inside = torch.where(place > place.unsqueeze(1) + 1, 1 - ends, torch.ones_like(ends)).cumprod(2) * after
    if reset is not None:
        sentence = reset.cumsum(1)
        inside = inside * (sentence.unsqueeze(1) == sentence.unsqueeze(2))
    weights = inside * (heights - heights.amin(1, keepdim=True) + _OFFSET).unsqueeze(1)
    total = weights.sum(2, keepdim=True)
    future = total > 0
    return torch.where(future, weights / torch.where(future, total, torch.ones_like(total)), 0.0), future.squeeze(2)


def _step(z: Tensor) -> Tensor:
    return (torch.nn.functional.hardtanh(_SHARPNESS * z) + 1) / 2
