"""What the cells share that learn while they read."""

from typing import Any, NamedTuple

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.matrix.base import HeadsConfig
from unrolled.cells.mixer import MixerCell
from unrolled.kernels.learner_scan import Learned, Network, learner_scan
from unrolled.kernels.learner_scan.inner import layers_of

__all__ = ["LearnerCell", "LearnerConfig", "TTTConvState", "TTTState"]


class LearnerConfig(HeadsConfig):
    """Options of a cell with a learner in each head."""

    chunk: int = Field(
        default=16,
        ge=1,
        le=4096,
        description="tokens whose errors are looked at with the same weights, those before the first of them",
    )
    group: int = Field(
        default=0,
        ge=0,
        description="chunks at a time that are computed again in the backward pass in place of being kept (0: all are "
        "kept)",
    )


class TTTState(NamedTuple):
    """before: (batch, heads, numbers), the learner's weights before the open chunk. sums: the same, the steps of the
    open chunk summed up. place: int64 (batch,), tokens of the open chunk."""

    before: Tensor
    sums: Tensor
    place: Tensor


class TTTConvState(NamedTuple):
    """The same, and conv: (batch, kernel - 1, width), the last inputs of the convolutions."""

    before: Tensor
    sums: Tensor
    place: Tensor
    conv: Tensor


class LearnerCell(MixerCell):
    """A cell whose state is the weights of a small network in each head, computed by ``learner_scan``.

    A subclass says :meth:`network`, and makes ``start`` (heads, numbers), the weights that a document begins with.
    """

    operation = "learner_scan"
    matrix_fields = ("before", "sums")
    start: nn.Parameter

    @classmethod
    def network(cls, config: Any, width: int) -> Network:
        """The network of one head."""
        raise NotImplementedError

    @classmethod
    def width_multiple(cls, config: Any) -> int:
        """The heads."""
        return config.heads

    @torch.no_grad()
    def fill_start(self, std: float | None) -> None:
        """Draw the weights that a document begins with: normal, of this deviation, or in^-1/2; biases zero."""
        if self.start.is_meta:
            return
        for weight, bias in layers_of(self.start, self.network(self.config, self.width)):
            nn.init.normal_(weight, 0, weight.shape[-2] ** -0.5 if std is None else std)
            if bias is not None:
                bias.zero_()

    def begin(self, batch: int, device: Any, dtype: torch.dtype | None) -> tuple[Tensor, Tensor, Tensor]:
        """The weights at the start of a document, sums of zero, and the place 0."""
        weights = self.start.to(device=device, dtype=dtype).expand(batch, -1, -1).clone()
        return weights, torch.zeros_like(weights), torch.zeros(batch, dtype=torch.int64, device=weights.device)

    @classmethod
    def learner_flops(cls, config: Any, width: int, reads: int = 1) -> int:
        """2H times the weights: for the error, its way back through all layers but the first, and ``reads``."""
        sizes = [a * b for a, b in cls.network(config, width).shapes()]
        return 2 * config.heads * ((1 + reads) * sum(sizes) + sum(sizes[1:]))

    def learn(self, q: Tensor, k: Tensor, v: Tensor, step: Tensor, learned: Learned, **options: Any) -> Any:
        """``learner_scan`` with the cell's network, options and backend."""
        config = self.config
        return learner_scan(q, k, v, step, self.network(config, self.width), self.start, learned, chunk=config.chunk,
                          group=config.group, backend=self.wish, subject=self.name, **options)  # fmt: skip
