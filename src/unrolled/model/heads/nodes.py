"""A head over nodes: each symbol's logit from the outputs of its own node."""

from typing import Any, Literal

import torch
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.kernels.linear import glue_linear
from unrolled.model.heads.base import Head, HeadConfig

__all__ = ["NodesConfig", "NodesHead"]


class NodesConfig(HeadConfig):
    """Options of the head over nodes."""

    name: Literal["nodes"] = "nodes"


class NodesHead(Head):
    r"""The symbols of the vocabulary are nodes, and the logit of each comes from the outputs of its own node, by the
    same weights (Seo et al. 2016, section 4.2, as the authors' code has it): :math:`z_v = w^\top h_v`.

    h is maps one after another, each over the vocabulary, as ``gcrn`` gives them; one of another width goes through a
    matrix first, to a single map. A bias would be the same for all, and cancel in the softmax. There are fewer logits
    than outputs, so that a window's are made at once.

    Args:
        in_width: width of h. vocab_size: V. tied: no matrix can be shared.
    Raises:
        UsageError: a tied matrix.
    """

    Config = NodesConfig
    EXAMPLES = (NodesConfig(),)
    has_logits = True

    def __init__(self, in_width: int, vocab_size: int, config: Any, tied: nn.Parameter | None = None):
        super().__init__(in_width, vocab_size, config, tied)
        if tied is not None:
            raise UsageError("the head nodes has no matrix that could be tied; set embedding.tied=false.")
        whole = in_width % vocab_size == 0
        self.entry = None if whole else nn.Parameter(torch.empty(vocab_size, in_width))
        self.weight = nn.Parameter(torch.empty(1, in_width // vocab_size if whole else 1))
        for parameter in self.parameters():
            if not parameter.is_meta:
                nn.init.normal_(parameter, 0, parameter.shape[1] ** -0.5)

    def extra_flops(self) -> int:
        """The vector multiplies at every node, and is counted once."""
        return 2 * (self.vocab_size - 1) * self.weight.shape[1]

    def logits(self, h: Tensor) -> Tensor:
        """See :meth:`Head.logits`."""
        if self.entry is not None:
            h = glue_linear(h, self.entry, None, self.compute, self.config.name)
        nodes = h.unflatten(-1, (-1, self.vocab_size)).transpose(-1, -2)
        z = glue_linear(nodes, self.weight, None, self.compute, self.config.name).squeeze(-1)
        return z if self.logit_scale == 1.0 else z * self.logit_scale

    def loss(
        self,
        h: Tensor,
        targets: Tensor,
        weight: Tensor | None = None,
        state: Any = None,
        reset: Tensor | None = None,
        masks: Any = None,
    ) -> tuple[Tensor, Tensor, Any]:
        """See :meth:`Head.loss`."""
        nll = -torch.log_softmax(self.logits(h), -1).gather(-1, targets.unsqueeze(-1)).squeeze(-1)
        return nll.sum() if weight is None else (nll * weight.to(nll.dtype)).sum(), nll.detach(), state

    def log_prob(self, h: Tensor, state: Any = None, masks: Any = None) -> tuple[Tensor, Any]:
        """See :meth:`Head.log_prob`."""
        return torch.log_softmax(self.logits(h), -1), state
