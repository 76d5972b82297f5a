"""The contract of an encoder: a row goes in as a whole, and every output may see all of it."""

import operator
from typing import Any

import torch
from torch import Tensor

from unrolled.cells.base import Cell, Noise, Tap
from unrolled.cells.feedforward.mlp import NoState
from unrolled.core.errors import UsageError
from unrolled.kernels.linear import linear

__all__ = ["EncoderCell"]


class EncoderCell(Cell):
    """A cell that carries nothing from window to window and sees whole rows.

    Each row holds one text, behind padding if there is any: ``reset`` is true at the first token of a row that is
    padded, and what stands before it does not exist. A subclass writes :meth:`encode`; it stands in any stack beside
    any cell, and a language model refuses it.
    """

    State = NoState
    encodes = True
    memory = False
    even_steps = False
    no_graph = "it reads whole rows"

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> NoState:
        """Nothing is carried."""
        return NoState()

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        reset: Tensor | None = None,
        noise: Noise | None = None,
        tap: Tap | None = None,
    ) -> tuple[Tensor, Any]:
        """See :meth:`Cell.forward`.

        Args:
            x: (batch, time, in_width), whole rows. reset: boolean (batch, time), true at the first token of a row that
                is padded before it, and nowhere else; None: no row is padded.
        Returns:
            y (batch, time, out_width), 0 at padding, and the empty state.
        Raises:
            UsageError: noise on a state or inside; a second text in a row.
        """
        if noise is not None and any(part for part in noise._replace(weight=None) if part is not None):
            raise UsageError(f"the {self.name} has no state and no site inside for noise; set these rates to 0.")
        if reset is not None and bool((reset.sum(1) > 1).any()):
            raise UsageError(f"the {self.name} reads one text in each row; put texts into rows of their own.")
        mask = mask_of(reset)

        def window(_: Noise | None) -> tuple[Tensor, Any]:
            y = self.encode(x, mask)
            y = y if mask is None else y.masked_fill(~mask.unsqueeze(-1), 0)
            if tap is not None:
                for t in range(x.shape[1]):
                    tap("h", y[:, t])
            return y, NoState()

        return self.under_masks(noise, window)

    def encode(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """Outputs (batch, time, out_width) of whole rows.

        Args:
            x: (batch, time, in_width). mask: boolean (batch, time), false at padding, which stands before a row's
                tokens; None: there is none. What is put out there does not matter.
        """
        raise NotImplementedError

    def linear(self, name: str, v: Tensor, bias: str | None = None) -> Tensor:
        """v (..., in) times the parameter ``name`` (out, in), transposed, plus the parameter ``bias``."""
        add = None if bias is None else operator.attrgetter(bias)(self)
        return linear(
            v, operator.attrgetter(name)(self), add, self.compute.precision, self.compute.wish("linear"), self.name
        )

    def backends(self) -> list[str]:
        """The one body that there is."""
        return ["reference"]


def mask_of(reset: Tensor | None) -> Tensor | None:
    """Boolean (batch, time), false before the first token of a row that is padded; None where no row
    is."""
    if reset is None:
        return None
    begun = (reset.int().cumsum(1) > 0) | ~reset.any(1, keepdim=True)
    return None if bool(begun.all()) else begun
