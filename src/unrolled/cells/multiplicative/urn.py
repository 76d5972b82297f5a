"""Unitary recurrent network: words are rotations of the state."""

from typing import Any, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from unrolled.cells.base import CellConfig, HiddenState, StepCell, Tap, Weights

__all__ = ["URN", "URNConfig"]


class URNConfig(CellConfig):
    """Options of the unitary recurrent network."""

    name: Literal["urn"] = "urn"
    rank: int | None = Field(
        default=None,
        ge=1,
        le=1 << 16,
        description="rows k above the diagonal that are not zero, of the N - 1 there are; the skew-symmetric matrices "
        "then have rank 2k (absent: all)",
    )


class URN(StepCell):
    r"""Unitary recurrent network (Bernardy and Lappin 2022): each word is an orthogonal matrix, and nothing else acts.

    .. math:: h_t = Q_t h_{t-1}, \quad Q_t = \exp(S(\theta_t)), \quad S = -S^\top

    θ, the input, fills the rows of S above the diagonal, N(N - 1)/2 numbers; with ``rank`` k the first k of these rows
    alone, k(2N - k - 1)/2 numbers: S then has rank 2k, and Q keeps N - 2k directions as they are. There is no
    non-linearity, so the matrix of a phrase is the product of its words' (:meth:`phrase`), and the norm of h is that of
    the start, a learned vector of length one. The real case, whose matrices are orthogonal; nothing is normalised
    anew: in float32 the norm is off by 1e-4 after 1,000 steps.

    Where the input is not as wide as θ (``embedding.size`` of a model of one layer sets it), θ is a linear map of it. A
    reconstruction: the paper's text was not at hand, and no public code is known. The matrices of words are made
    once for each row of the vocabulary wherever the window is longer than it. Parameters N; with a map to θ, I times
    its size more.
    """

    Config = URNConfig
    State = HiddenState
    EXAMPLES = (URNConfig(), URNConfig(rank=1))
    no_graph = "its matrices are exponentials of matrices made of what is read, which ONNX does not have"
    EQUATION = "h = exp(S(x)) h, S skew-symmetric"

    def __init__(self, in_width: int, width: int, config: URNConfig):
        super().__init__(in_width, width, config)
        size = self._angles(config, width)
        if size != in_width:
            self.widen = nn.Parameter(torch.empty(size, in_width))
        self.start = nn.Parameter(torch.empty(width))
        self._rows = torch.triu_indices(width, width, 1)[:, :size]  # row by row
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights anew: the map to θ of deviation I^(-1/2), any direction of the start."""
        if "widen" in dict(self.named_parameters()):
            nn.init.normal_(self.widen, std=self.in_width**-0.5)
        nn.init.normal_(self.start)

    @staticmethod
    def _angles(config: Any, width: int) -> int:
        """How many numbers θ has."""
        rows = width - 1 if config.rank is None else min(config.rank, width - 1)
        return rows * (2 * width - rows - 1) // 2

    def project(self, x: Tensor, w: Weights) -> Tensor:
        """The matrices Q, (..., N, N)."""
        theta = w.linear("widen", x) if "widen" in w else x
        row, column = self._rows.to(x.device)
        s = theta.new_zeros(*theta.shape[:-1], self.width, self.width)
        s[..., row, column] = theta
        return torch.linalg.matrix_exp(s - s.mT)

    def step(self, pre: Tensor, state: HiddenState, w: Weights, tap: Tap) -> tuple[Tensor, HiddenState]:
        """One rotation."""
        h = torch.bmm(pre, state.h.unsqueeze(-1)).squeeze(-1)
        tap("h", h)
        return h, HiddenState(h)

    def phrase(self, x: Tensor) -> Tensor:
        """The matrices (batch, N, N) of phrases x (batch, time, in_width): the products of their words', the last
        word's on the left."""
        matrices = self.project(x, Weights(self.effective_weights())).unbind(1)
        product = matrices[0]
        for matrix in matrices[1:]:
            product = matrix @ product
        return product

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> HiddenState:
        """The learned vector, of length one."""
        start = self.start / torch.linalg.vector_norm(self.start)
        return HiddenState(start.to(device=device, dtype=dtype).expand(batch, -1).clone())

    @classmethod
    def num_params(cls, config: Any, in_width: int, width: int) -> int:
        """N, + I times the size of θ where that is not I."""
        size = cls._angles(config, width)
        return width + (size * in_width if size != in_width else 0)

    @classmethod
    def flops_per_token(cls, config: Any, in_width: int, width: int) -> int:
        """2N², + 2I times the size of θ where that is not I."""
        size = cls._angles(config, width)
        return 2 * width * width + (2 * size * in_width if size != in_width else 0)
