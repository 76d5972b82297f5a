"""``trellis``: levels of one gated convolution with two taps, all with the same weights and the same injected input.

.. code-block:: none

    pre = injected + W_past h(i-1, t-d) + W_now h(i-1, t)
    lstm: i, o, f = sigmoid, g = tanh of the blocks i, o, g, f of pre
          c(i, t) = f c(i-1, t-d) + i g,  h(i, t) = o tanh(c(i, t))
    tanh: h(i, t) = tanh(pre)

Level 0's input is zero. Backends: ``native`` (one node with a backward written by hand, which keeps the gates and makes
its products from shifted views, without copies; what is between the products in C++), ``levels`` (the same with torch's
pointwise operations) and ``reference`` (the levels under autograd, which defines it).
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

from unrolled.core.errors import UsageError
from unrolled.kernels.causal_conv import reach_of
from unrolled.kernels.dispatch import Backend, Operation, Sizes, choose
from unrolled.kernels.trellis import levels, reference

__all__ = ["BACKENDS", "OPERATION", "Trellis", "distinct", "trellis"]

BACKENDS = {
    backend.name: backend
    for backend in (
        Backend("native", levels.refuse_native, levels.run_native),
        Backend("levels", levels.refuse, levels.run),
        Backend("reference", lambda *_: None, reference.run),
    )
}


class Trellis(NamedTuple):
    """h: (batch, time, width), the last level's; c: the same, or None. held_h, held_c: after the window.
    shown: (batch, time, levels, width), h of the levels that were asked for."""

    h: Tensor
    c: Tensor | None
    held_h: Tensor
    held_c: Tensor | None
    shown: Tensor


def distinct(dilations: Sequence[int]) -> tuple[int, ...]:
    """The dilations that there are, in the order in which they come."""
    return tuple(dict.fromkeys(dilations))


def trellis(
    injected: Sequence[Tensor],
    past: Tensor,
    now: Tensor,
    held_h: Tensor,
    held_c: Tensor | None,
    dilations: Sequence[int],
    reset: Tensor | None = None,
    mask: Tensor | None = None,
    show: Sequence[int] = (),
    precision: str = "float32",
    backend: str = "auto",
    subject: str = "",
) -> Trellis:
    """Run all levels over a window.

    Args:
        injected: for each of :func:`distinct` dilations (batch, time, gates): products of the input, and the bias.
        past, now: (gates, width), the taps at t - d and t; gates is 4 width, or width without ``held_c``.
        held_h, held_c: (batch, steps, width), what each level reads of the time before the window, level after level,
            d steps each. Without those of level 0 they are zeros. held_c is None for tanh.
        dilations: d of each level.
        reset: boolean (batch, time); what lies before a true is not seen from there on.
        mask: (batch, 1 or time, width), multiplies both h that an output reads, at all levels.
        show: levels whose h is wanted.
        precision: of the products.
    Raises:
        UsageError: shapes that do not fit, or an unknown backend, or one that cannot serve here.
    """
    units, width = 1 if held_c is None else 4, past.shape[1]
    steps = (sum(dilations), sum(dilations[1:]))
    fits = past.shape == now.shape == (units * width, width) and held_h.shape[1] in steps
    if not fits or len(injected) != len(distinct(dilations)):
        raise UsageError(
            f"levels of dilations {tuple(dilations)} do not suit weights {tuple(past.shape)}, "
            f"{len(injected)} injected inputs and {held_h.shape[1]} steps held; pass on what it returned."
        )
    reach = None if reset is None else reach_of(reset, max(dilations))
    args = (injected, past, now, held_h, held_c, tuple(dilations), reach, mask, tuple(show), precision)
    return Trellis(*choose("trellis", BACKENDS, backend, subject or "trellis", *args).run(*args))


_LEVELS = (1, 2, 1, 2)


def _amount(sizes: Sizes, backward: bool) -> int:
    """Two operations a weight and row at every level but the first, whose input is zero."""
    return (3 if backward else 1) * 2 * 8 * sizes.width**2 * sizes.batch * sizes.window * (len(_LEVELS) - 1)


def _inputs(sizes: Sizes, draw: Callable[..., Tensor]) -> dict[str, Tensor]:
    width, held = sizes.width, sum(_LEVELS[1:])
    return {
        "first": draw("first", sizes.batch, sizes.window, 4 * width),
        "second": draw("second", sizes.batch, sizes.window, 4 * width),
        "past": draw("past", 4 * width, width) * width**-0.5,
        "now": draw("now", 4 * width, width) * width**-0.5,
        "held_h": draw("held_h", sizes.batch, held, width),
        "held_c": draw("held_c", sizes.batch, held, width),
    }


def _call(given: Mapping[str, Tensor], backend: str, precision: str) -> tuple[Tensor, ...]:
    past, now, held_h, held_c = (given[name] for name in ("past", "now", "held_h", "held_c"))
    injected = (given["first"], given["second"])
    found = trellis(
        injected, past, now, held_h, held_c, _LEVELS, show=(1,), precision=precision, backend=backend
    )  # fmt: skip
    return tuple(part for part in found if part is not None)


def _request(given: Mapping[str, Tensor]) -> tuple[object, ...]:
    rest = (given[name] for name in ("past", "now", "held_h", "held_c"))
    return ((given["first"], given["second"]), *rest, _LEVELS, None, None, (), "float32")


OPERATION = Operation(
    "trellis", "h(i, t) = gates(x(t), h(i-1, t-d), h(i-1, t)), all levels i", BACKENDS, "products", True, _amount,
    _inputs, _call, request=_request, precisions=("float32", "bf16"),
)  # fmt: skip
