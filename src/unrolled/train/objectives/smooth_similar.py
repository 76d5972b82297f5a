"""Smoothing over similar tokens."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn.functional import embedding_bag, normalize

from unrolled.core.random import RandomStreams
from unrolled.model import LanguageModel
from unrolled.task import StepsTask
from unrolled.train.objectives.base import Extra, ExtraConfig, Given
from unrolled.train.objectives.frozen import frozen_model
from unrolled.train.objectives.logits import check_softmax, logit_of, read

__all__ = ["SmoothSimilar", "SmoothSimilarConfig", "similar"]

_BLOCK = 2**22  # cosines held at once


class SmoothSimilarConfig(ExtraConfig):
    """Options of smoothing over similar tokens."""

    name: Literal["smooth_similar"] = "smooth_similar"
    weight: float = Field(default=0.3, ge=0, le=1, description="share a of the target that is spread")
    tau: float = Field(
        default=0.05, ge=0, le=1e6, description="how far it is spread (0: not at all; published: 0.04 and 0.05)"
    )
    nearest: int = Field(default=800, ge=1, description="tokens over which a target is spread, itself among them")
    vectors: str | None = Field(
        default=None,
        description="folder of a finished run of this run's tokenizer, whose embeddings say what is similar (absent: "
        "the model's own as they are at the time)",
    )


class SmoothSimilar(Extra):
    r"""Token-level loss smoothing (Elbayad, Besacier and Verbeek 2018): a share a of each target is spread over the
    tokens whose vectors are near its own.

    .. math::
        (1 - a)\,(-\log p_y) + a \sum_w r_w\,(-\log p_w), \quad
        r = \mathrm{softmax}_w\,(-(1 - \cos(e_w, e_y))/\tau)

    over the ``nearest`` tokens. With z the logits it is -log p_y + a (z_y - sum of r_w z_w), which is what is computed:
    for every distinct target of a window the sum of r_w times the rows of the output matrix, and one product of vectors
    for a token. Exact, and without the logits of all tokens. r is held fixed. The paper takes pretrained word vectors
    (``vectors``) and has a further factor against rare words in a variant, which is not here.

    Raises:
        UsageError: another head than the full softmax; vectors of another vocabulary.
    """

    Config = SmoothSimilarConfig
    EXAMPLES = (SmoothSimilarConfig(tau=0.3), SmoothSimilarConfig(tau=1.0, nearest=4, weight=0.8))
    follows = False

    def __init__(self, config: SmoothSimilarConfig, streams: RandomStreams, model: nn.Module):
        super().__init__(config, streams, model)
        check_softmax(model, config.name)
        assert isinstance(model, LanguageModel)
        self._model, self._vectors = model, None

    def join(self, task: StepsTask) -> None:
        """Load the vectors. See :meth:`Extra.join`."""
        if self.config.vectors is not None:
            other = frozen_model(self.config.vectors, task, self._model, "the run", self.config.name)
            self._vectors = normalize(other.embedding.table(), dim=1)

    def value(self, given: Given) -> Tensor:
        """See :meth:`Extra.value`."""
        seen, config = given.seen, self.config
        if config.tau == 0:
            return seen.total.new_zeros(())
        vectors = self._vectors
        if vectors is None:
            vectors = normalize(self._model.embedding.table().detach(), dim=1)
        distinct, place = seen.targets.unique(return_inverse=True)
        ids, shares = similar(vectors, distinct, config.tau, config.nearest)
        head, h = read(given)
        rows = embedding_bag(ids, head.weight, mode="sum", per_sample_weights=shares.to(head.weight.dtype))
        difference = logit_of(head, h, seen.targets) - (h * rows[place]).sum(-1)
        if head.bias is not None:
            difference = difference - (shares.to(head.bias.dtype) * head.bias[ids]).sum(1)[place]
        if seen.weight is not None:
            difference = difference * seen.weight
        return difference.sum() / given.divisor


@torch.no_grad()
def similar(vectors: Tensor, targets: Tensor, tau: float, nearest: int) -> tuple[Tensor, Tensor]:
    """The tokens that targets are spread over, and the share of each.

    Args:
        vectors: (V, E) of length 1. targets: (n,) ids. tau: above 0.
    Returns:
        ids (n, k) and shares (n, k), which sum to 1, with k the lesser of ``nearest`` and V.
    """
    size, found = len(vectors), []
    for block in targets.split(max(1, _BLOCK // size)):
        cosine = vectors[block] @ vectors.t()
        cosine[torch.arange(len(block)), block] = 1.0  # of a vector of zeros too
        best = cosine.topk(min(nearest, size), 1)
        found.append((best.indices, torch.softmax((best.values - 1) / tau, 1)))
    ids, shares = (torch.cat(part) for part in zip(*found, strict=True))
    return ids, shares
