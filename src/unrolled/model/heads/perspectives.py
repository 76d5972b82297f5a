"""The softmax over several perspectives."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.core.errors import UsageError
from unrolled.model.heads.softmax import SoftmaxConfig, SoftmaxHead

__all__ = ["PerspectivesHead", "PerspectivesHeadConfig"]


class PerspectivesHeadConfig(SoftmaxConfig):
    """Options of the softmax over several perspectives."""

    name: Literal["perspectives"] = "perspectives"  # type: ignore[assignment]
    count: int = Field(default=1, ge=1, le=256, description="perspectives, as many as the cells have")


class PerspectivesHead(SoftmaxHead):
    r"""Multiple temporal perspectives (Dumitru, Peteleaza and Surdeanu 2024, arXiv:2402.02625): logits of each, mixed.

    .. math::
        a = \operatorname{softmax}(C \tfrac{1}{n} \sum_i h^i), \quad
        z = \sum_i a_i (W P h^i + b) = W P \sum_i a_i h^i + b, \quad \log p = \operatorname{log softmax}(z)

    Since the a_i sum to one the outputs are mixed, which is one product with W in place of n. With one perspective
    there is no C, and the head is the softmax.

    Args:
        in_width: width of h, that of all perspectives, which lie side by side. vocab_size, tied: as for the softmax.
    Raises:
        UsageError: the width is not one of ``count`` perspectives.
    """

    Config = PerspectivesHeadConfig
    EXAMPLES = (
        PerspectivesHeadConfig(count=2),
        PerspectivesHeadConfig(count=2, cap=0.6),
        PerspectivesHeadConfig(),
        PerspectivesHeadConfig(count=3, project=4, negatives=6, frequent=4, bias_init="unigram"),
    )

    def __init__(
        self, in_width: int, vocab_size: int, config: PerspectivesHeadConfig, tied: nn.Parameter | None = None
    ):
        if in_width % config.count:
            raise UsageError(f"an output of width {in_width} is none of {config.count} perspectives side by side.")
        super().__init__(in_width // config.count, vocab_size, config, tied)
        self.in_width, self.streams = in_width, config.count
        shape = config.count, in_width // config.count
        # drawn: with equal shares all perspectives, which begin alike, would be moved alike for ever
        self.combine = nn.Parameter(torch.randn(shape) * shape[1] ** -0.5) if config.count > 1 else None

    def project(self, h: Tensor, mask: Tensor | None = None, scaled: bool = True) -> Tensor:
        """The mixture of the perspectives, then as every head."""
        if self.combine is not None:
            apart = h.unflatten(-1, (self.streams, -1))
            share = torch.softmax(self.linear(apart.mean(-2), self.combine), -1)
            h = (share.unsqueeze(-1) * apart).sum(-2)
        return super().project(h, mask, scaled)
