"""The contract of an encoder: a row goes in as a whole, and every output may see all of it."""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from unrolled.cells.base import Cell, Noise, Tap
from unrolled.cells.feedforward.mlp import NoState
from unrolled.core.errors import UsageError
from unrolled.kernels import OPERATIONS
from unrolled.kernels.linear import linear

__all__ = ["Drop", "EncoderCell", "mask_of"]

Drop = Callable[[str, Tensor], Tensor]
"""What stands at a site inside an encoder, times the dropout mask of that site."""


class EncoderCell(Cell):
    """A cell that carries nothing from window to window and sees whole rows.

    Each row holds one text, behind padding if there is any: ``reset`` is true at the first token of a row that is
    padded, and what stands before it does not exist. A subclass writes :meth:`encode`; it stands in any stack beside
    any cell, and a language model refuses it.

    Attributes:
        sees_all_after: of how many such layers, one upon another, every output depends on every token of its row.
    """

    State = NoState
    encodes = True
    memory = False
    even_steps = False
    no_graph = "it reads whole rows"
    sees_all_after: int = 1

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
            UsageError: noise on a state, or at a site that it has not; a second text in a row; a row of another length
                than :meth:`row_steps`.
        """
        if noise is not None and (noise.zoneout or noise.state_in is not None or noise.state_out is not None):
            raise UsageError(f"the {self.name} has no state for noise; set these rates to 0.")
        inner: Mapping[str, Tensor] = {} if noise is None else noise.inner or {}
        if set(inner) - set(self.inner_sites):
            raise UsageError(f"the {self.name} has no such site inside for dropout; set model.dropout.inner to 0.")
        if reset is not None and bool((reset.sum(1) > 1).any()):
            raise UsageError(f"the {self.name} reads one text in each row; put texts into rows of their own.")
        mask = mask_of(reset)
        steps = self.row_steps(self.config)
        if steps is not None and (x.shape[1] != steps or mask is not None):
            found = x.shape[1] if mask is None else int(mask.sum(1).min())
            raise UsageError(
                f"the {self.name} reads rows of {steps} steps as it is set, not of {found}; give such rows, or "
                "set its options by their length."
            )

        def drop(site: str, value: Tensor) -> Tensor:
            return value * inner[site] if site in inner else value

        def window(_: Noise | None) -> tuple[Tensor, Any]:
            y = self.encode(x, mask, drop)
            y = y if mask is None else y.masked_fill(~mask.unsqueeze(-1), 0)
            if tap is not None:
                for t in range(x.shape[1]):
                    tap("h", y[:, t])
            return y, NoState()

        return self.under_masks(noise, window)

    def encode(self, x: Tensor, mask: Tensor | None, drop: Drop) -> Tensor:
        """Outputs (batch, time, out_width) of whole rows.

        Args:
            x: (batch, time, in_width). mask: boolean (batch, time), false at padding, which stands before a row's
                tokens; None: there is none. What is put out there does not matter.
            drop: ``drop(site, value)`` is the value under the mask of one of ``inner_sites``.
        """
        raise NotImplementedError

    @classmethod
    def row_steps(cls, config: Any) -> int | None:
        """How many steps each row must have, so that none is padded; None: any number."""
        return None

    def linear(self, name: str, v: Tensor, bias: str | None = None) -> Tensor:
        """v (..., in) times the parameter ``name`` (out, in), transposed, plus the parameter ``bias``."""
        add = None if bias is None else operator.attrgetter(bias)(self)
        return linear(
            v, operator.attrgetter(name)(self), add, self.compute.precision, self.compute.wish("linear"), self.name
        )

    def wish_for(self, operation: str) -> str:
        """The backend that is asked of an operation; ``auto`` where that lacks the one that is asked for."""
        wish = self.compute.wish(operation)
        return wish if wish in OPERATIONS[operation].backends else "auto"

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
