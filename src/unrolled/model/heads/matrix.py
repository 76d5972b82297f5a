"""What heads with an output matrix share: the matrix, tied or not, a projection before it, and a bias."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.init import truncated_normal
from unrolled.core.errors import UsageError
from unrolled.core.random import RandomStreams
from unrolled.kernels.linear import glue_linear
from unrolled.model.dropout import apply_mask, draw_rows
from unrolled.model.heads.base import Head, HeadConfig

__all__ = ["MatrixConfig", "MatrixHead"]


class MatrixConfig(HeadConfig):
    """Options of every head with an output matrix."""

    project: int | None = Field(
        default=None,
        ge=1,
        le=1 << 20,
        description="width of a linear map without bias before the output matrix (absent: none, or the "
        "embedding size where the matrix is tied and the widths differ)",
    )
    bias: bool = Field(default=True, description="a bias per token")
    bias_init: Literal["zero", "unigram"] = Field(
        default="zero", description="start the bias at zero, or at the log frequency of each token in the training text"
    )
    init: Literal["truncated_normal", "orthogonal"] = Field(
        default="truncated_normal", description="initialisation of an output matrix of its own (not tied)"
    )
    init_scale: float = Field(default=1.0, gt=0, le=1e4, description="factor on that start")
    block: int = Field(default=2**22, ge=1, description="logits held at once in training (rows x vocabulary)")


class MatrixHead(Head):
    """Holds W (V, E), the projection P where one is set or needed, and the bias.

    Args:
        in_width: width of h. vocab_size: V. tied: the embedding matrix (V, E) to share, or None.
        fixed: E where the head itself decides it; then there is no projection.
    """

    def __init__(
        self, in_width: int, vocab_size: int, config: Any, tied: nn.Parameter | None = None, fixed: int | None = None
    ):
        super().__init__(in_width, vocab_size, config, tied)
        size = tied.shape[1] if tied is not None else (fixed or config.project or in_width)
        if config.project not in (None, size):
            raise UsageError(
                f"the output matrix is tied to an embedding of size {size}, so head.project cannot be "
                f"{config.project}; leave it out or untie."
            )
        projects = fixed is None and (config.project is not None or size != in_width)
        self.projection = nn.Parameter(torch.empty(size, in_width)) if projects else None
        self.projected_width = size if projects else None
        self.weight = tied if tied is not None else nn.Parameter(torch.empty(vocab_size, size))
        self.bias = nn.Parameter(torch.zeros(vocab_size)) if config.bias else None
        self._own_matrix = tied is None

    def reset_parameters(self) -> None:
        """Draw anew: projection orthogonal, a matrix of its own as ``init`` and ``init_scale`` say, bias zero."""
        if self.weight.is_meta:
            return
        if self.projection is not None:
            nn.init.orthogonal_(self.projection)
        if not self._own_matrix:
            return
        if self.config.init == "orthogonal":
            nn.init.orthogonal_(self.weight)
        else:
            truncated_normal(self.weight, self.weight.shape[1] ** -0.5)
        if self.config.init_scale != 1.0:
            with torch.no_grad():
                self.weight *= self.config.init_scale

    @property
    def needs_counts(self) -> bool:
        """See :attr:`Head.needs_counts`."""
        return self.bias is not None and self.config.bias_init == "unigram"

    @torch.no_grad()
    def use_counts(self, counts: Tensor) -> None:
        """Set the bias to log((count + 1) / sum) where it starts so."""
        if self.bias is not None and self.config.bias_init == "unigram":
            p = (counts + 1).double()
            self.bias.copy_((p / p.sum()).log())

    def draw_projected(
        self, batch: int, time: int, rate: float, per_step: bool, streams: RandomStreams, window: int
    ) -> Tensor | None:
        """The dropout mask on the projected output; None without one."""
        if not self.projected_width:
            return None
        shape = (batch, time if per_step else 1, self.projected_width)
        return draw_rows(rate, shape, streams, "projected", window, self.weight.device, self.weight.dtype)

    def draw_masks(
        self, batch: int, time: int, rate: float, per_step: bool, streams: RandomStreams, window: int
    ) -> Any:
        """See :meth:`Head.draw_masks`."""
        return self.draw_projected(batch, time, rate, per_step, streams, window)

    @property
    def low(self) -> bool:
        """Whether products are in bf16."""
        return self.compute.precision == "bf16"

    def linear(self, v: Tensor, matrix: Tensor, bias: Tensor | None = None) -> Tensor:
        """matrix v (+ bias), in the precision that is asked for."""
        y = glue_linear(v, matrix, None, self.compute, self.config.name)
        return y if bias is None else y + bias

    @property
    def loss_options(self) -> dict[str, Any]:
        """How this head asks for :func:`unrolled.kernels.softmax_loss.softmax_loss`."""
        options = {"block": self.config.block, "low": self.low}
        return {**options, "backend": self.compute.wish("softmax_loss"), "subject": self.config.name}

    def scaled(self, value: Tensor) -> Tensor:
        """``value`` (what W multiplies, or a bias) times ``logit_scale``."""
        return value if self.logit_scale == 1.0 else value * self.logit_scale

    def bias_now(self) -> Tensor | None:
        """What is added to W h, (V,); None for nothing. Heads whose bias moves give the moved one."""
        return self.bias

    @property
    def scaled_bias(self) -> Tensor | None:
        """The bias times ``logit_scale``; None without one."""
        bias = self.bias_now()
        return None if bias is None else self.scaled(bias)

    def project(self, h: Tensor, mask: Tensor | None = None, scaled: bool = True) -> Tensor:
        """P h, dropped by the mask, times ``logit_scale`` where ``scaled``."""
        h = apply_mask(h if self.projection is None else self.linear(h, self.projection), mask)
        return self.scaled(h) if scaled else h

    def softmax(self, h: Tensor) -> Tensor:
        """log softmax(W h + b) of a projected h; b times ``logit_scale``."""
        return torch.log_softmax(self.linear(h, self.weight, self.scaled_bias), -1)
