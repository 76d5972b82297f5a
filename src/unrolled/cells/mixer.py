"""The base of cells without a step: what they all do around the operation that computes them."""

import operator
from collections.abc import Callable, Mapping, MutableMapping
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from unrolled.cells.base import Cell, Noise, Tap
from unrolled.core.errors import UsageError
from unrolled.kernels import OPERATIONS
from unrolled.kernels.linear import linear

__all__ = ["Given", "MixerCell", "Show"]

Show = Callable[[str, Tensor], None]
"""Names an internal of the whole window, (batch, time, ...), for tracing."""


class Given(NamedTuple):
    """What a window comes with, beside input and state.

    reset: boolean (batch, time) or None. zoneout: field -> mask, see :class:`Noise`; of ``zoneout_fields`` alone.
    show: names internals; None when nobody listens. handed: see :attr:`Cell.hands`.
    """

    reset: Tensor | None
    zoneout: Mapping[str, Tensor]
    show: Show | None
    handed: MutableMapping[str, Tensor]


class MixerCell(Cell):
    """A cell computed over the whole window by an operation (a scan, a matrix state, a convolution, attention).

    A subclass writes :meth:`mix`, and :meth:`initial_state` where its state is not zeros of (batch, width) in each
    field; ``forward`` is inherited.

    Attributes:
        operation: the operation that it goes through, a name in :data:`unrolled.kernels.OPERATIONS`.
    """

    operation: ClassVar[str]

    def mix(self, x: Tensor, state: Any, given: Given) -> tuple[Tensor, Any]:
        """One window.

        Args:
            x: (batch, time, in_width). state: the State before it.
        Returns:
            y (batch, time, out_width) and the State after the last token.
        """
        raise NotImplementedError

    def initial_state(self, batch: int, device: Any = None, dtype: torch.dtype | None = None) -> Any:
        """Zeros, each (batch, width)."""
        zeros = [torch.zeros(batch, self.width, device=device, dtype=dtype) for _ in self.State._fields]  # type: ignore[attr-defined]
        return self.State(*zeros)

    def linear(self, name: str, v: Tensor, bias: str | None = None) -> Tensor:
        """v (..., in) times the parameter ``name`` (out, in), transposed, plus the parameter ``bias``."""
        wish = "reference" if self.wish == "reference" else self.compute.wish("linear")
        add = None if bias is None else operator.attrgetter(bias)(self)
        return linear(v, operator.attrgetter(name)(self), add, self.compute.precision, wish, self.name)

    @property
    def wish(self) -> str:
        """The backend that is asked of the cell's operation."""
        return self.compute.wish(self.operation)

    def wish_for(self, operation: str) -> str:
        """The backend that is asked of another operation that the cell goes through too; ``auto`` where that lacks the
        one that is asked for, which is the cell's own operation's then."""
        wish = self.compute.wish(operation)
        return wish if wish in OPERATIONS[operation].backends else "auto"

    def backends(self) -> list[str]:
        """Those of its operation that can serve here."""
        return OPERATIONS[self.operation].serving()

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        reset: Tensor | None = None,
        noise: Noise | None = None,
        tap: Tap | None = None,
        handed: MutableMapping[str, Tensor] | None = None,
    ) -> tuple[Tensor, Any]:
        """See :meth:`Cell.forward`.

        Raises:
            UsageError: noise other than zoneout of ``zoneout_fields``.
        """
        state = self.initial_state(x.shape[0], x.device, x.dtype) if state is None else state
        seen: dict[str, Tensor] = {}
        show = None if tap is None else seen.__setitem__
        given = Given(reset, self._zoneout(noise), show, {} if handed is None else handed)
        y, new = self.mix(x, state, given)
        if tap is not None:
            for t in range(x.shape[1]):
                for name, value in seen.items():
                    tap(name, value[:, t])
        return y, new

    def _zoneout(self, noise: Noise | None) -> Mapping[str, Tensor]:
        if noise is None:
            return {}
        kept = noise.zoneout or {}
        if noise.state_in is not None or noise.state_out is not None or set(kept) - set(self.zoneout_fields):
            takes = f"zoneout of {', '.join(self.zoneout_fields)} and no other" if self.zoneout_fields else "no"
            raise UsageError(f"the {self.name} takes {takes} noise on its state.")
        return kept
