"""The base of cells without a step: what they all do around the operation that computes them."""

import copy
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
    show: names internals of the window, (batch, time, ...); None when nobody listens. The state and the output ``h``
    are named without it. handed: see :attr:`Cell.hands`. inner: site -> mask, of ``inner_sites`` alone; :meth:`drop`
    applies one.
    """

    reset: Tensor | None
    zoneout: Mapping[str, Tensor]
    show: Show | None
    handed: MutableMapping[str, Tensor]
    inner: Mapping[str, Tensor] = {}

    def drop(self, site: str, x: Tensor) -> Tensor:
        """x (batch, time, width) times the mask of a site inside the cell; x itself where there is none."""
        return x * self.inner[site] if site in self.inner else x


class MixerCell(Cell):
    """A cell computed over the whole window by an operation (a scan, a matrix state, a convolution, attention).

    A subclass writes :meth:`mix`, and :meth:`initial_state` where its state is not zeros of (batch, width) in each
    field; ``forward`` is inherited.

    Attributes:
        operation: the operation that it goes through, a name in :data:`unrolled.kernels.OPERATIONS`.
        matrix_fields: fields of the state that hold a matrix for each head, (batch, heads, ...).
        packed: makes products x W^T + b from copies of the weights, or None for those that it has not; of a copy of the
            cell for decoding alone.
        positive_fields: fields of the state that are never negative, such as sums of weights that are divided by.
        reached_fields: fields of the state that make sense only as tokens have left them, such as sums of features of
            either sign that are divided by.
    """

    operation: ClassVar[str]
    packed: Callable[[Tensor, Tensor, Tensor | None], Tensor | None] | None = None
    matrix_fields: ClassVar[tuple[str, ...]] = ()
    positive_fields: ClassVar[tuple[str, ...]] = ()
    reached_fields: ClassVar[tuple[str, ...]] = ()

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
        add = None if bias is None else operator.attrgetter(bias)(self)
        weight = operator.attrgetter(name)(self)
        if self.packed is not None and (y := self.packed(v, weight, add)) is not None:
            return y
        wish = "reference" if self.wish == "reference" else self.compute.wish("linear")
        return linear(v, weight, add, self.compute.precision, wish, self.name)

    def settled(self) -> "MixerCell":
        """A copy for decoding with the weights as they are now: what is made of them alone may be made once."""
        return copy.copy(self)

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
            UsageError: noise other than zoneout of ``zoneout_fields`` and masks of ``inner_sites`` and of weights.
        """
        state = self.initial_state(x.shape[0], x.device, x.dtype) if state is None else state
        inner = {} if noise is None else noise.inner or {}
        given = Given(reset, self._zoneout(noise), None, {} if handed is None else handed, inner)

        def window(_: Noise | None) -> tuple[Tensor, Any]:
            if tap is not None:
                self._trace(x, state, given, tap)
            return self.mix(x, state, given)

        return self.under_masks(noise, window)

    def _trace(self, x: Tensor, state: Any, given: Given, tap: Tap) -> None:
        """Tap what :meth:`mix` shows, the state and the output, step by step; of a matrix also the norm of each
        head's."""

        def at(part: Tensor, t: int) -> Tensor:
            return part[:, t : t + 1] if part.shape[1] > 1 else part

        for t in range(x.shape[1]):
            seen: dict[str, Tensor] = {}
            reset = None if given.reset is None else given.reset[:, t : t + 1]
            zoneout = {name: at(mask, t) for name, mask in given.zoneout.items()}
            handed = {name: value[:, t : t + 1] for name, value in given.handed.items()}
            inner = {name: at(mask, t) for name, mask in given.inner.items()}
            y, state = self.mix(x[:, t : t + 1], state, Given(reset, zoneout, seen.__setitem__, handed, inner))
            found = {name: value[:, 0] for name, value in seen.items()}
            for name, part in state._asdict().items():
                if part.is_floating_point():
                    found[name] = part
                    if name in self.matrix_fields:
                        found[f"{name}_norm"] = torch.linalg.vector_norm(part.flatten(2), dim=-1)
            found["h"] = y[:, 0]
            for name, value in found.items():
                tap(name, value)

    def _zoneout(self, noise: Noise | None) -> Mapping[str, Tensor]:
        if noise is None:
            return {}
        kept = noise.zoneout or {}
        if set(noise.inner or {}) - set(self.inner_sites):
            takes = f"{', '.join(self.inner_sites)} alone" if self.inner_sites else "none"
            raise UsageError(f"the {self.name} has sites for dropout inside: {takes}; set model.dropout.inner to 0.")
        if noise.state_in is not None or noise.state_out is not None or set(kept) - set(self.zoneout_fields):
            takes = f"zoneout of {', '.join(self.zoneout_fields)} and no other" if self.zoneout_fields else "no"
            raise UsageError(f"the {self.name} takes {takes} noise on its state.")
        return kept
